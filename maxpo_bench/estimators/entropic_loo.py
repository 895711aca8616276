"""The entropic objective log E[exp(beta r)] with a leave-one-out normaliser (TTT-Discover, arXiv:2601.16175)."""

import math

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator


@estimator(objective="none", centred=False, cost="N log N", source="arXiv:2601.16175")
def entropic_loo(rewards, beta=2.0, eps=1e-12):
    """A_i = e_i / mean of the others' e - 1, e = exp(beta (r - best)). k is accepted and has no role.

    beta: a number > 0, or "adaptive": for each group so that softmax(beta r) is ln 2 away (KL) from uniform. A fixed beta keeps
    the direction of grad log E exp(beta r), as the normaliser is free of sample i; the adaptive one does not. The mean of the
    others is at least eps: without that a lead beyond 700/beta overflows.
    """
    offsets = rewards - rewards.amax(-1, keepdim=True)
    if beta == "adaptive":
        beta = _adaptive(offsets)
    elif not (isinstance(beta, (int, float)) and 0 < beta < math.inf):
        raise InputError(f"entropic_loo: beta = {beta!r} must be a finite number > 0 or 'adaptive'")
    e = torch.exp(offsets * beta)
    runners_up = e.sort(-1).values[..., :-1].sum(-1, keepdim=True)  # the best sample outweighs the others: not by subtraction
    others = torch.where(offsets == 0, runners_up, e.sum(-1, keepdim=True) - e) / (rewards.shape[-1] - 1)
    return e / others.clamp_(min=eps) - 1


def _adaptive(offsets, largest=1e6):
    """Least beta [..., 1] at which KL(softmax(beta r) || uniform) reaches ln 2, by halving; `largest` where none does."""

    def divergence(beta):
        log_probs = torch.log_softmax(offsets * beta, -1)
        return (log_probs.exp() * log_probs).sum(-1, keepdim=True) + math.log(offsets.shape[-1])

    high = torch.ones_like(offsets[..., :1])
    for _ in range(20):
        high = torch.where(divergence(high) < math.log(2), (high * 2).clamp_(max=largest), high)
    low = torch.zeros_like(high)
    for _ in range(60):
        middle = (low + high) / 2
        short = divergence(middle) < math.log(2)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return high
