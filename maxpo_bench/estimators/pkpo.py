"""PKPO as its authors recommend it: what sample i adds to k-1 others (Walder and Karkhanis 2025, eq 33-34)."""

from maxpo_bench.estimators.contract import any_k, estimator
from maxpo_bench.estimators.order_statistics import added_value, centre


@estimator(objective="J_K", unbiased=True, centred=False, cost="N log N", valid_k=any_k, source="arXiv:2505.15201 eq 33-34")
def pkpo(rewards, k):
    """A_i = k D_i = k (q_i - u_i) >= 0, u_i the mean max of the (k-1)-subsets without i; k = 1 falls back to rloo.

    Mean-loss scale (the paper's sum scale times N). Never centred for k > 1: sums to k N (v_k - v_(k-1)).
    """
    if k == 1:
        n = rewards.shape[-1]
        return centre(rewards).mul_(n / (n - 1))
    return added_value(rewards, k).mul_(k)
