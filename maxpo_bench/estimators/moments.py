"""Means and deviations that look at the others of a group, at the groups of a batch, or at tokens instead of samples.

Rewards are [..., N], or [..., G, N] where groups are read. Equal rewards stay equal, and what is zero is exactly zero: no sum
is left as the difference of two larger ones.
"""

import torch

from maxpo_bench.estimators.order_statistics import centre
from maxpo_bench.machine import numerics


def sum_of_others(values):
    """Sum over the last axis without the own entry, [..., N]: added up from both ends, so nothing of it is left by rounding."""
    before, after = torch.zeros_like(values), torch.zeros_like(values)
    before[..., 1:] = values[..., :-1].cumsum(-1)
    after[..., :-1] = values[..., 1:].flip(-1).cumsum(-1).flip(-1)
    return before.add_(after)


def variance_of_others(values):
    """Mean squared deviation of the N-1 others of each sample, ddof 0: [..., N]; exactly 0 where the others are all equal.

    Only the best or the worst of a group can outweigh the others; without them the deviations are summed afresh.
    """
    n = values.shape[-1]
    ordered = values.sort(-1).values
    squares = centre(values).square_()
    found = squares.sum(-1, keepdim=True) - squares.mul_(n / (n - 1))
    for place, others in ((0, ordered[..., 1:]), (-1, ordered[..., :-1])):
        alone = centre(others).square_().sum(-1, keepdim=True)
        found = torch.where(values == ordered[..., place, None], alone, found)
    return found.div_(n - 1)


def divide(values, divisors):
    """values / divisors, and values / 1 where the divisor is 0."""
    return values / torch.where(divisors != 0, divisors, 1.0)


def std(values, ddof=0):
    """Standard deviation over the last axis, [..., 1]; exactly 0 for a constant group."""
    return numerics.sqrt(centre(values).square_().sum(-1, keepdim=True).div_(max(values.shape[-1] - ddof, 1)))


def batch_moments(values, weights=None, ddof=0):
    """(mean, standard deviation) over the last two axes, each [..., 1, 1]. weights: [..., G, N], how often a sample counts."""
    weights = torch.ones_like(values) if weights is None else weights
    origin = values.amax((-2, -1), keepdim=True)
    total = weights.sum((-2, -1), keepdim=True)
    shift = (weights * (values - origin)).sum((-2, -1), keepdim=True) / total
    squares = (weights * (values - origin - shift).square_()).sum((-2, -1), keepdim=True)
    return origin + shift, numerics.sqrt(squares / (total - ddof))


def against_weighted_mean(rewards, weights=None, leave_one_out=True):
    """r_i - sum of w_j r_j / sum of w_j, over the others or over all of the group: [..., N]. weights: >= 0, None: equal.

    Where all weights are 0 the plain mean takes their place. Zeros for a constant group.
    """
    n = rewards.shape[-1]
    plain = centre(rewards).mul_(n / (n - 1) if leave_one_out else 1.0)
    if weights is None:
        return plain
    offsets = rewards - rewards.amax(-1, keepdim=True)
    add = sum_of_others if leave_one_out else (lambda values: values.sum(-1, keepdim=True))
    total = add(weights)
    return torch.where(total > 0, offsets - divide(add(weights * offsets), total), plain)


def james_stein(leave_one_out, eps=1e-6):
    """What James-Stein shrinkage adds to a leave-one-out baseline, towards the mean of the other groups: [..., G, N].

    leave_one_out: [..., G, N], a value of each group without each of its samples. The weight of the other groups' mean is
    v / (v + s + eps): v their own (jackknife) variance, s the variance between them. Nothing of the own group is in it.
    """
    n = leave_one_out.shape[-1]
    values = leave_one_out.mean(-1)  # [..., G]
    num_others = max(values.shape[-1] - 1, 1)
    own = centre(leave_one_out).square_().sum(-1).mul_((n - 1) / n)
    v, s = sum_of_others(own) / num_others, variance_of_others(values) if values.shape[-1] > 1 else torch.zeros_like(values)
    centre_of_others = sum_of_others(values) / num_others
    weight = divide(v, v + s + eps) if values.shape[-1] > 1 else torch.zeros_like(v)
    return weight.unsqueeze(-1) * (centre_of_others.unsqueeze(-1) - leave_one_out)
