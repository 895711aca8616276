"""REINFORCE++-baseline: the centred reward over a standard deviation of the whole batch."""

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import batch_moments, divide
from maxpo_bench.estimators.order_statistics import centre
from maxpo_bench.machine import numerics


@estimator(objective="none", centred=True, cost="N", source="arXiv:2501.03262", across_groups=True)
def reinforce_pp_baseline(
    rewards,
    lengths=None,
    std_of="centred",
    token_weighted=False,
    leave_one_out=False,
    ddof=1,
    eps=1e-8,
    variance_eps=0.0,
    least_variance=0.0,
):
    """A_i = (r_i - mean of the group) / (std + eps), std over all samples of the batch. k is accepted and has no role.

    std_of: "centred", of the centred rewards, or "rewards" (TRL's scale_rewards="batch"). token_weighted: a sample counts as
    often as it has tokens (lengths), and the batch's token-weighted mean is taken off too, so a group no longer sums to
    zero. leave_one_out: the mean of the others instead, in std too. variance_eps is added to the variance, which is at least
    least_variance. The own group is in std: biased at any size of batch, with the direction of grad J_1 as it grows.
    """
    if std_of not in ("centred", "rewards"):
        raise InputError(f"reinforce_pp_baseline: std_of = {std_of!r} must be 'centred' or 'rewards'")
    n = rewards.shape[-1]
    centred = centre(rewards).mul_(n / (n - 1) if leave_one_out else 1.0)
    mean, std = batch_moments(centred if std_of == "centred" else rewards, lengths if token_weighted else None, ddof)
    if variance_eps or least_variance:
        std = numerics.sqrt(std.square().clamp_min_(least_variance).add_(variance_eps))
    return divide(centred - mean if token_weighted else centred, std + eps)
