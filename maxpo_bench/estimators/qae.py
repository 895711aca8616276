"""QAE: a quantile of the group in place of its mean (arXiv:2509.22611)."""

import math

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide, std


@estimator(objective="none", centred=False, cost="N log N", source="arXiv:2509.22611 eq 3-4")
def qae(rewards, quantile=0.4, eps=1e-6, ddof=0):
    """A_i = (r_i - b) / (std + eps), b the least reward that at least `quantile` of the group do not exceed.

    Binary rewards: b = 0 where the mean is at most 1 - quantile, else 1, so that only the rarer outcome counts. Biased. k is
    accepted and has no role.
    """
    if not 0 < quantile <= 1:
        raise InputError(f"qae: quantile = {quantile!r} must be in (0, 1]")
    rank = math.ceil(quantile * rewards.shape[-1] - 1e-9)
    baseline = rewards.kthvalue(rank, dim=-1, keepdim=True).values
    return divide(rewards - baseline, std(rewards, ddof) + eps)
