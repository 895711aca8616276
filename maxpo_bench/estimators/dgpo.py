"""DGPO: mean absolute deviation in place of the standard deviation, and difficult prompts count more."""

import torch

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="none", centred=True, cost="N", source="arXiv:2601.20614", across_groups=True)
def dgpo(rewards, temperature=2.0, eps=1e-4):
    """A_i = u N (r_i - m) / (sum of |r - m| + eps), u the prompt's weight. Biased. k is accepted and has no role.

    u = B softmax(-m / temperature) over the B groups whose rewards differ: 1 on average. Binary rewards: the size of a group's
    gradient does not depend on its success rate.
    """
    centred = centre(rewards)
    live = rewards.amax(-1, keepdim=True) > rewards.amin(-1, keepdim=True)  # [..., G, 1]
    mean = rewards.mean(-1, keepdim=True)
    tilted = torch.exp((mean.amin(-2, keepdim=True) - mean) / temperature) * live
    weight = divide(tilted * live.sum(-2, keepdim=True), tilted.sum(-2, keepdim=True))
    return divide(centred * (weight * rewards.shape[-1]), centred.abs().sum(-1, keepdim=True) + eps)
