"""A baseline that adapts: a few statistics of a sample's others, weighted by regression on the other groups of the batch.

    A_i = K (D_i - sum_m t_m x_mi),    D_i = q_i - u_i (pkpo)
    x = w (v_-i - u_i), 1, and the means over the subsets of 1 and of K-1 others of i of their max;    w = (N-K)/(N-1)

Each x_m depends on i's others alone, so any weights t leave E[g] unchanged as long as they come from elsewhere. They
minimise an estimate of E||g||^2 made from the groups of the other folds: as they are and, where prompts are alike, with
their samples drawn again into many more groups, rare ones more often than chance has them and weighted for it. Little
evidence: t shrinks towards (1, 0, 0, 0), baseline_blend at the bootstrap weight. Rare groups: what t adds to that blend
uses x held within the range that it took in the other folds.
docs/fitted_blend.md derives it and says where it gains.
"""

import functools

import torch

from maxpo_bench.estimators.contract import below_n, estimator
from maxpo_bench.estimators.order_statistics import added_weights, centre, include_weights, sorted_gaps

PRIOR_GROUPS = 4  # groups of evidence that the prior weights count for
REDRAWN = 2**15  # rewards of the groups drawn again: as many rounds as that takes
MOST_ROUNDS = 12
TILTS = (0.0, -2.5, -7.0, 4.0)  # a drawn sample's chance is exp(tilt x rank), rank in [0, 1]; a round for each in turn
COUNTED = 6  # times that the samples which decide the variance count as evidence, where prompts are alike
HELD_NUMBERS = 2**17  # rewards drawn at once
LARGE = 2**13  # rewards of a batch that is its own large sample: nothing is drawn again, and it is worked off in blocks of groups
BLOCK_NUMBERS = 2**11
DEGREE = 2  # of the polynomials in a reward's rank by which the scores of a group overlap


@estimator(objective="J_K", unbiased=True, centred=False, cost="N log N", valid_k=below_n, source="this project",
           across_groups=True)
