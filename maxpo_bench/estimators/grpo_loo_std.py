"""GRPO with mean and standard deviation of the others: what NeMo-RL calls grpo."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide, variance_of_others
from maxpo_bench.estimators.order_statistics import centre
from maxpo_bench.machine import numerics


@estimator(objective="none", centred=False, cost="N log N", source="NeMo-RL, nemo_rl/utils.py")
def grpo_loo_std(rewards, eps=1e-6):
    """A_i = (r_i - mean of the others) / (std of the others + eps), ddof 1; unscaled where that std is 0.

    Both moments are free of sample i, so E[g] = E[1/std] grad J_1 for each prompt: the direction is exact for any rewards, the
    size depends on the policy. k is accepted and has no role.
    """
    n = rewards.shape[-1]
    std = numerics.sqrt(variance_of_others(rewards).mul_((n - 1) / max(n - 2, 1)))
    return divide(centre(rewards).mul_(n / (n - 1)), std.add_((std > 0) * eps))
