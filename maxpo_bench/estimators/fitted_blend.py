"""A blend of maxpo's and pkpo's baselines whose weight is fitted on the other groups of the batch (docs/fitted_blend.md)."""

import torch

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.moments import divide, sum_of_others
from maxpo_bench.estimators.order_statistics import added_value, centre, include_sums

PRIOR_GROUPS = 1  # groups of evidence that the bootstrap weight (N-k)/(N-1) counts for


@estimator(
    objective="J_K", unbiased=True, centred=False, cost="N log N", valid_k=below_n, source="this project", across_groups=True
)
def fitted_blend(rewards, k, score_norms=None):
    """A_i = k (D_i - w x_i), D_i = q_i - u_i, x_i = v_-i - u_i: baseline_blend with a w of its own for each group.

    rewards: [..., G, N], the G groups of one batch. score_norms: [..., G, N] squared norms of the scores, 1 when None. w
    minimises the sum of score_norms * A^2 over the other groups, the variance when scores are orthogonal; it does not see
    its own group, so E[g] = grad J_k exactly. Mean-loss scale. k = 1 is rloo: there is no u_i to blend with.
    """
    if k == 1:
        return centre(rewards).mul_(rewards.shape[-1] / (rewards.shape[-1] - 1))
    added, control = parts(rewards, k)
    return added.sub_(weights(added, control, k, score_norms).unsqueeze(-1) * control).mul_(k)


def parts(rewards, k):
    """(D_i, x_i) of the formula, k >= 2: [..., N] twice."""
    n = rewards.shape[-1]
    added, ahead = added_value(rewards, k), include_sums(rewards, k)
    ahead = ahead.sub_(ahead.mean(-1, keepdim=True)).mul_(n / (n - k))  # q_i - v_-i
    return added, ahead.neg_().add_(added)


def weights(added, control, k, score_norms=None):
    """Least-squares weight of `control` in `added` for each group, from the others: [..., G, N] twice -> [..., G]."""
    n = added.shape[-1]
    prior = (n - k) / (n - 1)
    weighted = control if score_norms is None else control * score_norms
    products, squares = (added * weighted).sum(-1), (control * weighted).sum(-1)
    evidence = sum_of_others(squares)
    typical = divide(sum_of_others(squares.square()), evidence)  # evidence of one of the groups that decide the fit
    total = evidence + PRIOR_GROUPS * typical
    return torch.where(total > 0, divide(sum_of_others(products) + PRIOR_GROUPS * typical * prior, total), prior)
