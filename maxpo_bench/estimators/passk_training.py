"""Pass@k training: the analytic advantage of a sample's k-subsets, standardised (arXiv:2508.10751)."""

import torch

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import include_sums
from maxpo_bench.machine import numerics


@estimator(objective="none", centred=True, cost="N log N", valid_k=below_n, rewards="binary", source="arXiv:2508.10751 eq 11-15")
def passk_training(rewards, k):
    """A_i = (q_i - v) / sqrt(v (1-v)) for rewards that are 0 or 1; zeros where v is 0 or 1. Raises on other rewards.

    Equals (1 - k/N) (maxpo/k) / sqrt(v (1-v)). Unbiased for no objective.
    """
    sums = include_sums(rewards, k)
    mean = sums.mean(-1, keepdim=True)
    miss = sums.amax(-1, keepdim=True) - mean  # 1 - v where a reward is 1: the share of k-subsets without a success
    deviation = numerics.sqrt(miss * (1 - miss))
    return sums.sub_(mean).div_(torch.where(deviation > 0, deviation, 1.0))
