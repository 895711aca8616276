"""PKPO's leave-one-out baseline (Walder and Karkhanis 2025, eq 29)."""

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import value_and_leave_one_out


@estimator(objective="J_K", unbiased=True, centred=False, cost="N log N", valid_k=below_n, source="arXiv:2505.15201 eq 29")
def pkpo_loo(rewards, k):
    """A_i = N [(k/N) q_i - (k/(N-1)) v_-i]; the paper's sum scale times N.

    Its baseline is normalised by C(N-1, k) subsets times k/(N-1), not k/N, so a group sums to -k N v/(N-1), not 0.
    """
    n = rewards.shape[-1]
    include, leave_one_out = value_and_leave_one_out(rewards, k)
    return include.mul_(k).sub_(leave_one_out, alpha=n * k / (n - 1))
