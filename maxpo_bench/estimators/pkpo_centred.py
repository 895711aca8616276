"""Negative control: PKPO's signal minus its mean over the whole group, as seen in public code. Biased."""

from maxpo_bench.estimators.contract import any_k, estimator
from maxpo_bench.estimators.order_statistics import added_value, centre


@estimator(objective="none", centred=True, cost="N log N", valid_k=any_k, source="seen in public code")
def pkpo_centred(rewards, k):
    """A_i = k (D_i - mean D), mean-loss scale. D_j depends on sample i for j != i, so this baseline is biased:

    E[g] = grad J_k - (k/N) (grad J_k - grad J_(k-1)). Here so that a benchmark that cannot
    tell it from maxpo is caught.
    """
    return centre(added_value(rewards, k) if k > 1 else rewards).mul_(k)
