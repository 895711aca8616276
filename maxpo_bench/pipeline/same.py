"""Is a rerun the same as what is published? The tests behind `compare` where bytes differ. Imports no torch.

A published run and its rerun share a seed's prompts and start states and little else once rounding has sent them apart: two
samples, sometimes paired closely (cartpole), often not at all (language), with 3 to 300 seeds and values that may sit on two
points (the maze). Chosen by simulation: false alarms in 200 comparisons of 82 cells drawn twice from the stored results of the
seeds (drawn together or apart for the estimators of a task, smoothed, normal; the worst of them), max@K alone, Holm at 5%:
    seeds     paired t   Welch   Welch, pooled   this one
    3            44        69         12            11
    4 and 10     15        30          5             8
    16           11        12          4             7
    4 and 300    15        23          8             8
Paired t and Welch fail for the same reason: a few seeds that happen to agree make an error near 0. `difference` mends just
that, and is the only one of the two calibrated tests that gains from seeds that do pair.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from maxpo_bench.measure.statistics import holm

MIN_PUBLISHED = 3  # published seeds a spread can be taken from
PRIOR = 2  # what the spread of unrelated runs weighs, in seeds
SAME = 1e-6  # relative; a smaller difference is none
HALF_95 = -float(special.ndtri(0.025))  # standard errors in half a 95% interval


@dataclass(frozen=True)
class Finding:
    """One question of a family: a cell, an estimator over its tasks, a task over its estimators, or all cells."""

    what: str
    metric: str
    p: float  # adjusted for the whole family (Holm)
    sign: int  # of here - published
    num_seeds: int  # 0 where tasks of other scales are added up
    gap: float | None = None  # here - published, in the task's rewards; None where tasks are added up
    low: float | None = None  # its 95% interval, for this question alone
    high: float | None = None


def _variance(values):
    """Unbiased variance of two or more numbers; plain Python, since most samples are a few seeds."""
    mean = sum(values) / len(values)
    return sum((x - mean) ** 2 for x in values) / (len(values) - 1)


def spread(old, new):
    """Variance of the difference of two unrelated runs: that of all published values plus that of the new ones."""
    first = _variance(old.values())
    return first + (_variance(new.values()) if len(new) >= MIN_PUBLISHED else first)


def difference(old, new, pooled=None):
    """(mean of new - old over the seeds of both, its standard error, degrees of freedom, number of seeds S).

    old, new: {seed: value}, old with at least 3. The variance is that of the S paired differences, and counts beside it, as
    if PRIOR more seeds had it, that of unrelated runs: of this cell or of its task's cells on average (pooled), the larger.
    Only a pooled variance adds degrees of freedom.
    """
    seeds = sorted(set(old) & set(new))
    nothing = SAME * max(1e-6, *map(abs, old.values()))
    gaps = [new[s] - old[s] if abs(new[s] - old[s]) > nothing else 0.0 for s in seeds]
    paired, prior = _variance(gaps) if len(gaps) > 1 else 0.0, max(spread(old, new), pooled or 0.0)
    variance = ((len(gaps) - 1) * paired + PRIOR * prior) / (len(gaps) - 1 + PRIOR)
    dof = max(1, len(gaps) - 1 + (0 if pooled is None else PRIOR))
    return sum(gaps) / len(gaps), math.sqrt(variance / len(gaps)), dof, len(gaps)


def judge(by_metric):
    """Findings of one family, in no order; a difference is real where p is below the family's error rate.

    by_metric: {metric: {(task, estimator): (old, new)}}, each {seed: value}, finite, old with at least 3 seeds and one in new.
    """
    questions = [question for metric, cells in by_metric.items() for question in _questions(metric, cells)]
    adjusted = holm([p for _, _, p, _ in questions])
    found = []
    for (what, metric, _, detail), p in zip(questions, adjusted, strict=True):
        if isinstance(detail, float):
            found.append(Finding(what, metric, p, int(np.sign(detail)), 0))
            continue
        gap, error, dof, count = detail
        half = float(special.stdtrit(dof, 0.975)) * error
        found.append(Finding(what, metric, p, int(np.sign(gap)), count, gap, gap - half, gap + half))
    return found


def _questions(metric, cells):
    """(what, metric, p, difference or summed normal score) for each cell of a metric and each way to add cells up."""
    tasks = list(dict.fromkeys(t for t, _ in cells))
    of_task = {t: {e: pair for (u, e), pair in cells.items() if u == t} for t in tasks}
    pooled = {t: float(np.mean([spread(*pair) for pair in pairs.values()])) for t, pairs in of_task.items()}
    single = {(t, e): difference(*pair, pooled[t]) for (t, e), pair in cells.items()}
    p = dict(zip(single, _p_values(single.values()), strict=True))
    yield from ((f"{t}, {e}", metric, p[t, e], single[t, e]) for t, e in single)
    for estimator in dict.fromkeys(e for _, e in cells):
        own = [(p[key], single[key][0]) for key in cells if key[1] == estimator]
        if len(own) > 1:
            yield f"{estimator} over {len(own)} tasks", metric, *_stouffer(own)
    # The estimators of a task share their random numbers, so their p values cannot be added up; their mean by seed can be tested.
    means = {t: _mean_over_estimators(pairs) for t, pairs in of_task.items()}
    whole = {t: difference(*pair) for t, pair in means.items() if len(pair[0]) >= MIN_PUBLISHED and set(pair[0]) & set(pair[1])}
    whole_p = dict(zip(whole, _p_values(whole.values()), strict=True))
    yield from ((f"{t} over {len(of_task[t])} estimators", metric, whole_p[t], whole[t]) for t in whole if len(of_task[t]) > 1)
    if len(whole) > 1:
        yield f"all over {len(whole)} tasks", metric, *_stouffer([(whole_p[t], whole[t][0]) for t in whole])


def _mean_over_estimators(pairs):
    """(old, new) of a task's mean over its estimators, {seed: value} for the seeds that all of them have."""
    return tuple(
        {s: sum(side[s] for side in sides) / len(sides) for s in set.intersection(*map(set, sides))}
        for sides in zip(*pairs.values(), strict=True)
    )


