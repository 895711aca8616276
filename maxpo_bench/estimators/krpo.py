"""KRPO: a scalar Kalman filter run along the group as its baseline (arXiv:2505.07527)."""

import torch

from maxpo_bench.estimators.contract import estimator


@estimator(objective="none", centred=False, cost="N", source="arXiv:2505.07527, the authors' repository")
def krpo(rewards, process=1e-5, measurement=1e-2):
    """A_t = (r_t - x_t) / (sqrt(P_t) + 1e-8), x_t and P_t the filter's state and variance after sample t; x_0 = 0, P_0 = 1.

    It depends on the order in which the samples of a group are listed, and a flat group gets advantages. The one recursion
    over samples in this registry: x_t follows from x_(t-1). k is accepted and has no role.
    """
    state, variance, advantages = torch.zeros_like(rewards[..., 0]), 1.0, torch.empty_like(rewards)
    for t, reward in enumerate(rewards.unbind(-1)):
        variance += process
        gain = variance / (variance + measurement)
        variance *= 1 - gain
        state = state + gain * (reward - state)
        advantages[..., t] = (reward - state) / (variance**0.5 + 1e-8)
    return advantages
