"""MaxRL: the reward relative to the group's mean (arXiv:2602.02710)."""

import torch

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.order_statistics import centre


@estimator(
    objective="sum J_K/K",
    unbiased_on="binary",
    scale=lambda n, k: 1.0,
    centred=True,
    cost="N",
    rewards="non-negative",
    source="arXiv:2602.02710",
)
def maxrl(rewards):
    """A_i = (r_i - mean) / mean, zeros where mean = 0; rewards >= 0. Mean-loss scale. k is accepted and has no role.

    On binary rewards it equals tailrl, hence is unbiased for the sum over K = 1..N-1 of J_K/K; on others for nothing.
    """
    mean = rewards.mean(-1, keepdim=True)
    return centre(rewards).div_(torch.where(mean > 0, mean, 1.0))
