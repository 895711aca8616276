"""A pretrained causal language model of `transformers`: hub id, local folder, or packaged (policies/packaged.py).

Weights are read from safetensors only and no code of a model is run (trust_remote_code stays off).
"""

from pathlib import Path

from maxpo_bench.errors import InputError, one_line
from maxpo_bench.policies import packaged


class Pretrained:
    """One model by name; `where` is the task file's name for messages. Reads nothing before it is asked."""

    def __init__(self, name, where):
        self.name, self.where = name, f"{where}: model.name"

    def load_tokenizer(self):
        """Its tokenizer, padding on the left; also reads its config.json and generation_config.json."""
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        tokenizer = self._load(AutoTokenizer.from_pretrained, padding_side="left")
        if tokenizer.eos_token_id is None:
            raise InputError(f"{self.where}: the tokenizer of {self.name} has no end-of-sequence token")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._config = self._load(AutoConfig.from_pretrained)
        try:
            self._generation = GenerationConfig.from_pretrained(self._path())
        except OSError:  # many models have no generation_config.json; one that cannot be read is none to generate either
            self._generation = GenerationConfig()
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.where}: generation_config.json of {self.name}: {one_line(error)}") from None
        return tokenizer

    def end_tokens(self, tokenizer):
        """The tokenizer's end token first, then those of the model's config.json and generation_config.json."""
        found = [tokenizer.eos_token_id]
        for ends in (self._config.eos_token_id, self._generation.eos_token_id):
            found += ends if isinstance(ends, list) else [ends]
        return list(dict.fromkeys(end for end in found if end is not None))

    def context(self):
        """The longest prompt + completion it takes, in tokens."""
        from maxpo_bench.policies import self_check

        return self_check.context(self._config) or 1_000_000  # some state-space models have none

    def load_model(self):
        """The model, float32, on the CPU."""
        import torch
        from transformers import AutoModelForCausalLM

        return self._load(AutoModelForCausalLM.from_pretrained, use_safetensors=True, dtype=torch.float32).eval()

    def _path(self):
        try:
            return packaged.resolve(self.name)
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None

    def _load(self, method, **options):
        """from_pretrained with one-line errors: not a model, or the hub cannot be reached."""
        name = self._path()
        path = Path(name)
        if path.is_dir() and not (path / "config.json").is_file():
            raise InputError(f"{self.where}: {name} is not a model folder: it has no config.json")
        if not path.is_dir() and (path.is_absolute() or name.startswith(".")):
            raise InputError(f"{self.where}: no folder {name}")
        try:
            return method(name, trust_remote_code=False, **options)
        except Exception as error:  # transformers and the hub client raise many kinds
            if path.is_dir():
                raise InputError(f"{self.where}: cannot load {name}: {one_line(error)}") from None
            raise InputError(
                f"{self.where}: {name} is neither a local folder nor to be had from the Hugging Face hub "
                f"(no network, or no such model): {one_line(error)}"
            ) from None
