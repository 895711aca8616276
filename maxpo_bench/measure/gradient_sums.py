"""Sums over groups of gradients that are never formed: their norms, means and inner products, and the error of each.

variance.py says what is measured with them and how the units are chosen: groups, or batches for an estimator whose groups
are not independent.
"""

import math

import numpy as np
import torch

from maxpo_bench.machine import numerics
from maxpo_bench.measure import bootstrap


class Sums:
    """Running sums and inner products of the gradients of E estimators, less a reference each where that is asked.

    leader: place of the estimator whose inner products with all others are kept, or None. across: places of those that
    look at the other groups of a batch. references: [E, D] or None.
    """

    def __init__(self, leader=None, across=(), references=None):
        self.leader, self.across, self.references = leader, list(across), references
        self.kept, self.shifts, self.batches = [], [], []
        self.total = self.crossed = 0.0

    def add(self, weights, scores):
        """weights: [B, G, E, N] float64, the advantages over N; scores: [B, G, N, D]. At least 2 groups."""
        cast = weights.to(scores.dtype)
        totals = cast.transpose(1, 2).flatten(2) @ scores.flatten(1, 2)  # [B, E, D], of each batch
        total = totals.sum(0)
        self.total = self.total + total.double()
        # Of the leader too: what is said of the others is said relative to it.
        watched = self.across + [self.leader] * bool(self.across and self.leader is not None)
        self.batches.append(totals[:, watched].double() / weights.shape[1])
        weights, cast, scores = weights.flatten(0, 1), cast.flatten(0, 1), scores.flatten(0, 1)
        mates = len(weights) - 1

        def product(vectors):
            """<g_g, vector of the estimator>, [G, E]."""
            by_sample = (vectors.to(scores) @ scores.flatten(0, 1).T).unflatten(1, scores.shape[:2])  # [E, G, N]
            return torch.einsum("gen,egn->ge", weights, by_sample.double())

        with_sample = weights @ (scores @ scores.mT).double()  # <g_g, S_i>, [G, E, N]
        norms = (with_sample * weights).sum(-1)
        if self.leader is not None:
            self.crossed = self.crossed + (with_sample * weights[:, [self.leader]]).sum((0, -1))
        pairs = weights[0:-1:2] @ (scores[0:-1:2] @ scores[1::2].mT).double()  # groups in disjoint pairs
        pairs = (pairs * weights[1::2]).sum(-1)
        self.kept.append((norms, (product(total) - norms) / mates, pairs))
        if self.references is not None:
            along = product(self.references)
            others = (along.sum(0) - along) / mates
            self.shifts.append((2 * along, along + others, along[0:-1:2] + along[1::2]))

    def close(self):
        self.num_blocks = len(self.kept)
        self.kept = [torch.cat(x) for x in zip(*self.kept, strict=True)]
        self.shifts = [torch.cat(x) for x in zip(*self.shifts, strict=True)]
        self.norms, self.near, _ = self.kept
        self.num_groups = len(self.norms)
        self.batches = torch.cat(self.batches)
        return self

    def mean_squared(self, shifted=False):
        """Unbiased ||E g||^2 of each estimator, or ||E g - its reference||^2; and half its 95% interval: [E] tensors.

        The error is that of a U-statistic, 4/M zeta_1 + 2/M^2 zeta_2: zeta_2 the variance of <g, g'> over disjoint
        pairs, zeta_1 that of <g, E g>, the variance of `near` less what zeta_2 explains of it.
        """
        m, mates = self.num_groups, self.num_groups / self.num_blocks - 1
        total, (norms, near, pairs), batches = self.total, self.kept, self.batches[:, : len(self.across)]
        if shifted:
            size, total = self.references.square().sum(-1), total - m * self.references
            norms, near, pairs = (x - shift + size for x, shift in zip(self.kept, self.shifts, strict=True))
            batches = batches - self.references[self.across]
        value = (total.square().sum(-1) - norms.sum(0)) / (m * (m - 1))
        zeta_2 = pairs.var(0)
        zeta_1 = (near.var(0) - zeta_2 / mates).clamp(min=0)
        margin = 1.96 * numerics.sqrt(4 / m * zeta_1 + 2 / (m * (m - 1)) * zeta_2)
        if self.across:
            near = between(batches, batches)
            value[self.across] = near.mean(0)
            margin[self.across] = t_quantile(len(near)) * jackknife_error(near)
        return value, margin

    def snr_margin(self, square, margin, trace):
        """Half the 95% interval of ||E g||^2 / tr Cov of each estimator, [E]. margin: that of ||E g||^2.

        The trace of many independent groups counts as known. Those that look across groups have few batches: theirs is the
        jackknife of the ratio, leaving out one batch at a time.
        """
        margin, num = margin / trace, len(self.batches)
        if self.across and num > 2:
            batches = self.batches[:, : len(self.across)]
            near = between(batches, batches)  # [B, X]
            norms = self.norms[:, self.across].unflatten(0, (num, -1)).mean(1)
            square = (num * near.mean(0) - 2 * near) / (num - 2)  # without one batch
            trace = (norms.sum(0) - norms) / (num - 1) - square
            ratio = square / trace
            error = numerics.sqrt((num - 1) / num * (ratio - ratio.mean(0)).square().sum(0))
            margin[self.across] = t_quantile(num) * error
        return margin

    def product_with_leader(self):
        """Unbiased <E g, E g of the leader> of each estimator, [E]."""
        m = self.num_groups
        value = (self.total @ self.total[self.leader] - self.crossed) / (m * (m - 1))
        if self.across:
            value[self.across] = between(self.batches[:, :-1], self.batches[:, -1:]).mean(0)
        return value

    def ratios(self, square, trace, noise):
        """tr Cov over the leader's, [E], and 95% intervals [E][2].

        Groups are resampled for all estimators at once; those that look across groups have the interval of the
        logarithm's linear form over batches.
        """
        spread = self.norms - 2 * self.near + square  # ||g_g - E g||^2 without bias
        resampled = bootstrap.counts(noise, self.num_groups) @ spread.numpy()  # [resamples, E]
        resampled = resampled / np.maximum(resampled[:, [self.leader]], 1e-300)
        ratio = trace / trace[self.leader]
        interval = torch.as_tensor(bootstrap.bounds(resampled)).T.contiguous()  # [E, 2]
        if self.across:
            near = between(self.batches, self.batches)
            norms = self.norms[:, [*self.across, self.leader]].unflatten(0, (len(near), -1)).mean(1)
            parts = (norms - 2 * near) / trace[[*self.across, self.leader]]
            error = (parts[:, :-1] - parts[:, -1:]).std(0) / math.sqrt(len(near))
            margin = t_quantile(len(near)) * error
            interval[self.across] = ratio[self.across, None] * torch.stack([-margin, margin], -1).exp()
        return ratio.tolist(), interval.tolist()


def between(means, others):
    """<mean of a batch, mean of all other batches>: [B, X, D] each (or X = 1) -> [B, X]; nan for a single batch."""
    mates = len(means) - 1 or math.nan
    return ((means * others.sum(0)).sum(-1) - (means * others).sum(-1)) / mates


def jackknife_error(near):
    """Standard error of the mean inner product of two batches, leaving out one batch at a time: [B, X] -> [X].

    Never too small on average; up to sqrt(3) too large where there is no signal. nan below 3 batches.
    """
    num = len(near)
    scale = 4 * (num - 1) / (num * (num - 2) ** 2) if num > 2 else math.nan
    return numerics.sqrt(scale * (near - near.mean(0)).square().sum(0))


def t_quantile(num_batches):
    """Half the width of a 95% interval in standard errors, from so many batches."""
    from scipy.stats import t

    return float(t.ppf(0.975, num_batches - 1))
