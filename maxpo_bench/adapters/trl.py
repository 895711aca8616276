"""An estimator in TRL's GRPOTrainer or RLOOTrainer, which have no hook: a subclass with two overrides.

    trainer = with_estimator(RLOOTrainer, "maxpo", k=4)(model=..., reward_funcs=..., args=RLOOConfig(beta=0.0, ...), ...)

Read in TRL 1.16.0: every process gathers the rewards of all, so each computes the advantages of whole groups and takes its rows.
"""

import inspect
import warnings

import torch

from maxpo_bench.adapters import Prepared, check_version
from maxpo_bench.errors import Fault, InputError

REFUSED = {  # option: (is it set so, what would happen, the remedy)
    "multi_objective_aggregation": (lambda a: a == "normalize_then_sum", "is bypassed", "'sum_then_normalize'"),
    "reward_clip_range": (bool, "is bypassed", "None, and clip in the reward function"),
    "normalize_advantages": (bool, "is bypassed", "False"),
}
WARNED = {
    "scale_rewards": (lambda a: a not in ("none", False), "has no effect any more", "'none'"),
    "mask_truncated_completions": (bool, "drops completions that the baseline counts: off-centre", "False"),
    "top_entropy_quantile": (lambda a: a < 1, "drops tokens from the gradient", "1.0"),
    "off_policy_mask_threshold": (lambda a: a is not None, "drops completions by the sign of the advantage", "None"),
    "delta": (lambda a: a is not None, "clamps by the sign of the advantage", "None"),
    "num_iterations": (lambda a: a > 1, "reuses completions: clipped, off-policy", "1"),
    "max_grad_norm": (lambda a: bool(a), "rescales gradients longer than it: estimators differ in size", "0 (no clipping)"),
}
LOSSES = {
    "dapo": "divides the gradient by the mean length, another factor in each step",
    "bnpo": "divides the gradient by the mean length, another factor in each micro-batch",
    "grpo": "divides each completion by its own length: another gradient",
    "sapo": "is not linear in the advantage: another gradient",
    "vespo": "is not linear in the advantage: another gradient",
    "cispo": "divides the gradient by the mean length, another factor in each step",
}


def with_estimator(trainer_class, estimator, k=1, **options):
    """A subclass of GRPOTrainer or RLOOTrainer, or of a class of yours derived from them, whose advantages are the estimator's.

    estimator: a name of the registry, or f(rewards [G, N] float64, [k], [lengths]) -> advantages [G, N]; options: its own.
    Rewards are weighted and summed as in TRL; a group with a completion that no reward function could score gets zeros and is
    counted in the metric `unscorable_groups`; groups of one (evaluation) get zeros. Metrics: `advantages/std`, `advantages/max`.
    Making the trainer raises InputError for a TRL out of the tested range, a k that does not fit num_generations and options
    that would be bypassed, warns of those that rescale the gradient, and raises Fault when TRL's own path gives a probe other
    advantages.
    """
    check_version("trl", (1, 16), (1, 17))
    from trl import GRPOTrainer, RLOOTrainer

    if not (isinstance(trainer_class, type) and issubclass(trainer_class, (GRPOTrainer, RLOOTrainer))):
        name = getattr(trainer_class, "__name__", trainer_class)
        raise InputError(f"with_estimator takes GRPOTrainer or RLOOTrainer, or a class derived from them, got {name}")
    compute = Prepared(estimator, k, **options)
    return type(f"{trainer_class.__name__}_{compute.name}", (WithEstimator, trainer_class), {"compute": compute})


class WithEstimator:
    """The mixin. compute(rewards [G, N] float64, lengths) -> advantages, see adapters.Prepared."""

    def __init__(self, *args, **kwargs):
        config = inspect.signature(super().__init__).bind(*args, **kwargs).arguments.get("args")
        if config is not None:  # before the model is loaded
            examine(self.compute, config)
        super().__init__(*args, **kwargs)
        if config is None:
            examine(self.compute, self.args)
        probe(self)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        lengths = torch.tensor([max(1, len(ids)) for ids in completion_ids_list], device=rewards.device)
        self._scored = rewards, self.accelerator.gather(lengths)  # [rows of all processes, functions], [rows of all processes]
        return rewards

    def _generate_and_score_completions(self, inputs):
        self._scored = None
        output = super()._generate_and_score_completions(inputs)
        if self._scored is None:
            raise Fault("TRL scored completions without _calculate_rewards: this version is not the tested one")
        advantages, unscorable = group_advantages(self, *self._scored)
        first = self.accelerator.process_index * len(inputs)
        own = advantages[first : first + len(inputs)].to(output["advantages"])
        if own.shape != output["advantages"].shape:
            raise Fault(
                f"TRL has {list(output['advantages'].shape)} advantages, the estimator {list(own.shape)}: rows came or went"
            )
        output["advantages"] = own
        shown = self._logs["advantages"]
        for _ in range(min(len(shown), len(advantages))):
            shown.pop()
        shown.extend(advantages.tolist())
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["unscorable_groups"].append(float(unscorable))
        metrics["advantages/std"].append(advantages.square().mean().sqrt().item())
        metrics["advantages/max"].append(advantages.abs().max().item())
        return output


