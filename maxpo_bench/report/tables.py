"""Tables of the report as DataFrames: each is written as CSV, and is what the figure of the same name draws."""

import math

import numpy as np
import pandas as pd

from maxpo_bench.measure import statistics
from maxpo_bench.report import load
from maxpo_bench.studies.learning_rate import at_the_edge, best_rates, shared_rate
from maxpo_bench.studies.style import REFERENCE

TRAINING_PHASES = ("sample", "reward", "advantage", "update")
PHASES = (*TRAINING_PHASES, "evaluate")


def cells(results):
    """One row per declared cell: status, reason, seeds, final metrics with 95% intervals over seeds."""
    rows = []
    for (task, estimator), cell in results.cells.items():
        row = {"task": task, "estimator": estimator, "status": cell.status, "reason": cell.reason}
        row |= {"k": results.setting(task, "k"), "group_size": results.setting(task, "group_size")}
        row["num_seeds"] = len(cell.values("max@K"))
        for metric in load.METRICS:
            found = statistics.mean_interval(list(cell.values(metric).values()))
            low, high = found.low, found.high
            if metric.startswith("pass") and low is not None:  # Student's t knows no bounds, a probability has them
                low, high = max(low, 0.0), min(high, 1.0)
            row |= {metric: found.estimate, f"{metric} low": low, f"{metric} high": high}
        row["verifier_errors"] = cell.metrics.get("verifier_errors")
        rows.append(row)
    return pd.DataFrame(rows)


def overall(results, scale):
    """Per estimator the mean over its tasks of max@K and pass@1 after training, on the 0-1 scale, with 95% intervals."""
    rows = []
    for estimator in results.estimators:
        values = {m: {t: np.array([*results.cells[t, estimator].values(m).values()]) for t in scale} for m in ("max@K", "pass@1")}
        found = {m: {t: v for t, v in by.items() if len(v)} for m, by in values.items()}
        found["max@K"] = {t: (v - scale[t][0]) / (scale[t][1] - scale[t][0]) for t, v in found["max@K"].items()}
        best, one = (statistics.task_mean_interval(by) for by in found.values())
        row = {"estimator": estimator, "num_tasks": len(found["max@K"]), "num_runs": best.num_pairs, "mean": best.estimate}
        row |= {"low": best.low, "high": best.high}
        rows.append(row | {"pass@1": one.estimate, "pass@1 low": one.low, "pass@1 high": one.high})
    table = pd.DataFrame(rows)
    order = table[["num_tasks", "mean"]].astype(float).round(9).fillna(-math.inf)  # equal but for rounding: in the declared order
    return table.loc[order.sort_values(["num_tasks", "mean"], ascending=False, kind="stable").index]


def bands(groups, probability=False):
    """Mean and 95% t interval of every group at once; none below 3 values or without spread. A probability's ends at 0 and 1."""
    from scipy.stats import t

    mean, spread, n = groups.mean(), groups.std(ddof=1), groups.count()
    half = t.ppf((1 + statistics.SIZE) / 2, (n - 1).clip(lower=1)) * spread / np.sqrt(n.clip(lower=1))
    half = half.where((n >= statistics.MIN_PAIRS) & (spread > 1e-9))
    low, high = mean - half, mean + half
    return (mean, low.clip(lower=0.0), high.clip(upper=1.0)) if probability else (mean, low, high)


def _with_gaps(table, keys, columns, probabilities, method):
    """Mean over seeds of every column and of its paired difference to the method's ("_gap"), with 95% intervals, by keys."""
    match = [c for c in keys if c != "estimator"] + ["seed"]
    mine = table.loc[table["estimator"] == method, [*match, *columns]]
    joined = table.merge(mine, on=match, how="left", suffixes=("", "_mine"))
    joined = joined.assign(**{f"{c}_gap": joined[c] - joined[f"{c}_mine"] for c in columns})
    groups = joined.groupby(keys, sort=False)
    found = groups.size().rename("num_seeds").to_frame()
    for c in columns:
        for column, probability in ((c, c in probabilities), (f"{c}_gap", False)):
            found[column], found[f"{column}_low"], found[f"{column}_high"] = bands(groups[column], probability)
    return found.reset_index()


