"""Best-of-N signal standardised over the group (arXiv:2510.23393)."""

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import include_sums, z_score


@estimator(objective="none", centred=True, cost="N log N", valid_k=below_n, source="arXiv:2510.23393")
def bon_mean(rewards, k):
    """A_i = z-score over the group of q_i (std with ddof 0, no eps; zeros where q is constant).

    q_i is affine in maxpo's advantages, so this is also the z-score of maxpo. k = N is refused: there q_i is the same
    for all. Unbiased for no objective.
    """
    return z_score(include_sums(rewards, k))
