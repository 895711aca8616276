"""A baseline blended from three, its weights fitted on the other groups of the batch: docs/fitted_blend.md derives it.

    A_i = K (D_i - t E_i),   D_i = q_i - u_i (pkpo),   E_i = (1-s) w (v_-i - u_i) + s P_i,   w = (N-K)/(N-1)

P_i is what a sample drawn from the other groups would add to K-1 others of i: the orthogonal-score optimum when all
prompts are alike. (v_-i - u_i) w is the same with the group's own others in place of the pool (the bootstrap), right
when prompts differ. s comes from a one-way analysis of variance, t from least squares. t = 0 is pkpo; one group alone
gives baseline_blend at w. The groups are split into folds and a fold sees only the groups of the others: E[g] is exact.
"""

import torch

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import added_value, centre, include_sums, others_below

NUM_FOLDS = 8


@estimator(objective="J_K", unbiased=True, centred=False, cost="N log N", valid_k=below_n, source="this project",
           across_groups=True)
def fitted_blend(rewards, k, score_norms=None, scores=None):
    """A_i = k (q_i - u_i - t E_i), with t and E fitted on the groups of other folds. Mean-loss scale.

    rewards: [..., G, N], the G groups of one batch. score_norms: [..., G, N] squared norms of the scores, 1 when None:
    t minimises the sum of score_norms * A^2, the variance when scores are orthogonal. scores: [..., G, N, D], whole
    scores or any factor of their Gram matrix: t minimises the trace of the covariance itself. O(G N log(G N)) time,
    plus O(G N D) with scores.
    At k = 1 u_i is empty: like pkpo it starts from rloo, D_i = r_i - v_-i, and E_i = s (mean of the pool - v_-i).
    """
    num_groups, n = rewards.shape[-2:]
    num_folds = min(num_groups, NUM_FOLDS)
    fold = torch.arange(num_groups, device=rewards.device) % num_folds
    seen = (fold != torch.arange(num_folds, device=rewards.device)[:, None]).double()  # [F, G], 1: the fold sees it
    if scores is not None:
        scores = scores.double()
        score_norms = scores.square().sum(-1)
    rewards = rewards - rewards.amax((-2, -1), keepdim=True)  # the formula is shift-invariant, its rounding is not

    added = include_sums(rewards, k)
    added.sub_(added.mean(-1, keepdim=True)).mul_(n / (n - k))                 # q_i - v_-i, [..., G, N]
    bootstrap = torch.zeros_like(added)                                        # w (v_-i - u_i): 0 when k = 1
    if k > 1:
        bootstrap, added = added, added_value(rewards, k)                      # D_i
        bootstrap.sub_(added).mul_((k - n) / (n - 1))
    gradients = None if scores is None else torch.einsum("...gn,...gnd->...gd", added, scores)  # of pkpo
    advantages = torch.empty_like(added)
    for f in range(num_folds):  # one fold at a time: a few copies of the batch, not one for each fold
        sees = seen[f : f + 1]
        control = _pooled_gain(rewards, score_norms, sees, k)                        # P_i, [..., 1, G, N]
        if k == 1:
            control += added.unsqueeze(-3)                                     # mean of the pool - v_-i
        alike = _alike(rewards, sees)[..., None, None]                         # s
        control.sub_(bootstrap.unsqueeze(-3)).mul_(alike).add_(bootstrap.unsqueeze(-3))  # E_i
        t = _step(added, control, score_norms, scores, gradients, sees)        # [..., 1]
        own = slice(f, None, num_folds)
        advantages[..., own, :] = k * (added[..., own, :] - t[..., None] * control[..., 0, own, :])
        del control  # before the next fold's
    return advantages


def _alike(rewards, seen):
    """s in [0, 1] for each fold: how far a prompt's rewards may be read off the other prompts'. [..., F].

    One-way analysis of variance: the squared error of a mean of N-1 others, over itself plus the variance between
    prompts. That variance counts only beyond one standard error, so that prompts that are alike pool fully.
    """
    n, num_seen = rewards.shape[-1], seen.sum(-1)
    if rewards.shape[-2] < 3:
        return torch.zeros(*rewards.shape[:-2], len(seen), dtype=rewards.dtype, device=rewards.device)
    means, within = rewards.mean(-1), centre(rewards).square().sum(-1) / (n - 1)  # [..., G]
    means = means.unsqueeze(-2) - (means @ seen.T / num_seen).unsqueeze(-1)       # [..., F, G]
    between = (seen * means.square()).sum(-1) / (num_seen - 1)
    within = within @ seen.T / num_seen
    prompts = (between - within / n * (1 + (2 / (num_seen - 1)).sqrt())).clamp(min=0)
    error = within / (n - 1)
    return error / torch.where(within > 0, error + prompts, 1.0)


