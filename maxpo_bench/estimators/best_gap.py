"""Best-of-N with the leave-one-out gap: only the single best sample gets a signal (arXiv:2503.19595)."""

from maxpo_bench.estimators.contract import estimator, only_n


@estimator(objective="J_K", unbiased=True, centred=False, cost="N", valid_k=only_n, source="arXiv:2503.19595")
def best_gap(rewards, k):
    """A_i = N (max - max without i), for k = N only. Mean-loss scale. Zero for all when the best is tied."""
    best, second = rewards.topk(2, dim=-1).values.split(1, dim=-1)  # [..., 1] each
    return (rewards == best).to(rewards.dtype).mul_((best - second) * k)
