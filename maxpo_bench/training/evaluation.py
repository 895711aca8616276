"""Unbiased pass@k and max@k from n samples per prompt: the ladders of the report.

Drawing k of the n with replacement (a bootstrap) is biased low; these are the means over all k-subsets, in closed form.
"""

import numpy as np
from scipy.special import gammaln


def _log_choose(n, k):
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def max_at_k(rewards, k):
    """Mean over all k-subsets of the n samples of the subset's largest reward: unbiased for E[max of k].

    rewards: array [..., n]. Returns [...] float64. Needs 1 <= k <= n (ValueError otherwise).
    The i-th smallest of n is the maximum of C(i-1, k-1) of the C(n, k) subsets.
    """
    rewards = np.sort(np.asarray(rewards, dtype=np.float64), axis=-1)
    n = rewards.shape[-1]
    if not 1 <= k <= n:
        raise ValueError(f"max@k needs 1 <= k <= n, got k={k} with n={n} samples")
    rank = np.arange(k, n + 1)  # ranks below k are never the maximum
    weights = np.exp(_log_choose(rank - 1, k - 1) - _log_choose(n, k))
    return rewards[..., k - 1 :] @ (weights / weights.sum())


def pass_at_k(successes, n, k):
    """1 - C(n - c, k) / C(n, k): the chance that k of the n samples hold a success (Chen et al. 2021, arXiv:2107.03374).

    successes: number c of successes among the n, array [...] of ints. Returns [...] float64.
    """
    successes = np.asarray(successes)
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n, got k={k} with n={n} samples")
    failures = n - successes
    with np.errstate(invalid="ignore", divide="ignore"):
        log_miss = _log_choose(failures, k) - _log_choose(n, k)
    return np.where(failures >= k, -np.expm1(np.minimum(log_miss, 0.0)), 1.0)


def rungs(n):
    """The k of a ladder over n samples: 1, 2, 4, ... up to n/2, at most 32 (beyond n/2 the estimate is nearly one draw)."""
    return [k for k in (1, 2, 4, 8, 16, 32) if k <= max(1, n // 2)]


def ladder(rewards, success, ks):
    """pass@k and max@k for each k. rewards [S, P, n]: S seeds, P prompts, n samples. Returns two dicts k -> [S] arrays.

    success: a sample passes when its reward is at least this (less 1e-9, so that sums of decimals count).
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    passed = (rewards >= success - 1e-9).sum(axis=-1)
    n = rewards.shape[-1]
    passes = {k: pass_at_k(passed, n, k).mean(axis=-1) for k in ks}
    maxima = {k: max_at_k(rewards, k).mean(axis=-1) for k in ks}
    return passes, maxima