def curves(results, method=REFERENCE):
    """max@K and pass@1 along training, per task, estimator and evaluation; see _with_gaps."""
    return _with_gaps(results.curves, ["task", "estimator", "step", "samples"], ["max_at_k", "pass_at_1"], ["pass_at_1"], method)


def ladders(results, method=REFERENCE):
    """max@k and pass@k against k, per task, estimator and step; when: "before" training or "after"; see _with_gaps."""
    table = results.ladders.rename(columns={"max": "max_at_k", "pass": "pass_at_k"})
    table = _with_gaps(table, ["task", "estimator", "step", "k"], ["max_at_k", "pass_at_k"], ["pass_at_k"], method)
    return table.assign(when=np.where(table["step"] == 0, "before", "after"))


def wide_curves(table, results, scale, num_points=5):
    """For `dvc plots`: mean of max@K on the 0-1 scale against the share of training done, a column for every estimator.

    table: that of `curves`. Over the tasks on which all estimators with any results have them, so that the columns compare.
    """
    grid, lines = np.linspace(0, 1, num_points), {}
    table = table.dropna(subset=["max_at_k"]).sort_values("step", kind="stable")
    for (task, estimator), part in table.groupby(["task", "estimator"], sort=False):
        if task in scale and len(part) > 1 and part["step"].max() > 0:
            low, high = scale[task]
            level = np.interp(grid, part["step"] / part["step"].max(), (part["max_at_k"] - low) / (high - low))
            lines.setdefault(estimator, {})[task] = level
    shared = [t for t in scale if all(t in found for found in lines.values())]
    none = np.full(num_points, np.nan)
    means = {e: np.mean([lines[e][t] for t in shared], axis=0) if e in lines and shared else none for e in results.estimators}
    return pd.DataFrame({"share_of_training": grid, **means})


def collapse(results, scale):
    """What training did to the policy's variety, a row per measure, estimator and task and one for the mean of the tasks.

    Entropy and distinct answers: after / before. max@k for the largest k drawn, at least 4 K: after - before, scale 0 to 1.
    With 95% intervals over seeds.
    """
    found, curves, ladders = {}, results.curves, results.ladders
    for measure, columns in (("entropy", ("entropy", "table_entropy")), ("distinct answers", ("distinct", "distinct_answers"))):
        first, second = (curves[c] if c in curves else pd.Series(np.nan, curves.index) for c in columns)
        ends = _ends(curves.assign(value=first.fillna(second).astype(float)))
        found[measure] = (ends["last"] / ends["first"])[ends["first"] > 0]
    least = ladders["task"].map({t: 4 * (results.setting(t, "k") or math.inf) for t in results.tasks})
    far = ladders["k"] == ladders.groupby(["task", "estimator"])["k"].transform("max")
    ends = _ends(ladders[far & (ladders["k"] >= least)].rename(columns={"max": "value"}))
    widths = {t: high - low for t, (low, high) in scale.items()}
    width = np.array([widths.get(t, np.nan) for t in ends.index.get_level_values("task")], dtype=float)
    found["max@k far above K"] = (ends["last"] - ends["first"]) / width
    rows = []
    for measure, values in found.items():
        groups = {key: group.to_numpy(float) for key, group in values.groupby(level=["estimator", "task"], sort=False)}
        for estimator in results.estimators:
            by_task = {t: groups[estimator, t] for t in scale if (estimator, t) in groups}
            intervals = {t: statistics.mean_interval(v) for t, v in by_task.items()}
            intervals |= {"mean of tasks": statistics.task_mean_interval(by_task)} if by_task else {}
            for task, part in intervals.items():
                rows.append([measure, estimator, task, part.estimate, part.low, part.high, part.num_pairs, len(by_task)])
    return pd.DataFrame(rows, columns=["measure", "estimator", "task", "value", "low", "high", "num_seeds", "num_tasks"])


def _ends(table):
    """The `value` at the first and the last step: columns first, last by task, estimator and seed, of the seeds that have both."""
    steps = table.groupby(["task", "estimator"])["step"]
    first, last = (
        table[table["step"] == steps.transform(end)].set_index(["task", "estimator", "seed"])["value"] for end in ("min", "max")
    )
    return pd.DataFrame({"first": first, "last": last.reindex(first.index)}).astype(float).dropna()


