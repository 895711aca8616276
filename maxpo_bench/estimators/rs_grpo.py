"""RS-GRPO: the risk-seeking exponential objective (arXiv:2509.24261)."""

import math

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="none", centred=True, cost="N", source="arXiv:2509.24261")
def rs_grpo(rewards, beta=2.0):
    """A_i = (exp(beta r_i) / mean exp(beta r) - 1) / beta. k is accepted and has no role.

    beta: finite, not 0; > 0 seeks risk, towards 0 it becomes dr_grpo. The default 2 is a choice of this registry.
    Unbiased for no objective at finite N (a ratio of means). Computed with expm1 of beta (r - best), so it neither
    overflows for large beta r nor loses digits for small beta.
    """
    if beta == 0 or not math.isfinite(beta):
        raise InputError(f"rs_grpo: beta = {beta!r} must be finite and not 0")
    tilted = rewards * beta
    tilted = torch.expm1(tilted.sub_(tilted.amax(-1, keepdim=True)))  # exp(beta (r - best)) - 1, in [-1, 0]
    scale = tilted.mean(-1, keepdim=True).add_(1).mul_(beta)
    return centre(tilted).div_(scale)