def _pooled_gain(rewards, norms, seen, k):
    """P_i: mean over x in the pool, weighted by norms, of the mean over (k-1)-subsets of i's others of (x - max)+.

    The pool of a fold are the samples of the groups it sees, less the group at hand. For k = 1, which has no subset,
    the mean over the pool of (x - r_i), without the positive part. Returns [..., F, G, N].
    """
    shape = rewards.shape
    weights = seen[..., None] if norms is None else seen[..., None] * norms.unsqueeze(-3)
    weights = weights.expand(*shape[:-2], len(seen), *shape[-2:])                            # [..., F, G, N]
    pool = weights.sum((-2, -1), keepdim=True) - weights.sum(-1, keepdim=True)               # [..., F, G, 1]
    if k == 1:
        totals = weights * rewards.unsqueeze(-3)
        mean = (totals.sum((-2, -1), keepdim=True) - totals.sum(-1, keepdim=True)) / torch.where(pool > 0, pool, 1.0)
        return mean - torch.where(pool > 0, rewards.unsqueeze(-3), mean)
    gain = _excess(rewards.flatten(-2).unsqueeze(-2), weights.flatten(-2)).unflatten(-1, shape[-2:])
    gain.sub_(_excess(rewards.unsqueeze(-3), weights))
    del weights
    gain.clamp_(min=0).div_(torch.where(pool > 0, pool, 1.0))  # psi at each reward: mean of (x - r_i)+
    # The max of a (k-1)-subset of i's N-1 others is the one of rank j with probability t_(j+1) - t_j.
    chance = others_below(shape[-1], k, rewards.device).diff()  # [N-1]
    order = rewards.argsort(-1).unsqueeze(-3).expand_as(gain)
    gain = gain.gather(-1, order)
    sums = torch.zeros_like(gain)
    torch.cumsum(chance * gain[..., :-1], -1, out=sums[..., 1:])
    gain = (chance * gain[..., 1:]).flip(-1).cumsum_(-1)
    sums[..., :-1] += gain.flip(-1)
    return torch.empty_like(sums).scatter_(-1, order, sums)


def _excess(values, weights):
    """sum_j weights_j (values_j - values_i)+ for every i; values broadcast to weights [..., M]. Exact zeros on ties."""
    values, order = values.sort(dim=-1)
    order = order.expand(weights.shape)
    gaps = values.diff(dim=-1).flip(-1)  # the last gap first
    del values
    heavier = weights.gather(-1, order).flip(-1).cumsum_(-1)[..., :-1]  # weight above each gap
    heavier.mul_(gaps).cumsum_(-1)
    del gaps
    return torch.zeros_like(weights).scatter_(-1, order[..., :-1], heavier.flip(-1))


def _step(added, control, norms, scores, gradients, seen):
    """t of each fold, [..., F]: the regression of the pkpo gradient on the control's over the groups the fold sees.

    added: [..., G, N]; control: [..., F, G, N]. The control's gradient has mean zero, so Cov / Var is the step of least
    variance. Shrunk towards 1 by one effective group (Kish's number of groups) and kept in [-1, 1].
    """
    if scores is None:
        weighted = control.clone() if norms is None else norms.unsqueeze(-3) * control
        cross = (weighted * added.unsqueeze(-3)).sum(-1)                         # [..., F, G]
        size = weighted.mul_(control).sum(-1)
        covariance, variance = (seen * cross).sum(-1), (seen * size).sum(-1)
    else:
        added = gradients.unsqueeze(-3)                                           # [..., 1, G, D]
        control = torch.einsum("...fgn,...gnd->...fgd", control, scores)
        cross, size = (added * control).sum(-1), control.square().sum(-1)        # [..., F, G]
        total = (seen[..., None] * control).sum(-2) / seen.sum(-1).clamp(min=1)[:, None]
        # Centred: E[control] = 0, yet taking the mean out removes the noise of (E g) . control
        covariance = (seen * cross).sum(-1) - ((seen[..., None] * added).sum(-2) * total).sum(-1)
        variance = (seen * size).sum(-1) - seen.sum(-1) * total.square().sum(-1)
    known = variance > 1e-12 * (seen * size).sum(-1)
    groups = (seen * size).sum(-1).square() / torch.where(known, (seen * size.square()).sum(-1), 1.0)
    step = (covariance - variance) / torch.where(known, variance, 1.0)
    return torch.where(known, 1 + step * groups / (groups + 1), 1.0).clamp(-1, 1)