def variance(results):
    """Gradient variance over the method's and SNR by task, checkpoint and estimator, averaged over policies of a checkpoint."""
    keys = ["task", "checkpoint", "estimator"]
    numbers = ["ratio_to_maxpo", "ratio_low", "ratio_high", "snr", "snr_low", "snr_high"]
    table = results.variance.reindex(columns=[*keys, "num_groups", *numbers])
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    table = table.dropna(subset=["ratio_to_maxpo", "snr"], how="all")
    groups = table.groupby(keys, sort=False)
    found = groups[numbers].mean()
    for kind in ("ratio_to_maxpo", "snr"):  # independent policies: the half-width of a mean of n is 1 / sqrt(n) of theirs
        low, high = (f"{kind.removesuffix('_to_maxpo')}_{end}" for end in ("low", "high"))
        for end in (low, high):
            found[end] = found[kind] + (found[end] - found[kind]) / np.sqrt(groups.size())
    return found.assign(num_policies=groups.size(), num_groups=groups["num_groups"].sum()).reset_index()


def exact(results):
    """Sampled minus exact max@K of each cell whose problem was enumerated: mean over seeds, 95% interval, p after Holm."""
    rows = []
    for (task, estimator), cell in results.cells.items():
        known = cell.by_seed((cell.metrics.get("exact") or {}).get("max@K")) if cell.usable else {}
        if known:
            found = statistics.mean_interval(statistics.pair(cell.values("max@K"), known)[0])
            outside = found.low is not None and not found.low <= 0 <= found.high
            rows.append([task, estimator, found.estimate, found.low, found.high, outside, found.num_pairs, found.p])
    columns = ["task", "estimator", "difference", "low", "high", "outside", "num_seeds", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=statistics.holm([None if pd.isna(p) else p for p in table["p"]]))


# ------------------------------------------------------------------------------------------------- studies that train

JOINS_WITHIN = 0.01  # docs/default-estimators.md


def learning_rate(table):
    """max@K after training by task, estimator and rate: mean over tuning seeds with its 95% interval."""
    groups = table.sort_values("lr", kind="stable").groupby(["task", "estimator", "lr"], sort=False)["max_at_k"]
    found = pd.DataFrame(dict(zip(("max_at_k", "low", "high"), bands(groups), strict=True)))
    return found.assign(num_seeds=groups.count()).dropna(subset=["max_at_k"]).reset_index()


def learning_rates(table, results):
    """Rates by task, as text, from the raw table: each estimator's own best (*: the lowest or highest tried), the one of the best
    mean rank, the one in use."""
    columns, shared = {}, ("best mean rank", "in use, shared")
    for task in [t for t in results.tasks if t in set(table["task"])]:
        rows, used = table[table["task"] == task], getattr(results.tasks[task], "optimiser", {}).get("lr", math.nan)
        edge = at_the_edge(rows)
        columns[task] = {e: f"{rate:.3g}{'*' * edge[e]}" for e, rate in best_rates(rows).items()}
        columns[task] |= {name: f"{rate:.3g}" for name, rate in zip(shared, (shared_rate(rows)[0], used), strict=True)}
    found = pd.DataFrame(columns).fillna("-")
    return found.reindex([e for e in (*results.estimators, *shared) if e in found.index]).rename_axis("estimator").reset_index()


