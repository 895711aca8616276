"""PSR: only successes are learnt from (arXiv:2506.01347)."""

from maxpo_bench.estimators.contract import estimator


@estimator(objective="J_1", unbiased=True, centred=False, cost="N", rewards="binary", source="arXiv:2506.01347")
def psr(rewards):
    """A = 1 for a success, 0 for a failure: reinforce on binary rewards, RAFT's too. k is accepted and has no role."""
    return rewards.clone()