def fitted_blend(rewards, k, score_norms=None, scores=None):
    """A_i = k (q_i - u_i - t . x_i), with t fitted on the groups of other folds. Mean-loss scale.

    rewards: [..., G, N], the G groups of one batch. score_norms: [..., G, N] squared norms of the scores, 1 when None:
    t minimises the sum of score_norms * A^2, the variance when scores are orthogonal. scores: [..., G, N, D], whole
    scores or any factor of their Gram matrix: how far the scores of a group overlap is estimated too.
    O(G N log N) time, plus O(G N D) with scores. At k = 1 u_i is empty: like pkpo it starts from rloo, D_i = r_i - v_-i.
    """
    shape, (num_groups, n) = rewards.shape, rewards.shape[-2:]
    rewards = rewards.reshape(-1, 1, num_groups, n)  # [B, rounds, G, N]: one round is the batch as it is
    rewards = rewards - rewards.amax((-2, -1), keepdim=True)  # the formula is shift-invariant, its rounding is not
    blocks = _blocks(len(rewards), num_groups, n)
    if num_groups == 1:
        parts = statistics(rewards, k)
        return k * (parts[..., 0, :] - parts[..., 1, :]).reshape(shape)
    folds = Folds(num_groups, rewards.device)
    norms = None if score_norms is None else score_norms.reshape(rewards.shape)
    basis = overlap = None
    if scores is not None:
        norms = torch.linalg.vector_norm(scores, dim=-1).double().square().reshape(rewards.shape)
        basis = rank_polynomials(rewards, folds)  # [B, 1, G, N, DEGREE]
        overlap = score_overlap(scores.reshape(*rewards.shape, -1)[:, 0], norms, basis, folds)
    moments, sizes, low, high = 0.0, 0.0, torch.inf, -torch.inf
    for block in blocks:
        own = [None if values is None else values[:, :, block] for values in (rewards, norms, basis)]
        parts = statistics(own[0], k)
        low = folds.least(parts, block).clamp(max=low)  # of each statistic, [B, F, 5]
        high = -folds.least(-parts, block).clamp(max=-high)
        moment, size = fold_moments(k, parts, *own[1:], overlap, folds, block)
        moments, sizes = moments + moment, sizes + size
    evidence = effective_number(sizes)
    rounds = min(MOST_ROUNDS, REDRAWN // (num_groups * n)) // len(TILTS)  # of each tilt
    if rounds and folds.smallest > 1 and num_groups * n <= LARGE:
        alike = prompts_alike(rewards[:, 0], folds).square()  # [B, F]
        pool = [None if values is None else values[:, 0].flatten(1, 2) for values in in_order(rewards, norms, basis)]
        chances = tilted_chances(pool[0], folds, n)
        share = torch.zeros_like(pool[0])  # of each sample in the size of x_1's gradient
        at_once = max(1, HELD_NUMBERS // (rewards.numel() * len(TILTS)))
        for uniforms in _uniforms(rounds, num_groups, n).to(rewards.device).split(at_once):
            places, weight = draw_groups(chances, uniforms, folds)
            new = [None if values is None else take(values, places) for values in pool]
            parts = statistics(new[0], k)
            low, high = folds.least(parts).clamp(max=low), -folds.least(-parts).clamp(max=-high)
            weighted = parts * weight[..., None, None].sqrt()
            moments = moments + alike[..., None, None] * fold_moments(k, weighted, *new[1:], overlap, folds)[0]
            size = weighted[..., 1 if k > 1 else 0, :].square()
            size = size if norms is None else size * new[1]
            share = share.scatter_add(1, places.flatten(1), size.flatten(1))
        share = share.view(-1, num_groups, n)
        sums = [folds.others(values.sum(-1), 0) for values in (share, share.square())]
        evidence = evidence + alike * COUNTED / n * effective_number(torch.stack(sums, -1))
    highest = rewards.amax(-1).masked_fill(folds.seen == 0, -torch.inf).amax(-1)  # [B, F], of the groups a fold sees
    weights = best_weights(moments, evidence, highest)[:, folds.of, :, None]  # [B, G, 4, 1]
    found = []
    for block in blocks:
        parts, of = statistics(rewards[:, 0, block], k), folds.of[block]  # [B, G, 5, N]
        held = parts[..., 1:, :].clamp(low[:, of, 1:, None], high[:, of, 1:, None])
        blend = parts[..., 0, :] - parts[..., 1, :]
        found.append(k * (blend + held[..., 0, :] - (weights[:, block] * held).sum(-2)))
    return torch.cat(found, 1).reshape(shape)


def _blocks(num_batches, num_groups, n):
    """Slices of the groups: all of them, unless the copies of a large batch would fill the memory."""
    if num_groups * n <= LARGE:
        return [slice(None)]
    step = max(1, BLOCK_NUMBERS // (num_batches * n))
    return [slice(start, start + step) for start in range(0, num_groups, step)]


class Folds:
    """Groups dealt into folds like cards. The weights of a fold see the groups of the other folds."""

    def __init__(self, num_groups, device=None):
        self.num = 4 if num_groups >= 8 else 2 if num_groups >= 4 else num_groups
        self.of = torch.arange(num_groups, device=device) % self.num
        self.smallest = num_groups // self.num
        self.seen = (self.of != torch.arange(self.num, device=device)[:, None]).double()  # [F, G]
        self.num_seen = self.seen.sum(-1)

    def others(self, values, num_axes, block=slice(None)):
        """Sum over the groups that a fold sees: [B, G, ...] with num_axes axes after G -> [B, F, ...].

        block: the groups that are there, when they are not all.
        """
        flat = values.flatten(2) if num_axes else values[..., None]
        return (self.seen[:, block] @ flat).view(*values.shape[:1], self.num, *values.shape[2:])


    def least(self, values, block=slice(None)):
        """Least over rounds, samples and the groups that a fold sees: [B, R, G, M, N] -> [B, F, M]. block: see others."""
        hidden = (self.seen[:, block] == 0)[..., None]
        return values.amin((1, -1)).unsqueeze(1).masked_fill(hidden, torch.inf).amin(2)


def statistics(rewards, k):
    """D_i and what the baseline is made of, each but D a function of i's others: [..., N] -> [..., 5, N]. One sort."""
    n, device = rewards.shape[-1], rewards.device
    gaps, ordered, index = sorted_gaps(rewards)
    highest = ordered[..., -1:]

    def leave_one_out(m):
        """(max over m-subsets with i less v_-i, v_-i), in sorted order."""
        sums = (gaps * include_weights(n, m, device)).cumsum(-1)
        ahead = n / (n - m) * (sums - sums.mean(-1, keepdim=True))
        return ahead, highest - (sums[..., -1:] - sums) - ahead

    ahead, _ = leave_one_out(k)
    if k == 1:
        added, bootstrap = ahead, torch.zeros_like(ahead)
    else:
        added = (gaps * added_weights(n, k, device)).cumsum(-1)
        bootstrap = (n - k) / (n - 1) * (added - ahead)
    means = [leave_one_out(m)[1] for m in (1, k - 1 if k > 2 else min(2, n - 1))]
    values = torch.stack([added, bootstrap, torch.ones_like(added), *means], dim=-2)
    return torch.empty_like(values).scatter_(-1, index.unsqueeze(-2).expand_as(values), values)


def in_order(rewards, norms, basis):
    """Each group sorted by reward, then by norm: what is drawn from it does not hang on how it was listed."""
    order = torch.zeros_like(rewards, dtype=torch.long) + torch.arange(rewards.shape[-1], device=rewards.device)
    for key in (norms, rewards):
        if key is not None:
            order = order.gather(-1, key.gather(-1, order).argsort(dim=-1, stable=True))
    basis = None if basis is None else basis.gather(-2, order[..., None].expand_as(basis))
    return rewards.gather(-1, order), None if norms is None else norms.gather(-1, order), basis


@functools.lru_cache(maxsize=32)
def _uniforms(rounds, num_groups, n):
    """A fixed draw: [R, L, G, N] in [0, 1)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(rounds, len(TILTS), num_groups, n, generator=generator, dtype=torch.float64)


def tilted_chances(pool, folds, n):
    """Under each tilt, how likely a sample is to be drawn from its fold, times the fold's samples: [B, G N] -> [B, L, G N]."""
    found = pool.new_empty(len(pool), len(TILTS), pool.shape[-1])
    tilts = torch.tensor(TILTS, dtype=torch.float64, device=pool.device)[:, None]
    fold_of = folds.of.repeat_interleave(n)
    for fold in range(folds.num):
        raw = torch.exp(tilts * mid_ranks(pool[:, fold_of == fold]).unsqueeze(1))
        found[:, :, fold_of == fold] = raw / raw.mean(-1, keepdim=True)
    return found


def draw_groups(chances, uniforms, folds):
    """New groups of a fold's own samples, drawn with replacement. Returns places [B, R L, G, N] and weights [B, R L, G].

    A group's weight is its chance without a tilt over its mean chance under all tilts (Veach and Guibas 1995, the balance
    heuristic): at most L, and its mean is 1.
    """
    rounds, num_tilts, num_groups, n = uniforms.shape
    index = torch.arange(num_groups * n, device=chances.device).view(num_groups, n)
    places = index.expand(len(chances), rounds, num_tilts, num_groups, n).clone()
    for fold in range(folds.num):
        own = index[fold :: folds.num].flatten()
        sums = chances[..., own].cumsum(-1)  # [B, L, M]
        asked = uniforms[:, :, fold :: folds.num].transpose(0, 1).flatten(1) * sums[..., -1:]
        drawn = own[torch.searchsorted(sums, asked).clamp(max=len(own) - 1)]
        places[:, :, :, fold :: folds.num] = drawn.view(len(chances), num_tilts, rounds, -1, n).transpose(1, 2)
    places = places.flatten(1, 2)
    return places, 1 / take(chances.log().mT, places).sum(-2).exp().mean(-1)


def take(values, places):
    """Values of samples [B, M, ...] at places [B, R, G, N]: [B, R, G, N, ...]."""
    index = places.flatten(1).view(len(places), -1, *[1] * (values.dim() - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:])).view(*places.shape, *values.shape[2:])


def effective_number(sums):
    """Kish's effective number of parts, from the sum of their sizes and of the squares: [..., 2] -> [...]."""
    return sums[..., 0].square() / torch.where(sums[..., 1] > 0, sums[..., 1], 1.0)


def fold_moments(k, parts, norms, basis, overlap, folds, block=slice(None)):
    """Estimates of E<g_a, g_b> for the gradients of D and x, summed over rounds and the groups that a fold sees.

    parts: [B, R, G, 5, N]; norms: [B, R, G, N] or None; basis: [B, R, G, N, P] and overlap: [B, F, P, P], or None.
    block: the groups that are there, when they are not all. Returns [B, F, 5, 5], and [B, F, 2]: sum and sum of squares
    over groups of the size of x_1's gradient, or D's where x_1 is nothing (k = 1).
    """
    weighted = parts if norms is None else parts * norms.unsqueeze(-2)
    same = weighted @ parts.mT  # [B, R, G, 5, 5]: the terms <S_i, S_i>
    size = same[..., 1, 1] if k > 1 else same[..., 0, 0]
    sizes = folds.others(torch.stack([size.sum(1), size.square().sum(1)], -1), 1, block)
    moments = folds.others(same.sum(1), 2, block)
    if overlap is not None:  # the terms <S_i, S_j>, sum over p, q of overlap_pq e_p(r_i) e_q(r_j)
        along = parts @ basis  # [B, R, G, 5, P]
        for p in range(basis.shape[-1]):
            for q in range(basis.shape[-1]):
                pairs = along[..., :, None, p] * along[..., None, :, q]
                pairs = pairs - (parts * (basis[..., p] * basis[..., q]).unsqueeze(-2)) @ parts.mT  # less i = j
                moments = moments + overlap[..., p, q, None, None] * folds.others(pairs.sum(1), 2, block)
    return moments, sizes


def best_weights(moments, evidence, location):
    """Weights t of least E||g_D - sum_m t_m g_m||^2 for each fold, shrunk towards (1, 0, 0, 0): [B, F, 4].

    The prior counts for PRIOR_GROUPS groups beside the evidence, [B, F], in groups. Shift and scale of the rewards do not
    matter: the means of others are measured from `location`, and the statistics in units of their own gradients.
    """
    frame = torch.eye(5, dtype=moments.dtype, device=moments.device).repeat(*location.shape, 1, 1)
    frame[..., 3:, 2] = -location[..., None]
    moved = frame @ moments @ frame.mT
    known = moved.diagonal(dim1=-2, dim2=-1) > 1e-12 * (frame.abs() @ moments.abs() @ frame.abs().mT).diagonal(dim1=-2, dim2=-1)
    unit = torch.where(known, moved.diagonal(dim1=-2, dim2=-1), 1.0).sqrt()  # [B, F, 5]
    known = known.double()
    moved = positive(moved * (known[..., :, None] * known[..., None, :]) / (unit[..., :, None] * unit[..., None, :]))
    inner = moved[..., 1:, 1:]
    miss = moved[..., 1:, 0] * unit[..., :1] - moved[..., 1:, 1] * (unit * known)[..., 1:2]  # what the prior leaves
    values, vectors = torch.linalg.eigh(inner)
    step = (vectors.mT @ miss[..., None])[..., 0] * evidence[..., None]
    step = (vectors @ (step / (evidence[..., None] * values.clamp(min=0) + PRIOR_GROUPS))[..., None])[..., 0]
    weights = step * known[..., 1:] / unit[..., 1:]
    weights[..., 0] += 1
    weights[..., 1] -= location * (weights[..., 2] + weights[..., 3])
    return weights


def positive(matrices):
    """Symmetric matrices less their negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp(min=0).unsqueeze(-2)) @ vectors.mT


def mid_ranks(values):
    """Share of values below, ties counted half: [B, M] -> [B, M] in (0, 1)."""
    ordered = values.sort(-1).values
    rank = torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)
    return rank.double() / (2 * values.shape[-1])


def rank_polynomials(rewards, folds):
    """Polynomials in a reward's mid-rank among its fold, orthonormal there, without the constant: [B, 1, G, N, DEGREE]."""
    found = rewards.new_zeros(*rewards.shape, DEGREE)
    for fold in range(folds.num):
        values = rewards[:, 0, folds.of == fold].flatten(1)  # [B, M]
        rank = mid_ranks(values)
        chosen = []
        for degree in range(DEGREE):
            new = rank if degree == 0 else rank * chosen[-1]
            for _ in range(2):  # Gram-Schmidt, twice is enough
                new = new - new.mean(-1, keepdim=True)
                for old in chosen:
                    new = new - (new * old).mean(-1, keepdim=True) * old
            size = new.square().mean(-1, keepdim=True).sqrt()
            chosen.append(torch.where(size > 1e-6, new / torch.where(size > 1e-6, size, 1.0), 0.0))
        found[:, 0, folds.of == fold] = torch.stack(chosen, -1).view(len(values), -1, rewards.shape[-1], DEGREE)
    return found


def score_overlap(scores, norms, basis, folds):
    """E<S_i, S_j> of two samples of a group in the basis, from the groups that a fold sees: [B, F, P, P], no eigenvalue < 0.

    scores: [B, G, N, D]; norms: [B, 1, G, N]; basis: [B, 1, G, N, P]. The constant is left out because E[S] = 0.
    """
    basis, n = basis[:, 0], scores.shape[-2]
    along = (basis.mT.to(scores) @ scores).double()  # [B, G, P, D]
    pairs = along @ along.mT - (basis * norms[:, 0, ..., None]).mT @ basis
    mean = folds.others(pairs, 2) / (folds.num_seen * n * (n - 1))[:, None, None]
    return positive(mean)


def prompts_alike(rewards, folds):
    """s in [0, 1] for each fold: how far a prompt's rewards may be read off the other prompts'. [B, G, N] -> [B, F].

    One-way analysis of variance: the squared error of a mean of N-1 others, over itself plus the variance between
    prompts. That variance counts only beyond one standard error, so that prompts that are alike pool fully.
    """
    n, seen = rewards.shape[-1], folds.num_seen
    if rewards.shape[-2] < 3:
        return rewards.new_zeros(len(rewards), folds.num)
    means, within = rewards.mean(-1), centre(rewards).square().sum(-1) / (n - 1)  # [B, G]
    means = means.unsqueeze(-2) - (folds.others(means, 0) / seen).unsqueeze(-1)  # [B, F, G]
    between = (folds.seen * means.square()).sum(-1) / (seen - 1)
    within = folds.others(within, 0) / seen
    prompts = (between - within / n * (1 + (2 / (seen - 1)).sqrt())).clamp(min=0)
    error = within / (n - 1)
    return error / torch.where(within > 0, error + prompts, 1.0)
