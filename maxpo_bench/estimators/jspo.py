"""JSPO: rloo's baseline shrunk towards the other prompts' mean (James-Stein)."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import james_stein
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="J_1", unbiased=True, centred=False, cost="N", source="arXiv:2511.03710", across_groups=True)
def jspo(rewards, eps=1e-6):
    """A_i = r_i - [(1 - w) mean of the others of the group + w mean of the other groups' means]. Mean-loss scale.

    w = v / (v + s + eps), v the variance of the other groups' means (mean of their variances over N), s the variance between
    them: nothing of the own group is in w, so E[g] = grad J_1 exactly. One group alone is rloo. k is accepted and has no role.
    """
    n = rewards.shape[-1]
    rewards = rewards - rewards.amax((-2, -1), keepdim=True)
    advantages = centre(rewards).mul_(n / (n - 1))
    return advantages - james_stein(rewards - advantages, eps)
