"""NGRPO: GRPO with one more, virtual sample of the highest reward, so that a failed group learns too."""

import math

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide
from maxpo_bench.machine import numerics


@estimator(objective="none", centred=False, cost="N", source="arXiv:2509.18851")
def ngrpo(rewards, r_max=1.0, eps=1e-6):
    """A_i = (r_i - mean) / (std + eps), mean and std (ddof 1) over the group's N rewards and r_max. Biased.

    A group of zeros gets -1/sqrt(N+1) everywhere, a group of r_max zeros. k is accepted and has no role.
    """
    if not math.isfinite(r_max):
        raise InputError(f"ngrpo: r_max = {r_max!r} must be finite")
    n = rewards.shape[-1]
    offsets = rewards - r_max
    mean = offsets.sum(-1, keepdim=True) / (n + 1)
    centred = offsets - mean
    std = numerics.sqrt((centred.square().sum(-1, keepdim=True) + mean.square()) / n)
    return divide(centred, std + eps)
