"""NSR: only failures are learnt from (arXiv:2506.01347)."""

from maxpo_bench.estimators.contract import estimator


@estimator(objective="J_1", unbiased=True, centred=False, cost="N", rewards="binary", source="arXiv:2506.01347")
def nsr(rewards):
    """A = 0 for a success, -1 for a failure: reinforce with a baseline of 1. Binary rewards. k is accepted and has no role."""
    return rewards - 1
