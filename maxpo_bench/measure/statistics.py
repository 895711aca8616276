"""Statistics of seeds: paired same-seed differences, Student's t intervals, Holm, and the four verdicts.

Every interval is Student's t: simulated coverage of the nominal 95% is .93 to .96 from 4 to 500 seeds, for normal, uniform,
Beta-like and skewed differences. A mean over tasks weighs each task the same, whatever its number of seeds: its variance is the sum
of the tasks' own, its degrees of freedom are Satterthwaite's. (An interquartile mean over pooled runs would weigh the tasks by
their seeds, 500 of a bandit against 16 of a language model, and is not used.)

A family of comparisons gets four verdicts, for a margin within which a difference does not matter:
    equivalent    the whole interval lies inside -margin..margin
    supported     the whole interval lies above 0
    contradicted  the whole interval lies below 0
    undecided     none of these; with the number of seeds that would decide it
in this order, so that a difference that is sure but too small to matter is called equivalent. The intervals are those of level .05
over the number of comparisons in the family, in Holm's way: a comparison about which all is known (its interval lies beyond the
margin, or inside it and away from 0) cannot be judged falsely any more, leaves the family, and the others are judged again.
Holm's procedure on the smallest of a comparison's p values would not do: of eight rivals that are equal, those rightly
called equivalent would lower the bar for calling the others different (simulated, 9% of families hold a false verdict;
as above at most 5%).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

SIZE = 0.95
LEVEL = 0.05
MIN_PAIRS = 3  # fewer: no interval, said in words
POWER = 0.8  # of the number of seeds that would decide an undecided comparison
VERDICTS = ("supported", "contradicted", "equivalent", "undecided")


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95% interval; low and high are None when there is none, and reason says why."""

    estimate: float | None
    low: float | None
    high: float | None
    num_pairs: int  # values (pairs) behind it
    p: float | None = None  # two-sided p value of "the estimate is 0"
    error: float | None = None  # standard error
    dof: float | None = None  # its degrees of freedom
    reason: str = ""

    def at(self, level):
        """(low, high) of the interval that misses the truth with probability `level`; error must be known."""
        half = float(stats.t.ppf(1 - level / 2, self.dof)) * self.error
        return self.estimate - half, self.estimate + half


def _interval(estimate, error, dof, num_pairs):
    half = float(stats.t.ppf((1 + SIZE) / 2, dof)) * error
    p = float(2 * stats.t.sf(abs(estimate) / error, dof))
    return Interval(float(estimate), float(estimate - half), float(estimate + half), num_pairs, p, float(error), float(dof))


def from_bounds(estimate, low, high, num_pairs=0):
    """An Interval of a normal estimate whose 95% bounds are known (a bootstrap's, say); bounds need not be symmetric."""
    error = (high - low) / (2 * stats.norm.ppf((1 + SIZE) / 2))
    return Interval(estimate, low, high, num_pairs, float(2 * stats.norm.sf(abs(estimate) / error)), error, math.inf)


def pair(first, second):
    """Differences first - second over the seeds both have: (differences [P], seeds [P]). NaN and infinite pairs are left out.

    first, second: {seed: value}. Pairs are matched by seed, never by position.
    """
    seeds = [s for s in sorted(set(first) & set(second)) if math.isfinite(first[s]) and math.isfinite(second[s])]
    return np.array([first[s] - second[s] for s in seeds], dtype=np.float64), seeds


def mean_interval(values):
    """Mean of one sample with its 95% interval. values: [n] (paired differences).

    No interval, and a reason, below 3 values or when all values are the same number.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    estimate = float(values.mean()) if n else None
    if n < MIN_PAIRS:
        return Interval(estimate, None, None, n, reason=f"{n} of the {MIN_PAIRS} seeds needed for an interval")
    if _constant(values):
        return Interval(estimate, None, None, n, reason=f"the same value on all {n} seeds: no spread to judge by")
    return _interval(estimate, values.std(ddof=1) / math.sqrt(n), n - 1, n)


def _constant(values):
    return np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max()))  # rounding is no spread


def task_mean_interval(by_task):
    """Mean over tasks (each weighs the same) of the mean over seeds, with its 95% interval; the tasks are fixed.

    by_task: {task: [num_seeds]}, lengths may differ. No interval, and a reason, when a task has fewer than 3 values: leaving
    it out would answer another question.
    """
    tasks = {t: np.asarray(v, dtype=np.float64) for t, v in by_task.items()}
    tasks = {t: v[np.isfinite(v)] for t, v in tasks.items()}
    num_pairs = sum(map(len, tasks.values()))
    if not tasks or not all(map(len, tasks.values())):
        return Interval(
            None, None, None, num_pairs, reason="no task with results of both" if not num_pairs else "a task without results"
        )
    estimate = float(np.mean([v.mean() for v in tasks.values()]))
    short = sorted(str(t) for t, v in tasks.items() if len(v) < MIN_PAIRS)
    if short:
        return Interval(estimate, None, None, num_pairs, reason=f"fewer than {MIN_PAIRS} seeds on {', '.join(short)}")
    parts = np.array([0.0 if _constant(v) else v.var(ddof=1) / len(v) for v in tasks.values()]) / len(tasks) ** 2
    if parts.sum() <= 0:
        reason = "the same value on all seeds of every task: no spread to judge by"
        return Interval(estimate, None, None, num_pairs, reason=reason)
    dof = parts.sum() ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, tasks.values(), strict=True))
    return _interval(estimate, math.sqrt(parts.sum()), dof, num_pairs)


def holm(p_values):
    """Holm's step-down adjusted p values, in the order given; None stays None and does not count."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted, worst = [None] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        worst = max(worst, min(1.0, p * (len(known) - rank)))
        adjusted[i] = worst
    return adjusted


def decide(intervals, margin):
    """The verdict on every comparison of a family: a list of (verdict, level).

    intervals: list of Interval, positive where the claim holds; those without an error are undecided and do not count in the
    family. margin: differences inside ±margin do not matter. level: at which the comparison was judged, None without an
    error. See the head of this file for the verdicts and for what takes a comparison out of the family.
    """
    found = [("undecided", None)] * len(intervals)
    left = [i for i, interval in enumerate(intervals) if interval.error]
    while left:
        level, settled = LEVEL / len(left), []
        for i in left:
            low, high = intervals[i].at(level)
            inside, sure = -margin < low and high < margin, low > 0 or high < 0
            verdict = "equivalent" if inside else "undecided" if not sure else "supported" if low > 0 else "contradicted"
            found[i] = (verdict, level)
            if (inside and sure) or low >= margin or high <= -margin:
                settled.append(i)
        if not settled:
            break
        left = [i for i in left if i not in settled]
    return found


def seeds_factor(interval, margin, level):
    """How many times as many seeds would decide a comparison with probability .8, were its estimate and spread the truth.

    Whichever needs fewer: to leave out 0, or to lie inside ±margin. Never below 1.
    """
    gap, factor = max(abs(interval.estimate), margin - abs(interval.estimate)), 1.0
    for _ in range(30):  # the quantile of t depends on the seeds that it says are needed
        quantile = stats.t.ppf(1 - level / 2, interval.dof * max(factor, 1.0)) + stats.norm.ppf(POWER)
        factor = float((quantile * interval.error / gap) ** 2)
    return max(1.0, factor)
