"""REINFORCE++: the reward standardised over the whole batch, by sample or by token."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import batch_moments, divide
from maxpo_bench.machine import numerics


@estimator(objective="none", centred=False, cost="N", source="arXiv:2501.03262", across_groups=True)
def reinforce_pp(rewards, lengths=None, token_weighted=False, ddof=1, eps=1e-8, variance_eps=0.0, least_variance=0.0):
    """A_i = (r_i - mean) / (std + eps), mean and std over all samples of the batch. k is accepted and has no role.

    token_weighted: a sample counts as often as it has tokens (lengths), as where trainers whiten per token. variance_eps is
    added to the variance, which is at least least_variance. Own reward and own group are in both moments: biased, and the
    less so the larger the batch; a flat group gets advantages.
    """
    mean, std = batch_moments(rewards, lengths if token_weighted else None, ddof)
    if variance_eps or least_variance:  # where trainers put their guard
        std = numerics.sqrt(std.square().clamp_min_(least_variance).add_(variance_eps))
    return divide(rewards - mean, std + eps)
