"""MaxRL's Maclaurin series cut at order k: successes count 1, failures pay for what they share with other failures."""

import torch

from maxpo_bench.estimators.contract import any_k, estimator
from maxpo_bench.estimators.order_statistics import others_below


@estimator(
    objective="sum to K of J_j/j",
    unbiased=True,
    centred=False,
    cost="N",
    valid_k=any_k,
    rewards="binary",
    source="arXiv:2602.02710, the authors' repository",
)
def maclaurin(rewards, k):
    """A = 1 for a success, - sum over j = 2..k of C(f-1, j-1) / C(N-1, j-1) for a failure, f the failures. Binary rewards.

    The sum is N/(c+1) (1 - C(f-1, k) / C(N, k)) - 1, c the successes. Mean-loss scale. Raises on other rewards.
    """
    n = rewards.shape[-1]
    successes = rewards.sum(-1, keepdim=True)
    lookup = others_below(n + 1, k + 1, rewards.device)  # C(j, k) / C(n, k) for j = 0..n
    missed = lookup[(n - 1 - successes).clamp_(min=0).long()]
    return torch.where(rewards > 0, 1.0, 1 - n / (successes + 1) * (1 - missed))