def k_trained(table):
    """max@k for every evaluated k after training for every K: a row per task, estimator, K trained and k; mean over seeds.

    gap: minus that of the policy trained for k itself, paired by seed, with its 95% interval; none where nothing was trained for k.
    fixed: the estimator gives the same whatever K it is told.
    """
    ks = sorted(int(c.removeprefix("max_at_")) for c in table if c.removeprefix("max_at_").isdigit())
    long = table.melt(["task", "estimator", "k", "seed"], [f"max_at_{k}" for k in ks], "evaluated", "max")
    long["evaluated"] = long["evaluated"].str.removeprefix("max_at_").astype(int)
    same = long.groupby(["task", "estimator", "evaluated", "seed"], sort=False)["max"].agg(np.ptp) <= 1e-9
    fixed = same.groupby(["task", "estimator"], sort=False).all().rename("fixed").reset_index()
    own = long[long["k"] == long["evaluated"]].drop(columns="k").rename(columns={"max": "own"})
    long = long.merge(own, on=["task", "estimator", "evaluated", "seed"], how="left")
    groups = long.assign(gap=long["max"] - long["own"]).groupby(["task", "estimator", "k", "evaluated"], sort=False)
    found = pd.DataFrame({"max_at_k": groups["max"].mean()})
    found["gap"], found["low"], found["high"] = bands(groups["gap"])
    return found.assign(num_seeds=groups["max"].count()).reset_index().merge(fixed, on=["task", "estimator"])


def group_size(table, method=REFERENCE):
    """max@K by N at a fixed number of samples, per task and estimator; see _with_gaps."""
    return _with_gaps(table, ["task", "estimator", "group_size"], ["max_at_k"], [], method)


def off_policy(table, method=REFERENCE):
    """max@K after one pass over each batch and after several under a clip, a row each; see _with_gaps. change: minus one pass."""
    one = table.loc[table["epochs"] == 1, ["task", "estimator", "seed", "max_at_k"]]
    table = table.merge(one, on=["task", "estimator", "seed"], how="left", suffixes=("", "_one"))
    keys = ["task", "estimator", "epochs", "clip"]
    found = _with_gaps(table, keys, ["max_at_k"], [], method)
    groups = table.assign(change=table["max_at_k"] - table["max_at_k_one"]).groupby(keys, sort=False)["change"]
    change = pd.DataFrame(dict(zip(("change", "change_low", "change_high"), bands(groups), strict=True)))
    return found.merge(change.reset_index(), on=keys)


def cheap(results, scale, method=REFERENCE):
    """All estimators on the cheap tasks: max@K minus the method's, paired by seed, scale 0 to 1, a row per estimator and task and
    one for the mean of its tasks; and who joins the default list by the rule of docs/default-estimators.md.

    best: mean max@K minus that of the best default estimator, over all cheap tasks. same_as: a default estimator, or one that
    joins, with the same numbers on every seed of every task.
    """
    values = {
        (task, estimator): pd.Series(cell.values("max@K")).sub(scale[task][0]).div(scale[task][1] - scale[task][0])
        for (task, estimator), cell in results.cheap.items()
        if task in scale and cell.values("max@K")
    }
    if not {e for _, e in values} - set(results.estimators) or method not in {e for _, e in values}:
        return pd.DataFrame()
    wide = pd.concat(values, names=["task", "estimator", "seed"]).unstack("estimator")  # (task, seed) x estimator
    more = [e for e in dict.fromkeys(e for _, e in values) if e not in results.estimators]
    ran = wide[more].notna().any(axis=1)  # the seeds that the newcomers run
    wide = wide[ran | ~ran.groupby("task").transform("any")]
    tasks = [t for t in scale if t in wide.index.get_level_values("task")]
    whole = wide.groupby("task").mean().mean(skipna=False)
    kept, rows = [e for e in results.estimators if e in wide], []
    best = whole[kept].max()
    for estimator in sorted([*kept, *more], key=lambda e: (np.isnan(whole[e]), -round(float(whole[e]), 9))):
        default = estimator in results.estimators
        twins = [e for e in kept if np.allclose(wide[e], wide[estimator], rtol=0, atol=1e-9, equal_nan=True)]
        joins = bool(not default and not twins and whole[estimator] >= best - JOINS_WITHIN - 1e-9)
        kept += [estimator] * joins
        gaps = (wide[estimator] - wide[method]).dropna()
        gaps = {t: gaps[t].to_numpy() for t in tasks if t in gaps}
        known = {"num_tasks": len(gaps), "max_at_k": whole[estimator], "best": whole[estimator] - best, "default": default}
        known |= {"same_as": "" if default or not twins else twins[0], "joins": joins}
        intervals = {t: statistics.mean_interval(v) for t, v in gaps.items()} | {"mean": statistics.task_mean_interval(gaps)}
        for task, found in intervals.items():
            row = {"estimator": estimator, "task": task, "gap": found.estimate, "low": found.low, "high": found.high}
            rows.append(row | {"num_seeds": found.num_pairs} | known)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------------- the rest