def group_advantages(trainer, rewards, lengths):
    """(advantages [rows], number of groups with a row that no function scored) from rewards [rows, functions], lengths [rows]."""
    n = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    weights = trainer.reward_weights.to(rewards.device, torch.float64)
    whole = (~rewards.isnan().all(1)).view(-1, n).all(1)  # [groups]
    totals = (rewards.double() * weights).nansum(1).view(-1, n)
    advantages = torch.zeros_like(totals)
    if n > 1 and whole.any():
        advantages[whole] = trainer.compute(totals[whole], lengths.view(-1, n)[whole].double())
    return advantages.flatten(), int((~whole).sum())


def examine(compute, config):
    """Raises InputError for settings that do not go with the estimator; warns of those that rescale its gradient."""
    name = compute.name
    for option in ("num_generations", "num_generations_eval"):
        n = getattr(config, option) or config.num_generations
        span = compute.span(n)
        if span and not (n == 1 and option == "num_generations_eval"):
            raise InputError(f"{name}: k = {compute.k} does not fit {option} = {n}, which allows {span}")
    for option, (wrong, what, remedy) in REFUSED.items():
        if wrong(getattr(config, option, None)):
            raise InputError(f"{name}: {option}={getattr(config, option)!r} {what} by the estimator; set {option} to {remedy}")
    grpo = hasattr(config, "loss_type")
    if config.beta and not grpo:
        raise InputError(
            f"{name}: beta={config.beta} subtracts KL inside the reward, which the estimator bypasses; set beta to 0.0"
        )
    found = [
        f"{option}={getattr(config, option)!r} {what}; set {option} to {remedy}"
        for option, (wrong, what, remedy) in WARNED.items()
        if hasattr(config, option) and wrong(getattr(config, option))
    ]
    if config.steps_per_generation > config.gradient_accumulation_steps:
        found.append("steps_per_generation above gradient_accumulation_steps trains off-policy, clipped; set them equal")
    if grpo:
        if config.beta:
            found.append(f"beta={config.beta} adds a KL term to the estimator's loss; set beta to 0.0")
        if config.use_vllm and config.vllm_importance_sampling_correction:
            found.append("vllm_importance_sampling_correction=True drops or rescales completions; set it to False")
        if config.loss_type == "dr_grpo":
            longest = config.max_completion_length
            found.append(f"loss_type='dr_grpo' divides the gradient by {longest}; multiply learning_rate by it, or use 'luspo'")
        elif config.loss_type in LOSSES:
            found.append(
                f"loss_type={config.loss_type!r} {LOSSES[config.loss_type]}; use 'luspo' with importance_sampling_level='sequence'"
            )
    for line in found:
        warnings.warn(f"{name}: {line}", stacklevel=4)


def probe(trainer):
    """Sends fixed rewards through the trainer's own scoring, without its model, and looks at what it makes of them.

    One group for each process. The trainer's own advantages must order each group as our rewards do, and the loss and the log must
    get the stand-in's, row by row. Raises Fault otherwise.
    """
    n, num_functions, rank = trainer.num_generations, len(trainer.reward_funcs), trainer.accelerator.process_index
    grpo, seen = hasattr(trainer.args, "loss_type"), []
    rows = [(7 * row + 3 * rank) % n + row / (n + 1) for row in range(n)]  # all different
    token = trainer._tokenizer.pad_token_id
    parent = super(WithEstimator, trainer)._generate_and_score_completions

    def generate(prompts):
        ids, texts, sampled = [[token]] * len(prompts), [""] * len(prompts), [[0.0]] * len(prompts)
        return (ids, ids, None, texts, sampled, {}, None, None) if grpo else (ids, ids, texts)

    def log_probs(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        zeros = torch.zeros(len(input_ids), logits_to_keep, device=trainer.accelerator.device)
        return zeros, zeros, None

    def stand_in(totals, lengths):
        seen.append(totals)
        return 3 * totals + 1

    stand_ins = {
        "_generate": generate,
        "_get_per_token_logps_and_entropies": log_probs,
        "reward_funcs": [_scaled(rows, 1 + f) for f in range(num_functions)],
        "reward_weights": torch.arange(1.0, num_functions + 1),
        "compute": stand_in,
        "environments": None,
    }
    before = {name: trainer.__dict__[name] for name in stand_ins if name in trainer.__dict__}
    training, trainer.model.training = trainer.model.training, True
    inputs = [{"prompt": ""} for _ in range(n)]
    try:
        trainer.__dict__.update(stand_ins)
        theirs = trainer.accelerator.gather(parent(inputs)["advantages"]).view(-1, n)
        ours = trainer.accelerator.gather(trainer._generate_and_score_completions(inputs)["advantages"]).view(-1, n)
        shown = torch.tensor(list(trainer._logs["advantages"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Fault(f"TRL's scoring is not the tested one ({type(error).__name__}: {error}); versions 1.16.x are") from error
    finally:
        for name in stand_ins:
            trainer.__dict__.pop(name, None)
        trainer.__dict__.update(before)
        trainer.model.training = training
        for log in (*trainer._logs.values(), *trainer._metrics.values()):
            log.clear()
    wanted = 3 * seen[0] + 1
    shown = shown[-wanted.numel() :]
    if (
        not torch.equal(theirs.argsort(1), seen[0].argsort(1))
        or not torch.allclose(ours.double(), wanted)
        or not torch.allclose(shown.double(), wanted.flatten().cpu()[-len(shown) :])
    ):
        raise Fault("TRL made other advantages of the probe's rewards: its scoring is not the tested one; versions 1.16.x are")


def _scaled(values, factor):
    return lambda prompts, **_: [factor * value for value in values]
