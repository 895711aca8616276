"""The shared maths of the max-of-k estimators: one sort, one prefix sum over the gaps of the sorted rewards.

Sort a group, x_1 <= ... <= x_N, and write g_m = x_m - x_(m-1) >= 0 for its gaps. Every value of ESTIMATORS.md is linear
in the gaps. With t_j = C(j, k-1) / C(N-1, k-1), the chance that k-1 of the N-1 others all lie among j given ones,

    P_j = sum over m <= j of t_(m-2) g_m         q_j - v     = P_j - mean P,      q_j = x_N - (P_N - P_j)
    D_j = sum over m <= j of t_(m-1) g_m         q_j - u_j   = D_j                (k >= 2)
                                                 q_j - v_-j  = N/(N-k) (P_j - mean P)

so tied rewards get equal advantages and a constant group exact zeros by construction, an offset common to the group
cancels before anything is summed, and no weight overflows: t is a running product of factors in [0, 1].
"""

import functools

import numpy as np
import torch

from maxpo_bench.machine import numerics


@functools.lru_cache(maxsize=512)
def others_below(n, k, device=None):
    """t_j = C(j, k-1) / C(n-1, k-1) for j = 0..n-1: [n] float64. Relative error about n * 1e-16."""
    j = np.arange(n - 1, 0, -1)
    factors = np.maximum(j - (k - 1), 0) / j  # t_(j-1) / t_j
    weights = np.concatenate([[1.0], np.cumprod(factors)])[::-1]
    with torch.inference_mode(False):
        return torch.tensor(weights.copy(), dtype=torch.float64, device=device)


@functools.lru_cache(maxsize=512)
def include_weights(n, k, device=None):
    """Weight of gap m = 1..n in P (see the module's docstring): t_(m-2), and 0 for m = 1: [n] float64."""
    return _shift(others_below(n, k, device))


@functools.lru_cache(maxsize=512)
def added_weights(n, k, device=None):
    """Weight of gap m = 1..n in D: t_(m-1), and 0 for m = 1: [n] float64."""
    with torch.inference_mode(False):
        weights = others_below(n, k, device).clone()
        weights[0] = 0
        return weights


@functools.lru_cache(maxsize=512)
def tail_weights(n, device=None):
    """Sum over k = 1..n-1 of n/(n-k) t_(m-2): n/(n-m+1) for m = 2..n, and 0 for m = 1: [n] float64."""
    with torch.inference_mode(False):
        rank = torch.arange(1, n + 1, dtype=torch.float64, device=device)
        weights = n / (n - rank + 1)
        weights[0] = 0
        return weights


@functools.lru_cache(maxsize=512)
def summed_weights(n, order, harmonic=False, device=None):
    """Weight of gap m = 1..n in the sum over K = 1..order of maxpo_K, or of maxpo_K / K: [n] float64, all terms >= 0.

    maxpo_K has K n/(n-K) C(m-2, K-1) / C(n-1, K-1); each K follows from the last. order * n time, once.
    """
    below = np.arange(-1.0, n - 1)  # m - 2
    term = np.where(below >= 0, n / (n - 1), 0.0)
    total = term.copy()
    for k in range(1, order):
        term = term * np.maximum(below - k + 1, 0) * ((k + 1) / (k * (n - 1 - k)))
        total += term / (k + 1) if harmonic else term
    with torch.inference_mode(False):
        return torch.tensor(total, dtype=torch.float64, device=device)


