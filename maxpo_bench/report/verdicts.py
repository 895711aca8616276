"""Claims of claims.yaml judged from the results: a verdict for each measure, rival and aggregate of tasks.

Every effect is turned so that above 0 (a ratio: above 1) favours the method. A claim is a family: its rivals x aggregates are
judged together by statistics.decide. The same family is judged again on other views of the same runs (half of the steps, area under
the curve; every estimator at its own best learning rate, over the swept tasks; for the variance the initial and the final
policies): a decided verdict that is decided otherwise there `flips`. Whether it depends on the protocol of learning rates is seen
on the swept tasks alone, at the shared rate and at everybody's own best.
"""

import itertools
import math

import numpy as np
import pandas as pd

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.measure import statistics
from maxpo_bench.report import load

PROTOCOLS = ("shared rate, swept tasks", "own best rates, swept tasks")
TRAINED = ("after training", "at half of the steps", "area under the curve", *PROTOCOLS)
VIEWS = {  # measure -> the view that is judged, and those beside it
    "max@K": TRAINED,
    "pass@1": TRAINED,
    "gradient variance": ("all policies", "initial policy", "final policy"),
    "time": ("a step",),
}
RATIOS = ("gradient variance", "time")  # judged as logarithms, shown as rival / method
NOT_APPLICABLE = "not applicable"


def judge(results, declared):
    """(verdicts, by_task, properties), three DataFrames. declared: claims.yaml as settings.claims.read gives it.

    verdicts: a row for each claim, rival and aggregate: verdict, effect, low, high (95%, for this comparison alone), num_pairs,
    tasks, mostly (the task that more than half of the effect comes from), seeds_factor (undecided: how many times the seeds it
    would take), the verdict of each other view, flips, reason; where learning rates were swept, effect and interval under both
    PROTOCOLS, and whether the verdict `depends` on them.
    by_task: intervals on single tasks, without verdict. properties: true or false by enumeration.
    """
    rows, singles = [], []
    for claim in declared["claims"]:
        views = compare(results, declared["method"], claim)
        found = {view: _family(results, claim, per_task) for view, per_task in views.items()}
        main, *others = VIEWS[claim["measure"]]
        for key, row in found[main].items():
            for view in others:
                other = found[view].get(key, {"verdict": ""})
                row[view] = other["verdict"]
                if view in PROTOCOLS:
                    row |= {f"{view}: {column}": other.get(column) for column in ("effect", "low", "high")}
            decided = {row[view] for view in others if view not in PROTOCOLS} - {"", "undecided", row["verdict"]}
            row["flips"] = bool(decided) and row["verdict"] != "undecided"
            row["depends"] = len({row.get(view, "") for view in PROTOCOLS}) > 1
            rows.append(row)
        for (rival, task), value in views[main].items():
            if not isinstance(value, str):
                interval = value if isinstance(value, statistics.Interval) else statistics.mean_interval(value)
                singles.append(_shown(claim, rival, interval) | {"task": task, "reason": interval.reason})
    return pd.DataFrame(rows), pd.DataFrame(singles), properties(results, declared)


def _shown(claim, rival, interval):
    """What every row says of a comparison: ratios as ratios."""
    back = math.exp if claim["measure"] in RATIOS else float
    effect, low, high = (None if v is None else back(v) for v in (interval.estimate, interval.low, interval.high))
    row = {"claim": claim["id"], "measure": claim["measure"], "rival": rival, "effect": effect, "low": low, "high": high}
    return row | {"num_pairs": interval.num_pairs}


