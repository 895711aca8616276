"""OrderGrad: any weighting of a k-subset's ranks, from its minimum over its median to its best few (arXiv:2606.06096)."""

import math

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import gap_sums, rank_weights

PRESETS = "ReMax, ReMin, Median, TopM:m, BotM:m, LowerTailMean:q, or k numbers, the weight of the best reward first"


@estimator(objective="min_K", unbiased=True, centred=True, cost="N log N", valid_k=below_n, source="arXiv:2606.06096")
def order_statistic(rewards, k, weights="ReMin"):
    """A_i = k (q_i - v_-i) with the weighted mean of a k-subset's ranks in place of its maximum. Mean-loss scale.

    weights: ReMax (maxpo), ReMin, Median, TopM:m and BotM:m (mean of the m best or worst), LowerTailMean:q (of the worst
    ceil(q k): CVaR), or k numbers, for the best reward first. Unbiased for the mean of that statistic; centred.
    """
    sums = gap_sums(rewards, rank_weights(rewards.shape[-1], weights_of(weights, k), rewards.device))
    return sums.sub_(sums.mean(-1, keepdim=True))


def weights_of(weights, k):
    """A preset, or a sequence of k finite numbers, as a tuple of k, for the best reward first."""
    if not isinstance(weights, str):
        found = tuple(float(weight) for weight in weights)
        if len(found) != k or not all(map(math.isfinite, found)):
            raise InputError(f"order_statistic: weights must be k = {k} finite numbers, got {list(found)}")
        return found
    name, _, size = weights.partition(":")
    try:
        best = {
            "ReMax": lambda: (0, 1),
            "ReMin": lambda: (k - 1, k),
            "Median": lambda: ((k - 1) // 2, k // 2 + 1),
            "TopM": lambda: (0, int(size)),
            "BotM": lambda: (k - int(size), k),
            "LowerTailMean": lambda: (k - math.ceil(float(size) * k - 1e-9), k),
        }[name]()
    except (KeyError, ValueError):
        raise InputError(f"order_statistic: weights = {weights!r} is none of {PRESETS}") from None
    first, last = best
    if not 0 <= first < last <= k:
        raise InputError(f"order_statistic: weights = {weights!r} needs 1..k = {k} ranks")
    return tuple(1 / (last - first) if first <= j < last else 0.0 for j in range(k))
