"""The family between maxpo and pkpo: a fixed mixture of their two baselines."""

import math

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import added_weights, include_weights, sorted_gaps


@estimator(objective="J_K", unbiased=True, centred=False, cost="N log N", valid_k=below_n, source="this project")
def baseline_blend(rewards, k, w=0.5):
    """A_i = k (q_i - [w v_-i + (1-w) u_i]). Mean-loss scale. w = 1 is maxpo, w = 0 is pkpo (for k > 1).

    w: any finite number fixed before the group is drawn; then E[g] = grad J_k exactly. Centred only at w = 1.
    At k = 1, u_i = 0 and w = 0 is reinforce.
    """
    if not math.isfinite(w):
        raise InputError(f"baseline_blend: w = {w!r} must be finite")
    n = rewards.shape[-1]
    gaps, ordered, index = sorted_gaps(rewards)  # one sort serves both baselines
    added = (gaps * added_weights(n, k, rewards.device)).cumsum_(-1) if k > 1 else ordered  # q_i - u_i
    sums = gaps.mul_(include_weights(n, k, rewards.device)).cumsum_(-1)
    advantages = sums.sub_(sums.mean(-1, keepdim=True)).mul_(w * n / (n - k))  # w (q_i - v_-i)
    advantages.add_(added, alpha=1 - w).mul_(k)
    return added.scatter_(-1, index, advantages)
