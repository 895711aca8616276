"""MaxRL cut at order k, centred: every maxpo_K up to k, weighted by 1/K."""

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import gap_sums, summed_weights


@estimator(
    objective="sum to K of J_j/j",
    unbiased=True,
    centred=True,
    cost="N log N",
    valid_k=below_n,
    source="arXiv:2602.02710, centred form derived here",
)
def maxrl_order(rewards, k):
    """A_i = sum over K = 1..k of maxpo_K / K, for any real rewards. Mean-loss scale. k = N-1 is tailrl.

    The same objective as maclaurin and maxrl_subset, which are for binary rewards and not centred.
    """
    sums = gap_sums(rewards, summed_weights(rewards.shape[-1], k, harmonic=True, device=rewards.device))
    return sums.sub_(sums.mean(-1, keepdim=True))
