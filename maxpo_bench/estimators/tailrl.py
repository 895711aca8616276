"""TailRL: every maxpo_K at once, weighted by 1/K, for any real rewards (arXiv:2609.02987)."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.order_statistics import gap_sums, tail_weights


@estimator(objective="sum J_K/K", unbiased=True, centred=True, cost="N log N", source="arXiv:2609.02987")
def tailrl(rewards):
    """A_i = sum over K = 1..N-1 of maxpo_K / K, from the sorted gaps in one pass. Mean-loss scale.

    The weights of the K collapse: gap m of the sorted group counts N/(N-m+1). k is accepted and has no role.
    """
    sums = gap_sums(rewards, tail_weights(rewards.shape[-1], rewards.device))
    return sums.sub_(sums.mean(-1, keepdim=True))
