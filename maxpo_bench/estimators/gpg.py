"""GPG: centred rewards, scaled up for the samples that say nothing (arXiv:2504.02546)."""

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="none", centred=True, cost="N", source="arXiv:2504.02546", across_groups=True)
def gpg(rewards, count="groups"):
    """A_i = alpha (r_i - mean of the group), alpha = groups of the batch over groups whose rewards differ.

    A flat group has no advantages, so alpha is the other groups' affair: the direction is that of grad J_1, the size depends
    on the batch. count: "groups" (paper), or "rewards", as verl has it: alpha = samples of the batch over rewards that are not
    0, for 0/1 rewards (r_i - mean) / success rate of the batch; biased. k is accepted and has no role.
    """
    if count not in ("groups", "rewards"):
        raise InputError(f"gpg: count = {count!r} must be 'groups' or 'rewards'")
    live = rewards.amax(-1, keepdim=True) > rewards.amin(-1, keepdim=True) if count == "groups" else rewards != 0
    return divide(centre(rewards), live.double().mean((-2, -1), keepdim=True))
