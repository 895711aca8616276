"""KRPO: a scalar Kalman filter run along the group as its baseline (arXiv:2505.07527)."""

import torch

from maxpo_bench.estimators.contract import estimator


def gains(n, process=1e-5, measurement=1e-2):
    """(gain, sqrt P_t + 1e-8) of the filter at t = 1..n: they do not depend on the rewards."""
    variance, found = 1.0, []
    for _ in range(n):
        variance += process
        gain = variance / (variance + measurement)
        variance *= 1 - gain
        found.append((gain, variance**0.5 + 1e-8))
    return found


def _scale(n, k):
    return sum((1 - gain) / deviation for gain, deviation in gains(n)) / n


@estimator(objective="J_1", scale=_scale, centred=False, cost="N", source="arXiv:2505.07527, the authors' repository")
def krpo(rewards, process=1e-5, measurement=1e-2):
    """A_t = (r_t - x_t) / (sqrt(P_t) + 1e-8), x_t and P_t the filter's state and variance after sample t; x_0 = 0, P_0 = 1.

    It depends on the order in which the samples of a group are listed, and a flat group gets advantages. The baseline of
    sample t is made of those before it, so the direction of E[g] is exact and its size a function of N. The one recursion over
    samples in this registry: x_t follows from x_(t-1). k is accepted and has no role.
    """
    state, advantages = torch.zeros_like(rewards[..., 0]), torch.empty_like(rewards)
    for t, (gain, deviation) in enumerate(gains(rewards.shape[-1], process, measurement)):
        state = state + gain * (rewards[..., t] - state)
        advantages[..., t] = (rewards[..., t] - state) / deviation
    return advantages