def wall_clock(results):
    """Seconds per seed by phase, per cell. Evaluation is off the training clock."""
    rows = []
    for (task, estimator), cell in results.cells.items():
        phases = cell.timing.get("phases")
        if cell.usable and isinstance(phases, dict) and phases:
            seconds = {p: float(phases[p]) if isinstance(phases.get(p), int | float) else 0.0 for p in PHASES}
            row = {"task": task, "estimator": estimator, **seconds, "training": sum(seconds[p] for p in TRAINING_PHASES)}
            rows.append(row | {"machine": cell.timing.get("machine")})
    return pd.DataFrame(rows, columns=["task", "estimator", *PHASES, "training", "machine"])


def costs(results):
    """What a cell took, by its timing.json: hours of one run (one seed, on one core, evaluation included) and of the whole cell."""
    rows = []
    for (task, estimator), cell in results.cells.items():
        phases, wall_s = cell.timing.get("phases"), cell.timing.get("wall_s")
        if cell.usable and isinstance(phases, dict) and isinstance(wall_s, int | float):
            run = sum(v for v in phases.values() if isinstance(v, int | float)) / 3600
            row = {"task": task, "estimator": estimator, "one run [hours]": run, "runs": len(cell.metrics["seeds"])}
            row |= {"processes": cell.timing.get("num_workers"), "all of them [hours]": wall_s / 3600}
            rows.append(row | {"machine": cell.timing.get("machine")})
    return pd.DataFrame(rows)


def headline(results, verdicts, table, method=REFERENCE):
    """The few numbers of results/metrics.json, which `dvc metrics show` and `dvc exp show` print side by side.

    cells: with results; max@K, pass@1: the method's mean over tasks, scale 0 to 1; lead: its smallest lead in max@K over a rival on
    all tasks; variance: the smallest ratio of a rival's gradient variance to the method's over all tasks (above 1: the method has
    the least); supported, contradicted: verdicts. None of them reads a time.
    """
    mine = table.set_index("estimator").reindex([method]).iloc[0]
    verdicts = verdicts.reindex(columns=["aggregate", "left_out", "measure", "effect", "verdict"])
    whole = verdicts[(verdicts["aggregate"] == "all") & (verdicts["left_out"] == 0)].groupby("measure")["effect"].min()
    found = {"cells": sum(c.status in load.USABLE for c in results.cells.values()), "max@K": mine["mean"]}
    found |= {"lead": whole.get("max@K"), "pass@1": mine["pass@1"], "variance": whole.get("gradient variance")}
    found |= {verdict: int((verdicts["verdict"] == verdict).sum()) for verdict in ("supported", "contradicted")}
    known = {k: v for k, v in found.items() if v is not None and math.isfinite(v)}
    return {k: v if isinstance(v, int) else round(float(v), 4) for k, v in known.items()}


def latex(table, results):
    """A paste-ready LaTeX table (booktabs) of `cells`: max@K, mean and half-width of the 95% interval, the best one bold."""
    rows = {}
    for task in results.usable_tasks():
        mine = table[table["task"] == task].set_index("estimator").reindex(results.estimators)
        best, digits = mine["max@K"].max(), 3 if abs(mine["max@K"].max()) < 10 else 1
        row = rows[f"{task} (K={results.setting(task, 'k')})"] = []
        for value, high in zip(mine["max@K"].astype(float), mine["max@K high"].astype(float), strict=True):
            text = f"{value:.{digits}f}"
            text = rf"\mathbf{{{text}}}" if text == f"{best:.{digits}f}" else text
            width = "" if math.isnan(high) else rf"_{{\pm {high - value:.{digits}f}}}"
            row.append("--" if math.isnan(value) else f"${text}{width}$")
    wide = pd.DataFrame.from_dict(rows, orient="index", columns=results.estimators)
    shown = wide.style.format_index(escape="latex").format_index(escape="latex", axis=1)
    return shown.to_latex(hrules=True, column_format="l" + "r" * len(results.estimators))