def _family(results, claim, per_task):
    """{(rival, aggregate): row} of one view of a claim. per_task: {(rival, task): differences, an Interval, or why there is
    none}."""
    whole = results.tasks_of("all")
    groups = {a: results.tasks_of(a) for a in load.AGGREGATES}
    groups = {a: tasks for a, tasks in groups.items() if tasks and (a == "all" or tasks != whole)}
    intervals, rows = {}, {}
    for rival, (aggregate, group) in itertools.product(dict.fromkeys(rival for rival, _ in per_task), groups.items()):
        found = {t: per_task[rival, t] for t in group if (rival, t) in per_task}
        left_out = [t for t, why in found.items() if isinstance(why, str) and why == NOT_APPLICABLE]
        absent = {t: why for t, why in found.items() if isinstance(why, str) and t not in left_out}
        if len(left_out) == len(found):
            continue
        known = {t: value for t, value in found.items() if not isinstance(value, str)}
        interval = _mean(known)
        said = [f"{why} ({', '.join(t for t in absent if absent[t] == why)})" for why in dict.fromkeys(absent.values())]
        said += [interval.reason] * bool(interval.reason and not absent)
        said += [f"not applicable to {', '.join(left_out)}"] * bool(left_out)
        row = _shown(claim, rival, interval) | {"margin": claim["margin"], "aggregate": aggregate, "num_tasks": len(known)}
        rows[rival, aggregate] = row | {"left_out": len(left_out), "mostly": _mostly(known), "reason": "; ".join(said)}
        intervals[rival, aggregate] = statistics.Interval(None, None, None, 0) if absent else interval  # tasks are fixed
    margin = math.log1p(claim["margin"]) if claim["measure"] in RATIOS else claim["margin"]
    for key, (verdict, level) in zip(intervals, statistics.decide(list(intervals.values()), margin), strict=True):
        row, interval = rows[key], intervals[key]
        row["verdict"] = verdict
        row["seeds_factor"] = statistics.seeds_factor(interval, margin, level) if verdict == "undecided" and level else None
        if verdict == "undecided" and not row["reason"] and (interval.low > 0 or interval.high < 0):
            row["reason"] = f"not beyond chance among the {len(rows)} comparisons of this claim (Holm)"
    return rows


def _mostly(found):
    """The task that more than half of the mean over several tasks comes from, or ""."""
    parts = {task: part.estimate if isinstance(part, statistics.Interval) else np.mean(part) for task, part in found.items()}
    total = sum(parts.values())
    task = max(parts, key=lambda task: parts[task] * np.sign(total), default="")
    return task if len(parts) > 1 and parts[task] * np.sign(total) > abs(total) / 2 else ""


def _mean(found):
    """The Interval of the mean over tasks, each weighing the same."""
    if not found or not isinstance(next(iter(found.values())), statistics.Interval):
        return statistics.task_mean_interval(found)
    parts = list(found.values())
    if not all(part.error for part in parts):
        return statistics.Interval(float(np.mean([p.estimate for p in parts])), None, None, 0, reason="no interval on some task")
    error = math.sqrt(sum(p.error**2 for p in parts)) / len(parts)
    estimate = float(np.mean([p.estimate for p in parts]))
    half = statistics.stats.norm.ppf((1 + statistics.SIZE) / 2) * error
    return statistics.from_bounds(estimate, estimate - half, estimate + half, sum(p.num_pairs for p in parts))


def compare(results, method, claim):
    """{view: {(rival, task): paired differences [P], an Interval of a log ratio, or the words why there is neither}}."""
    measure, against = claim["measure"], claim["against"]
    if measure == "gradient variance":
        ratios = {
            view: _log_ratios(results.variance, "ratio_to_maxpo", "ratio_low", "ratio_high", checkpoint)
            for view, checkpoint in zip(VIEWS[measure], (None, "initial", "final"), strict=True)
        }
    elif measure == "time":
        ratios = {"a step": _log_ratios(results.studies.get("step_time", pd.DataFrame()), "ratio", "low", "high")}
    else:
        return _trained(results, method, measure, _rivals(results, method, against, results.estimators))
    known = list(dict.fromkeys(rival for found in ratios.values() for rival, _ in found))
    rivals = _rivals(results, method, against, known)
    timed = {t for found in ratios.values() for _, t in found}
    tasks = [t for t in results.tasks if measure != "time" or t in timed]  # one task of each kind is timed, all are measured
    return {v: {(r, t): found.get((r, t), "not measured") for r in rivals for t in tasks} for v, found in ratios.items()}


def _rivals(results, method, against, same_gradient):
    names = {"default": results.estimators, "same gradient": same_gradient}[against] if isinstance(against, str) else against
    return [e for e in names if e != method]


