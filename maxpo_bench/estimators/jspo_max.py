"""JSPO's shrinkage on maxpo's baseline: the max@K twin of jspo."""

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.moments import james_stein
from maxpo_bench.estimators.order_statistics import value_and_leave_one_out


@estimator(
    objective="J_K", unbiased=True, centred=False, cost="N log N", valid_k=below_n, source="this project", across_groups=True
)
def jspo_max(rewards, k, eps=1e-6):
    """A_i = k (q_i - [(1 - w) v_-i + w mean of the other groups' v]). Mean-loss scale. k = 1 is jspo.

    w as in jspo, with the jackknife variance of a group's v for that of its mean. Unbiased for J_k: w and the mean come from
    other groups. One group alone is maxpo.
    """
    rewards = rewards - rewards.amax((-2, -1), keepdim=True)
    include, leave_one_out = value_and_leave_one_out(rewards, k)
    return include.sub_(leave_one_out).sub_(james_stein(leave_one_out, eps)).mul_(k)
