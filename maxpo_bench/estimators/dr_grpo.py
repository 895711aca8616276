"""Dr. GRPO: the reward minus the group's mean, no standard deviation (Liu et al. 2025)."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="J_1", scale=lambda n, k: 1 - 1 / n, centred=True, cost="N", source="arXiv:2503.20783")
def dr_grpo(rewards):
    """A_i = r_i - mean = (1 - 1/N) rloo. Mean-loss scale. k is accepted and has no role.

    The mean includes sample i, so E[g] = (1 - 1/N) grad J_1: right direction, short by 1/N.
    """
    return centre(rewards)
