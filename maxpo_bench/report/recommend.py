"""Which estimator for which k, and how sure that is: computed from the trained policies' max@k ladders.

The highest estimator is picked from the data that judge it, so corrected over its own rivals alone it would be ahead of
one of its equals more often than 5%: what is said of it is corrected over all pairs of estimators, and holds whichever is
picked. Its level and its lead over the next are still those of a winner, and lean high; the report says so.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np

from maxpo_bench.measure import statistics
from maxpo_bench.report import load

LEVEL = 0.05


@dataclass
class Advice:
    """The answer for one k. k is a number, or "K": each task's own K, the one it was trained for."""

    k: int | str
    best: str | None
    level: float | None = None  # mean over tasks of max@k on the 0-1 scale
    num_tasks: int = 0
    runner_up: str | None = None
    lead: statistics.Interval | None = None  # best - runner_up, mean over tasks
    tied: list = field(default_factory=list)  # not told apart from the best (Holm over all pairs of estimators, 5%)
    worse: list = field(default_factory=list)  # behind the best beyond chance
    ahead: dict = field(default_factory=dict)  # ahead of the best beyond chance where it has results -> on how many tasks
    unjudged: dict = field(default_factory=dict)  # estimator -> why it could not be compared (too few seeds)
    partial: dict = field(default_factory=dict)  # estimator -> number of tasks it has results on, when fewer than the best
    absent: list = field(default_factory=list)  # estimators without any result
    gaps: dict = field(default_factory=dict)  # estimator -> Interval of best - estimator
    trained_k: int | None = None  # of k = "K": the number, when it is the same on every task

    @property
    def sure(self):
        if self.best is None:
            return "no answer"
        if not self.gaps:
            return "no rival"
        if len(self.worse) == len(self.gaps):
            return "clear"
        if len(self.unjudged) == len(self.gaps):
            return "too few seeds"
        if self.ahead:
            return "not on every task"
        if not self.tied:
            return "not all judged"
        return "not told apart" if not self.worse else "one of " + str(len(self.tied) + 1)


def advise(results, scale=None):
    """Advice for each task's own K and for each k that at least half of the tasks measured: a list of Advice."""
    scale = scale or load.scales(results)
    counts = {}
    for task in scale:
        for k in set().union(*(load._rungs(results.cells[task, e]) for e in results.estimators)):
            counts[k] = counts.get(k, 0) + 1
    common = sorted(k for k, n in counts.items() if 2 * n >= len(scale) and (k & (k - 1)) == 0)
    advice = [_advise(results, scale, k) for k in ("K", *common)]
    trained = {results.k(task) for task in scale}
    advice[0].trained_k = trained.pop() if len(trained) == 1 else None
    return advice


def normalised(results, scale, estimator, metric):
    """{task: {seed: value on the 0-1 scale}} of an estimator, tasks without values left out."""
    found = {}
    for task, (low, high) in scale.items():
        values = results.cells[task, estimator].values(metric)
        if values:
            found[task] = {s: (v - low) / (high - low) for s, v in values.items()}
    return found


def _advise(results, scale, k):
    values = {e: normalised(results, scale, e, "max@K" if k == "K" else k) for e in results.estimators}
    values = {e: v for e, v in values.items() if v}
    if not values:
        return Advice(k, None)
    full = max(len(v) for v in values.values())
    level = {e: np.mean([np.mean(list(s.values())) for s in v.values()]) for e, v in values.items() if len(v) == full}
    best = max(level, key=lambda e: (level[e], e))
    advice = Advice(k, best, float(level[best]), full)
    advice.partial = {e: len(v) for e, v in values.items() if len(v) < full}
    advice.absent = [e for e in results.estimators if e not in values]
    shared = {}
    for rival in values:
        if rival != best:
            pairs = {t: statistics.pair(values[best][t], values[rival][t])[0] for t in values[rival] if t in values[best]}
            shared[rival] = sum(len(p) >= statistics.MIN_PAIRS for p in pairs.values())
            advice.gaps[rival] = statistics.task_mean_interval(pairs)
    adjusted = all_pairs(values)
    behind = sorted((e for e in advice.gaps if advice.gaps[e].estimate is not None), key=lambda e: (advice.gaps[e].estimate, e))
    advice.unjudged = {e: gap.reason for e, gap in advice.gaps.items() if gap.estimate is None}
    for rival in behind:
        p = adjusted[frozenset((best, rival))]
        if p is None or p >= LEVEL:
            advice.tied.append(rival)
        elif advice.gaps[rival].estimate > 0:
            advice.worse.append(rival)
        else:
            advice.ahead[rival] = shared[rival]
    complete = [e for e in behind if e in level]
    if complete:
        advice.runner_up, advice.lead = complete[0], advice.gaps[complete[0]]
    return advice


def all_pairs(values):
    """{frozenset of two estimators: two-sided p value of their paired difference, after Holm over all pairs}.

    values: {estimator: {task: {seed: value}}}. None where there is nothing to judge by.
    """
    found = {}
    for a, b in itertools.combinations(values, 2):
        shared = [t for t in values[a] if t in values[b]]
        pairs = {t: statistics.pair(values[a][t], values[b][t])[0] for t in shared}
        found[frozenset((a, b))] = statistics.task_mean_interval(pairs).p
    return dict(zip(found, statistics.holm(found.values()), strict=True))
