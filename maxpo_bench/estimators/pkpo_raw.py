"""PKPO without a baseline: the mean of the maxima of the subsets that contain i (Walder and Karkhanis 2025)."""

from maxpo_bench.estimators.contract import any_k, estimator
from maxpo_bench.estimators.order_statistics import include_one_max


@estimator(objective="J_K", unbiased=True, centred=False, cost="N log N", valid_k=any_k, source="arXiv:2505.15201 eq 19-21, 27")
def pkpo_raw(rewards, k):
    """A_i = k q_i. The paper's s_i = (k/N) q_i is on the sum scale; times N it is on the mean-loss scale."""
    return include_one_max(rewards, k).mul_(k)
