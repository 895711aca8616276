"""BNPO: the centred reward over a Beta density fitted to the success rates of the batch's prompts."""

import torch

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="none", centred=True, cost="N", rewards="unit interval", source="arXiv:2506.02864", across_groups=True)
def bnpo(rewards):
    """A_i = (r_i - m) min(1 / Beta(m; alpha, beta), 1e6), m the group's mean; rewards in [0, 1]. Biased.

    alpha = max(1, 1 + a/3), beta = max(1, 1 + b/3), a and b by moments from the batch's means. alpha = beta = 1, also where the
    means do not differ: dr_grpo. k is accepted and has no role.
    """
    means = rewards.mean(-1)  # [..., G]
    middle, variance = means.mean(-1, keepdim=True), means.var(-1, keepdim=True, correction=min(1, means.shape[-1] - 1))
    spread = variance > 1e-20
    size = divide(middle * (1 - middle), torch.where(spread, variance, 1.0)) - 1
    alpha, beta = (torch.where(spread, (1 + size * share / 3).clamp_(min=1), 1.0) for share in (middle, 1 - middle))
    log_density = (
        torch.xlogy(alpha - 1, means)
        + torch.xlogy(beta - 1, (1 - means).clamp_(min=0))
        + torch.lgamma(alpha + beta)
        - torch.lgamma(alpha)
        - torch.lgamma(beta)
    )
    return centre(rewards) * torch.exp(-log_density).clamp_(max=1e6).unsqueeze(-1)
