"""REINFORCE++: the reward standardised over the whole batch, by sample or by token."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import batch_moments, divide


@estimator(objective="none", centred=False, cost="N", source="arXiv:2501.03262", across_groups=True)
def reinforce_pp(rewards, lengths=None, token_weighted=False, ddof=1, eps=1e-8):
    """A_i = (r_i - mean) / (std + eps), mean and std over all samples of the batch. k is accepted and has no role.

    token_weighted: a sample counts as often as it has tokens (lengths), as where trainers whiten per token. Own reward and
    own group are in both moments: biased, and the less so the larger the batch; a flat group gets advantages.
    """
    mean, std = batch_moments(rewards, lengths if token_weighted else None, ddof)
    return divide(rewards - mean, std + eps)
