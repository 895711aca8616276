"""LoRA: a frozen model with small trained matrices beside some of its linear layers (arXiv:2106.09685), by peft."""

from contextlib import contextmanager

import torch

from maxpo_bench.errors import InputError, one_line


def add(model, options, seed, where):
    """Put adapters into `model`, in place: only they are trained from here on, and they start as no change at all.

    options: the task's `lora` section. seed: of the adapters' first values. InputError: no peft, or no such modules.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(f"{where}: lora needs the package peft: pip install 'maxpo-bench[lora]'") from None
    linear = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
    wrong = [target for target in options["targets"] if target not in linear]
    if wrong:
        raise InputError(f"{where}: lora.targets: no module {wrong[0]!r} in {type(model).__name__}; it has {', '.join(linear)}")
    config = LoraConfig(r=options["rank"], lora_alpha=options["alpha"], target_modules=list(options["targets"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except (ValueError, TypeError) as error:
            raise InputError(f"{where}: lora: {type(model).__name__} takes no such adapter: {one_line(error)}") from None
    return model.eval()


def is_in(model):
    """Whether `model` has adapters."""
    return any(hasattr(module, "lora_A") for module in model.modules())


@contextmanager
def off(model):
    """The model without its adapters, as it was before any training, while the block runs."""
    layers = [module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "enable_adapters")]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield model
    finally:
        for layer in layers:
            layer._disable_adapters = False