@functools.lru_cache(maxsize=512)
def rank_weights(n, weights, device=None):
    """Weight of gap m = 1..n in k (q_i - v_-i), where a k-subset is worth the sum of weights[j] times its j-th best reward.

    weights: tuple of k < n numbers, for the best reward first. Sample i is at or above gap m and its rival, a sample below
    it, is not: the subset's other k-1 are among the n-2 left, and if j of them lie above the gap i takes rank j. Returns
    [n] float64: k n/(n-1) times the mean of weights[j], j hypergeometric. len(weights) * n time, once.
    """
    k, logs = len(weights), np.concatenate([[0.0, 0.0], np.log(np.arange(2, n + 1)).cumsum()])  # log of factorials

    def log_choose(a, b):
        a, b = np.broadcast_arrays(a, b)
        possible = (b >= 0) & (b <= a)
        a, b = np.where(possible, a, 0), np.where(possible, b, 0)
        return np.where(possible, logs[a] - logs[b] - logs[a - b], -np.inf)

    gap = np.arange(2, n + 1)
    found = np.zeros(n)
    for j, weight in enumerate(weights):
        if weight:
            chance = np.exp(log_choose(n - gap, j) + log_choose(gap - 2, k - 1 - j) - log_choose(n - 2, k - 1))
            found[1:] += weight * chance
    with torch.inference_mode(False):
        return torch.tensor(k * n / (n - 1) * found, dtype=torch.float64, device=device)


def _shift(weights):
    with torch.inference_mode(False):
        shifted = torch.zeros_like(weights)
        shifted[1:] = weights[:-1]
        return shifted


def sorted_gaps(rewards):
    """(gaps, ordered, index): x_m - x_(m-1) with 0 for m = 1, the sorted rewards and their places, each [..., N]."""
    ordered, index = rewards.sort(dim=-1)
    gaps = torch.zeros_like(ordered)
    torch.sub(ordered[..., 1:], ordered[..., :-1], out=gaps[..., 1:])
    return gaps, ordered, index


def gap_sums(rewards, weights):
    """Sum over the gaps at or below each reward of weight times gap, in the order of the rewards.

    rewards: [..., N] float64. weights: [N], weights[0] = 0. Returns [..., N] >= 0. O(N log N) time, O(N) memory.
    """
    gaps, ordered, index = sorted_gaps(rewards)
    sums = gaps.mul_(weights).cumsum_(-1)
    return ordered.scatter_(-1, index, sums)  # `ordered` is ours to overwrite


def include_sums(rewards, k):
    """P of the module's docstring, [..., N] in the order of the rewards: q_i - v = P_i - mean P."""
    return gap_sums(rewards, include_weights(rewards.shape[-1], k, rewards.device))


def added_value(rewards, k):
    """D_i = q_i - u_i for k >= 2, what sample i adds to k-1 others: [..., N] >= 0. PKPO (arXiv:2505.15201, eq 33)."""
    return gap_sums(rewards, added_weights(rewards.shape[-1], k, rewards.device))


def include_one_max(rewards, k):
    """q_i, the mean over the k-subsets that contain i of the subset's maximum, for every i; any k in 1..N.

    rewards: [..., N] float64, any order. Returns [..., N]. O(N log N) time, O(N) memory.
    Equals (N/k) times s_i of PKPO (arXiv:2505.15201, eq 27).
    """
    sums = include_sums(rewards, k)
    return sums.sub_(sums.amax(-1, keepdim=True)).add_(rewards.amax(-1, keepdim=True))


def value_and_leave_one_out(rewards, k):
    """(q_i, v_-i) for k in 1..N-1, each [..., N] float64: v_-i is the mean over the k-subsets without i of the max."""
    n = rewards.shape[-1]
    sums = include_sums(rewards, k)
    include = rewards.amax(-1, keepdim=True) - (sums.amax(-1, keepdim=True) - sums)
    return include, include - n / (n - k) * (sums - sums.mean(-1, keepdim=True))


def centre(rewards):
    """rewards - mean over the group, [..., N]; exact zeros for a constant group, accurate under a common offset."""
    offsets = rewards - rewards.amax(-1, keepdim=True)
    return offsets.sub_(offsets.mean(-1, keepdim=True))


def z_score(values):
    """(values - mean) / std with ddof 0 over the last axis; zeros where std is 0. Safe from underflow and overflow."""
    offsets = values - values.amax(-1, keepdim=True)
    span = offsets.amin(-1, keepdim=True).neg_()
    centred = centre(offsets.div_(torch.where(span > 0, span, 1.0)))
    std = numerics.sqrt(centred.square().mean(-1, keepdim=True))
    return centred.div_(torch.where(std > 0, std, 1.0))
