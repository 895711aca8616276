"""GRPO on the best of the group: only the best sample counts, by its lead over the second."""

import torch

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide, std


@estimator(objective="none", centred=False, cost="N", source="arXiv:2503.19595, as in verl")
def grpo_passk(rewards, eps=1e-6, ddof=1):
    """A = (max - second) / (std + eps) for the best sample, 0 for the others; zeros when the best is tied.

    best_gap over N and over the group's standard deviation: biased. k is accepted and has no role.
    """
    best, second = rewards.topk(2, dim=-1).values.split(1, dim=-1)  # [..., 1] each
    return torch.where(rewards == best, divide(best - second, std(rewards, ddof) + eps), 0.0)
