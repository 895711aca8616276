"""MMPO: every maxpo_K up to k with equal weight, the mean time to the first success cut at k (arXiv:2608.02149)."""

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import gap_sums, summed_weights


@estimator(
    objective="sum to K of J_j",
    unbiased=True,
    centred=True,
    cost="N log N",
    valid_k=below_n,
    source="arXiv:2608.02149, unbiased form derived here",
)
def mmpo(rewards, k):
    """A_i = sum over K = 1..k of maxpo_K, for any real rewards. Mean-loss scale. The paper calls k T and uses 4.

    The paper trains with a plug-in of the group's mean, which is biased; this sum is unbiased for the sum of J_1 to J_k.
    """
    sums = gap_sums(rewards, summed_weights(rewards.shape[-1], k, device=rewards.device))
    return sums.sub_(sums.mean(-1, keepdim=True))
