"""MaxRL's variance-reduced form of order k: MaxRL's own estimator averaged over all subsets of k samples."""

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
def maxrl_subset(rewards, k):
    """A = N w - 1 for a success, -1 for a failure, w = (1 - C(f, k) / C(N, k)) / c; c successes, f = N - c failures.

    w is a subset's 1/(its successes), averaged over the k-subsets with the sample. k = N is MaxRL's own estimator
    N r_i / c - 1, and -1 for all when c = 0. Mean-loss scale, binary rewards. Raises on other rewards.
    """
    n = rewards.shape[-1]
    successes = rewards.sum(-1, keepdim=True)
    lookup = others_below(n + 1, k + 1, rewards.device)  # C(j, k) / C(n, k) for j = 0..n
    share = (1 - lookup[(n - successes).long()]) / torch.where(successes > 0, successes, 1.0)
    return rewards * share * n - 1
