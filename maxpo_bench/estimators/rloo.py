"""RLOO: each reward against the mean of the others (Ahmadian et al. 2024)."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="J_1", unbiased=True, centred=True, cost="N", source="arXiv:2402.14740")
def rloo(rewards):
    """A_i = r_i - mean of the others = N/(N-1) (r_i - mean). Mean-loss scale. k is accepted and has no role.

    Equals maxpo at k = 1.
    """
    n = rewards.shape[-1]
    return centre(rewards).mul_(n / (n - 1))
