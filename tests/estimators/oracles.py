"""Estimators by their definitions: exact rational arithmetic over all subsets, slow and obviously right.

Rewards are lists; every function returns Fractions. Nothing is shared with the package under test.
"""

from fractions import Fraction
from itertools import combinations
from math import comb


def mean_max(rewards, k):
    """Mean over all k-subsets of the maximum; 0 for k = 0."""
    if k == 0:
        return Fraction(0)
    subsets = list(combinations(rewards, k))
    return sum(max(subset) for subset in subsets) / Fraction(len(subsets))


def fractions(rewards):
    return [Fraction(reward) for reward in rewards]


def without(rewards, *places):
    return [reward for place, reward in enumerate(rewards) if place not in places]


def include_one(rewards, k):
    """q_i: mean over the k-subsets that contain i of the max."""
    rewards = fractions(rewards)
    return [
        sum(max((reward, *rest)) for rest in combinations(without(rewards, i), k - 1)) / Fraction(comb(len(rewards) - 1, k - 1))
        for i, reward in enumerate(rewards)
    ]


def leave_one_out(rewards, k):
    """v_-i: mean over the k-subsets without i of the max."""
    rewards = fractions(rewards)
    return [mean_max(without(rewards, i), k) for i in range(len(rewards))]


def added(rewards, k):
    """D_i = q_i - u_i, u_i the mean over the (k-1)-subsets without i of the max (0 for k = 1)."""
    rewards = fractions(rewards)
    return [q - mean_max(without(rewards, i), k - 1) for i, q in enumerate(include_one(rewards, k))]


def leave_two_out(rewards, k):
    """MaxPO as the paper defines it: k (D_i - mean over j != i of D_j in the group without i). O(N^2) values of D."""
    rewards = fractions(rewards)
    n = len(rewards)
    return [k * (d - sum(added(without(rewards, i), k)) / Fraction(n - 1)) for i, d in enumerate(added(rewards, k))]


def maxpo(rewards, k):
    """k (q_i - v_-i)."""
    return [k * (q - v) for q, v in zip(include_one(rewards, k), leave_one_out(rewards, k), strict=True)]


def maxpo_sorted(rewards, k):
    """k (q_i - v_-i) from binomial weights on the order statistics, in exact arithmetic: for N in the hundreds."""
    rewards = fractions(rewards)
    n = len(rewards)
    order = sorted(range(n), key=lambda i: rewards[i])
    ordered = [rewards[i] for i in order]
    v = sum(comb(j, k - 1) * x for j, x in enumerate(ordered)) / Fraction(comb(n, k))
    above, result = Fraction(0), [None] * n
    for j in reversed(range(n)):  # j others are below the reward of rank j
        q = (comb(j, k - 1) * ordered[j] + above) / Fraction(comb(n - 1, k - 1))
        result[order[j]] = k * Fraction(n, n - k) * (q - v)
        if j > 0 and k > 1:
            above += comb(j - 1, k - 2) * ordered[j]
    return result
