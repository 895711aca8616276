"""What a trainer's loss makes of an advantage, and the settings under which its gradient is the estimator's.

The estimator's gradient is that of -(A * log_prob).mean() over completions, log_prob summed over a completion's tokens. Read in
TRL 1.16.0 (grpo_trainer.py, rloo_trainer.py) and verl 0.9.1 (core_algos.py, agg_loss), one optimiser step per batch.
"""

from dataclasses import dataclass

import torch

from maxpo_bench.check import shipped
from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.estimators import get

TRAINERS = {"trl": "TRL", "verl": "verl"}  # as typed: as in the table of shipped forms


@dataclass(frozen=True)
class Loss:
    """One way in which a trainer adds up the losses of tokens."""

    setting: str
    """How it is chosen there."""
    words: str
    """Its gradient as a multiple of the estimator's, in words."""
    size: object
    """size(lengths [completions], max_length) -> that multiple; None where it is another gradient."""


def one(lengths, max_length):
    return 1.0


def per_token(lengths, max_length):
    return len(lengths) / float(sum(lengths))


def per_longest(lengths, max_length):
    return 1 / max_length


LOSSES = {
    "trl": (
        Loss("RLOOTrainer", "1", one),
        Loss("GRPOTrainer, loss_type='luspo'", "1", one),
        Loss("GRPOTrainer, loss_type='dr_grpo'", "1/max_completion_length", per_longest),
        Loss("GRPOTrainer, loss_type='dapo' (default)", "1/mean length, another one in each step", per_token),
        Loss("GRPOTrainer, loss_type='bnpo'", "1/mean length, another one in each micro-batch", per_token),
        Loss("GRPOTrainer, loss_type='grpo'", "each completion over its own length: another gradient", None),
    ),
    "verl": (
        Loss("loss_agg_mode=seq-mean-token-sum", "1", one),
        Loss("loss_agg_mode=seq-mean-token-sum-norm", "1/loss_scale_factor, by default the padded length", per_longest),
        Loss("loss_agg_mode=token-mean (default)", "1/mean length, another one in each step", per_token),
        Loss("loss_agg_mode=token-sum", "the number of completions", lambda lengths, max_length: float(len(lengths))),
        Loss("loss_agg_mode=seq-mean-token-mean", "each completion over its own length: another gradient", None),
    ),
}
TRL_COMMON = {"beta": 0.0, "num_iterations": 1, "mask_truncated_completions": False}
SETTINGS = {  # that keep the gradient: {where they go: {name: value}}; the group size is added
    "trl": {
        "RLOOConfig": TRL_COMMON | {"normalize_advantages": False, "reward_clip_range": None},
        "GRPOConfig": TRL_COMMON | {
            "loss_type": "luspo", "scale_rewards": "none", "multi_objective_aggregation": "sum_then_normalize",
            "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "delta": None},
    },
    "verl": {"overrides": {
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum", "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.use_kl_loss": False, "actor_rollout_ref.actor.entropy_coeff": 0,
        "algorithm.use_kl_in_reward": False,
    }},
}  # fmt: skip
GROUP_SIZE = {"trl": "num_generations", "verl": "actor_rollout_ref.rollout.n"}


def settings(trainer, n):
    """{where they go: {name: value}} of a trainer's settings that keep an estimator's gradient, for groups of n."""
    return {place: {GROUP_SIZE[trainer]: n} | values for place, values in SETTINGS[trainer].items()}


def loss_lines(trainer, lengths, max_length, learning_rate):
    """For each loss of the trainer: its gradient as a multiple, and the learning rate that makes up for it."""
    lines = []
    for loss in LOSSES[trainer]:
        if loss.size is None:
            lines.append(f"  {loss.setting:<42} {loss.words}; no learning rate mends it")
        else:
            size = loss.size(lengths, max_length)
            lines.append(f"  {loss.setting:<42} {loss.words}: {size:.4g}, learning rate {learning_rate / size:.4g}")
    return lines


def shipped_forms(trainer, name, n):
    """The lines that say what of this estimator the trainer ships, each with its size beside the registry's on `example`."""
    lines, rewards = [], example(n)
    for row in shipped.rows():
        if row["trainer"] != TRAINERS[trainer] or not row["formula"] or shipped.parse(row["formula"])[0] != name:
            continue
        estimator, options = get(name), shipped.parse(row["formula"])[1]
        k = estimator.valid_k(n)[0]
        ratio = size_of(estimator(rewards, k=k, **options)) / size_of(estimator(rewards, k=k))
        beside = "" if abs(ratio - 1) < 5e-5 else f", {ratio:.4f} times {name} of the registry here"
        lines.append(f"  {TRAINERS[trainer]}'s own {row['name']} is {row['formula']}{beside}")
    return lines


def example(n):
    """Two groups of n rewards, a quarter and half of them 1: [2, n] float64."""
    return torch.stack([(torch.arange(n) < max(1, n // 4)).double(), (torch.arange(n) < n // 2).double()])


def size_of(advantages):
    return advantages.double()[0].square().mean().sqrt().item()


def advise(trainer, name, k, n, learning_rate=1e-6, max_length=512, mean_length=128):
    """The configuration that makes a trainer's gradient equal an estimator's, with a worked number. Text of some 20 lines.

    trainer: "trl" or "verl"; name: a registry estimator; k, n: its k and the group size; max_length, mean_length: tokens of a
    completion, for the numbers. Raises InputError for an unknown trainer or estimator, and a k that does not fit n.
    """
    if trainer not in TRAINERS:
        raise InputError(f"unknown trainer {trainer!r}{did_you_mean(trainer, TRAINERS)}. Known: {', '.join(TRAINERS)}")
    if n < 2:
        raise InputError(f"a group needs at least 2 completions, got n = {n}")
    if not learning_rate > 0 or not 1 <= mean_length <= max_length:
        raise InputError(
            "needs a learning rate > 0 and 1 <= mean length <= max length, got learning rate "
            f"{learning_rate}, mean length {mean_length}, max length {max_length}"
        )
    estimator, rewards = get(name), example(n)
    advantages = estimator(rewards, k=k).double()  # refuses a k that does not fit
    ones = int(rewards[0].sum())
    high, low = advantages[0, 0].item(), advantages[0, -1].item()
    lines = [f"{name}{f', k = {k}' if estimator.uses_k else ''}, groups of {n}, in {TRAINERS[trainer]}"]
    lines += shipped_forms(trainer, name, n) or ["  not shipped there: hand over its advantages, one for each completion"]
    lines += ["", "Settings under which the gradient is the estimator's:"]
    for place, values in settings(trainer, n).items():
        given = [f"{key}={value!r}" if trainer == "trl" else f"{key}={value}" for key, value in values.items()]
        lines.append(f"  {place}({', '.join(given)})" if trainer == "trl" else f"  {' '.join(given)}")
    lines += [
        "",
        f"Gradient of each loss as a multiple of it, at completions of {mean_length} tokens of at most {max_length}, "
        f"and the learning rate that makes up for it ({learning_rate:g} where it is 1):",
    ]
    lines += loss_lines(trainer, [mean_length] * n, max_length, learning_rate)
    lines += [
        "  Adam divides a constant factor away, but not beside max_grad_norm, its eps or weight decay; SGD does not.",
        "",
        f"Worked number: {ones} of {n} rewards are 1, the others 0. {name} gives {high:.4g} to a 1 and {low:.4g} to a 0, "
        f"a root mean square of {size_of(advantages):.4g} (a std-normalised estimator: 1).",
        f"  The loss of a completion with reward 1 is {-high / n:.4g} times the sum of its tokens' log-probabilities: "
        f"-{high:.4g}/{n}, averaged over groups.",
    ]
    return "\n".join(lines)