def _log_ratios(table, ratio, low, high, checkpoint=None):
    """{(estimator, task): Interval of log(its value / the method's)}, the mean over the rows (policies) of a task."""
    if not {"task", "estimator", ratio, low, high} <= set(table):
        return {}
    table = table[(table[ratio] > 0) & (table[low] > 0) & (table[high] > table[low])]
    if checkpoint is not None:
        table = table[table["checkpoint"].astype(str).str.startswith(checkpoint)]
    found = {}
    for (task, estimator), rows in table.groupby(["task", "estimator"], sort=False):
        groups = rows["num_groups"] if "num_groups" in rows else [0] * len(rows)
        parts = [
            statistics.from_bounds(*(math.log(v) for v in values), int(n))
            for *values, n in zip(rows[ratio], rows[low], rows[high], groups, strict=True)
        ]
        found[estimator, task] = _mean(dict(enumerate(parts)))
    return found


def _trained(results, method, measure, rivals):
    """The views of a measure after training. A task is "not applicable" where either estimator refuses its rewards."""
    scale = load.scales(results) if measure == "max@K" else {}
    swept = {task for task, _ in results.own_best}
    after = {key: cell.values(measure) for key, cell in results.cells.items()}
    shared, half, area = {key: found for key, found in after.items() if key[0] in swept}, {}, {}
    own_best = shared | {
        key: cell.values(measure) for key, cell in results.own_best.items()
    }  # no cell: the shared rate is its best
    for key, rows in results.curves.groupby(["task", "estimator"], sort=False):
        wide = rows.pivot(index="seed", columns="step", values=load.METRICS[measure]).dropna()
        if len(wide) and len(wide.columns) > 2:  # first and last only: no half, and an area of nothing in between
            steps = wide.columns.to_numpy(float)
            middle = steps[0] + (steps[-1] - steps[0]) / 2
            half[key] = {s: float(np.interp(middle, steps, level)) for s, level in zip(wide.index, wide.to_numpy(), strict=True)}
            areas = np.trapezoid(wide.to_numpy(), steps, axis=1) / (steps[-1] - steps[0])
            area[key] = dict(zip(wide.index, areas.tolist(), strict=True))
    found = {view: {} for view in VIEWS[measure]}
    for (view, known), rival, task in itertools.product(
        zip(VIEWS[measure], (after, half, area, shared, own_best), strict=True), rivals, results.tasks
    ):
        if view not in PROTOCOLS or task in swept:
            cells = [results.cells.get((task, e), load.Cell(task, e, "missing")) for e in (method, rival)]
            differences, _ = statistics.pair(*(known.get((task, c.estimator), {}) for c in cells))
            low, high = scale.get(task, (0.0, 1.0))
            found[view][rival, task] = differences / (high - low) if len(differences) else _why(cells)
    return found


def _why(cells):
    """Why two cells have no seed in common, in words."""
    if any(c.status == "not_applicable" for c in cells):
        return NOT_APPLICABLE
    return ", ".join(f"{c.estimator}: {c.status}" for c in cells if not c.usable) or "no seed in common"


def properties(results, declared):
    """The `properties` of claims.yaml, true or false by enumeration: a DataFrame of id, statement, verdict, found, source."""
    table, rows = results.studies.get("properties", pd.DataFrame()), []
    mine = table[table["estimator"] == declared["method"]] if "estimator" in table else table
    for claim in declared["properties"]:
        column = claim["column"]
        if len(mine) and column not in mine:
            where = f"claims.yaml: properties: {claim['id']}: column: results/studies/properties.csv"
            raise InputError(f"{where} has no {column!r}{did_you_mean(column, list(table))}")
        found = str(mine[column].iloc[0]) if len(mine) else None
        verdict = "undecided" if found is None else "supported" if found == claim["is"] else "contradicted"
        rows.append({"claim": claim["id"], "verdict": verdict, "found": found} | {k: claim[k] for k in ("statement", "source")})
    return pd.DataFrame(rows, columns=["claim", "statement", "verdict", "found", "source"])
