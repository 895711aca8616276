"""MaxPO: policy gradient of the best of k with the leave-two-out baseline (arXiv:2606.06080)."""

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import include_sums


@estimator(objective="J_K", unbiased=True, centred=True, cost="N log N", valid_k=below_n, source="arXiv:2606.06080")
def maxpo(rewards, k):
    """A_i = k (D_i - b_i), b_i the mean over j of D_j in the group without i. Mean-loss scale.

    The O(N^2) leave-two-out baseline is b_i = v_-i - u_i, so A_i = k (q_i - v_-i) = k N/(N-k) (q_i - v): one sort and
    one prefix sum. Sums to zero in every group. Needs k <= N-1: v_-i does not exist at k = N. k = 1 is rloo.
    """
    n = rewards.shape[-1]
    sums = include_sums(rewards, k)
    return sums.sub_(sums.mean(-1, keepdim=True)).mul_(k * n / (n - k))
