"""GRPO: the reward standardised over its group (Shao et al. 2024)."""

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.order_statistics import centre
from maxpo_bench.machine import numerics


@estimator(objective="none", centred=True, cost="N", source="arXiv:2402.03300")
def grpo(rewards, eps=1e-6, ddof=0):
    """A_i = (r_i - mean) / (std + eps), std over the N of the group. k is accepted and has no role.

    ddof: 0 divides by N (the default here), 1 by N-1 (what torch.std does, hence many trainers). eps >= 0; trainers use
    1e-4 to 1e-8. Unbiased for no objective: dividing by the group's own std reweights prompts.
    """
    if ddof not in (0, 1) or not eps >= 0:
        raise InputError(f"grpo: needs ddof 0 or 1 and eps >= 0, got ddof = {ddof!r}, eps = {eps!r}")
    centred = centre(rewards)
    variance = centred.square().sum(-1, keepdim=True) / (rewards.shape[-1] - ddof)
    divisor = numerics.sqrt(variance).add_(eps)
    return centred.div_(torch.where(divisor > 0, divisor, 1.0))