def _p_values(differences):
    """Two-sided p values [n] of differences; without any spread, the smallest that swapping the labels of 2 S runs can give."""
    gap, error, dof, count = np.array(list(differences), dtype=np.float64).reshape(-1, 4).T
    flat = error <= 1e-12 * np.maximum(1, np.abs(gap))
    p = 2 * special.stdtr(dof, -np.abs(gap) / np.where(flat, 1, error))
    return np.where(gap == 0, 1.0, np.where(flat, np.minimum(1, 2 / special.comb(2 * count, count)), p)).tolist()


def _stouffer(own):
    """(p, normal score) of independent tests [(two-sided p, signed difference)] added up; scales of reward drop out."""
    score = sum(math.copysign(special.ndtri(max(p, 1e-300) / 2), gap) for p, gap in own) / math.sqrt(len(own))
    return float(2 * special.ndtr(-abs(score))), float(score)


def interval_columns(columns):
    """[(value, low, high)] column names of a table whose intervals stand right after the value: x, [x_]low, [x_]high."""
    columns = list(columns)
    found = []
    for i, name in enumerate(columns[1:-1], 1):
        if name.endswith("low") and columns[i + 1] == name.removesuffix("low") + "high":
            found.append((columns[i - 1], name, columns[i + 1]))
    return found


def interval_p_values(old, new):
    """p values [n] of "the two estimates are of the same number" from their 95% intervals; NaN where one has none.

    old, new: arrays [n, 3] of value, low, high. The halves of the intervals that face each other are taken for the errors
    (MOVER: Zou and Donner 2008), so bounds may be lopsided. Where both halves are 0, equal to 1e-6 is 1, anything else 0.
    """
    gap = new[:, 0] - old[:, 0]
    up = gap > 0
    facing_old = np.where(up, old[:, 2] - old[:, 0], old[:, 0] - old[:, 1])
    facing_new = np.where(up, new[:, 0] - new[:, 1], new[:, 2] - new[:, 0])
    error = np.hypot(facing_old, facing_new) / HALF_95
    same = np.abs(gap) <= SAME * np.maximum(np.abs(old[:, 0]), 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * special.ndtr(-np.abs(gap) / error)
    return np.where(np.isnan(error), np.nan, np.where(same, 1.0, p))


def relative_differences(old, new):
    """|new - old| / |old| [n], a value below a millionth of the largest counting as that much; inf where one side is NaN."""
    scale = np.nanmax(np.abs(old), initial=0.0, where=~np.isnan(old))
    gaps = np.abs(new - old) / np.maximum(np.abs(old), max(1e-6 * scale, 1e-300))
    gaps = np.where(new == old, 0.0, gaps)
    return np.where(np.isnan(old) & np.isnan(new), 0.0, np.where(np.isnan(old) | np.isnan(new), np.inf, gaps))
