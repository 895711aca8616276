"""W-REINFORCE: failures at full weight, successes at a small one (arXiv:2506.01347)."""

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator


@estimator(objective="J_1", scale=lambda n, k: 1.1, centred=False, cost="N", rewards="binary", source="arXiv:2506.01347")
def w_reinforce(rewards, weight=0.1):
    """A = weight for a success, -1 for a failure; binary rewards. weight 0 is nsr. k is accepted and has no role.

    Equals (1 + weight) r - 1: reinforce with the baseline 1 / (1 + weight), at 1 + weight times its scale.
    """
    if not 0 <= weight < float("inf"):
        raise InputError(f"w_reinforce: weight = {weight!r} must be finite and >= 0")
    return rewards * (1 + weight) - 1
