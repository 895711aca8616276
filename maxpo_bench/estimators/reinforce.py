"""REINFORCE without a baseline: the reward itself (Williams 1992)."""

from maxpo_bench.estimators.contract import estimator


@estimator(objective="J_1", unbiased=True, centred=False, cost="N", source="Williams 1992")
def reinforce(rewards):
    """A_i = r_i. Mean-loss scale; the yardstick that every baseline must beat. k is accepted and has no role."""
    return rewards.clone()
