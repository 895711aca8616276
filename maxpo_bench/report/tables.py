"""Tables of the report as DataFrames: each is written as CSV, and is what the figure of the same name draws."""

import math

import numpy as np
import pandas as pd

from maxpo_bench.measure import statistics
from maxpo_bench.report import load, recommend
from maxpo_bench.report.claim_measures import TRAINING_PHASES, training_seconds
from maxpo_bench.report.style import REFERENCE

PHASES = (*TRAINING_PHASES, "evaluate")


def cells(results):
    """One row per declared cell: status, reason, seeds, final metrics with 95% intervals over seeds, seconds per seed."""
    rows = []
    for task in results.tasks:
        for estimator in results.estimators:
            cell = results.cells[task, estimator]
            row = {
                "task": task,
                "estimator": estimator,
                "status": cell.status,
                "reason": cell.reason,
                "k": results.k(task),
                "group_size": results.group_size(task),
                "num_seeds": len(cell.values("max@K")),
            }
            for metric in load.METRICS:
                found = statistics.mean_interval(list(cell.values(metric).values()))
                low, high = found.low, found.high
                if metric.startswith("pass") and low is not None:  # Student's t knows no bounds, a probability has them
                    low, high = max(low, 0.0), min(high, 1.0)
                row |= {metric: found.estimate, f"{metric} low": low, f"{metric} high": high}
            row["max@K iqm"] = statistics.iqm(list(cell.values("max@K").values()))
            row["seconds per seed"] = training_seconds(cell)
            row["verifier_errors"] = cell.metrics.get("verifier_errors")
            rows.append(row)
    return pd.DataFrame(rows)


def curves(results):
    """Learning curves: mean over seeds with a 95% interval, per task, estimator and evaluation, for max@K and pass@1."""
    columns = ["task", "estimator", "step", "samples"]
    if not len(results.curves):
        return pd.DataFrame(
            columns=[*columns, "num_seeds", *(f"{m}{s}" for m in ("max_at_k", "pass_at_1") for s in ("", "_low", "_high"))]
        )
    groups = results.curves.groupby(columns, sort=False)
    table = groups.size().rename("num_seeds").to_frame()
    for metric in ("max_at_k", "pass_at_1"):
        table[metric], table[f"{metric}_low"], table[f"{metric}_high"] = _bands(groups[metric], metric.startswith("pass"))
    return table.reset_index()


def _bands(groups, probability=False):
    """Mean and 95% t interval of every group at once; none below 3 values or without spread. A probability's ends at 0 and 1."""
    from scipy.stats import t

    mean, spread, n = groups.mean(), groups.std(ddof=1), groups.count()
    half = t.ppf((1 + statistics.SIZE) / 2, (n - 1).clip(lower=1)) * spread / np.sqrt(n.clip(lower=1))
    half = half.where((n >= statistics.MIN_PAIRS) & (spread > 1e-12))
    low, high = mean - half, mean + half
    return (mean, low.clip(lower=0.0), high.clip(upper=1.0)) if probability else (mean, low, high)


def wide_curves(results, scale, num_points=5):
    """For `dvc plots`: mean of max@K on the 0-1 scale against the share of training done, a column for every estimator.

    Over the tasks on which all estimators with any results have them, so that the columns compare.
    """
    grid = np.linspace(0, 1, num_points)
    lines = {}
    for (task, estimator), part in curves(results).groupby(["task", "estimator"], sort=False):
        part = part.dropna(subset=["max_at_k"]).sort_values("step")
        if task in scale and len(part) > 1 and part["step"].max() > 0:
            low, high = scale[task]
            level = (part["max_at_k"].to_numpy() - low) / (high - low)
            lines.setdefault(estimator, {})[task] = np.interp(grid, part["step"].to_numpy() / part["step"].max(), level)
    shared = [t for t in scale if all(t in found for found in lines.values())]
    columns = {
        e: np.mean([lines[e][t] for t in shared], axis=0) if e in lines and shared else np.full(num_points, np.nan)
        for e in results.estimators
    }
    return pd.DataFrame({"share_of_training": grid, **columns})


def ladders(results):
    """max@k and pass@k against k before and after training: mean over seeds with a 95% interval."""
    columns = ["task", "estimator", "step", "k"]
    if not len(results.ladders):
        return pd.DataFrame(columns=[*columns, "when", "max_at_k", "max_at_k_low", "max_at_k_high"])
    groups = results.ladders.groupby(columns, sort=False)
    table = groups.size().rename("num_seeds").to_frame()
    table["max_at_k"], table["max_at_k_low"], table["max_at_k_high"] = _bands(groups["max"])
    table["pass_at_k"], table["pass_at_k_low"], table["pass_at_k_high"] = _bands(groups["pass"], True)
    table = table.reset_index()
    return table.assign(when=np.where(table["step"] == 0, "before", "after"))


def ladder_ends(table, ks=(1, 16)):
    """pass@1 and pass@16 of the tasks with 0/1 rewards, before training and after: mean over seeds with a 95% interval.

    table: that of `ladders`. One row per task and estimator, one called "before training" per task.
    """
    rows = []
    for task, part in table.groupby("task", sort=False) if len(table) else ():
        if not set(ks) <= set(part["k"]) or (part["max_at_k"] - part["pass_at_k"]).abs().max() > 1e-9:
            continue
        before = part[part["when"] == "before"].drop_duplicates("k").assign(estimator="before training")
        for estimator, ends in [("before training", before), *part[part["when"] == "after"].groupby("estimator", sort=False)]:
            ends = ends.set_index("k")
            row = {"task": task, "estimator": estimator, "num_seeds": ends["num_seeds"].max()}
            for k in ks:
                for end in ("", "_low", "_high"):
                    row[f"pass_at_{k}{end}"] = ends[f"pass_at_k{end}"].get(k)
            rows.append(row)
    values = [f"pass_at_{k}{end}" for k in ks for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["task", "estimator", "num_seeds", *values])


def differences(results, scale, metric="max@K", method=REFERENCE):
    """method - other after training, paired by seed, on each task and as the mean over tasks, on the 0-1 scale."""
    rows = []
    if method not in results.estimators:
        return pd.DataFrame(columns=["task", "estimator", "difference", "low", "high", "num_pairs", "reason"])
    bounds = {t: (0.0, 1.0) for t in scale} if metric.startswith("pass") else scale
    mine = recommend.normalised(results, bounds, method, metric)
    for other in results.estimators:
        if other == method:
            continue
        theirs = recommend.normalised(results, bounds, other, metric)
        pairs = {t: statistics.pair(mine[t], theirs[t])[0] for t in mine if t in theirs}
        found = {t: statistics.mean_interval(p) for t, p in pairs.items() if len(p)}
        for task, interval in [*found.items(), ("overall", statistics.task_mean_interval(pairs))]:
            rows.append(
                {
                    "task": task,
                    "estimator": other,
                    "difference": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "num_pairs": interval.num_pairs,
                    "reason": interval.reason,
                }
            )
    return pd.DataFrame(rows)


def overall(results, scale, method=REFERENCE):
    """Per estimator: interquartile mean of max@K over tasks and seeds, difference to the method, probability of improvement."""
    rows, gaps = [], differences(results, scale, method=method)
    mine = recommend.normalised(results, scale, method, "max@K") if method in results.estimators else {}
    for estimator in results.estimators:
        values = recommend.normalised(results, scale, estimator, "max@K")
        strata = {t: np.array(list(v.values())) for t, v in values.items()}
        found = statistics.iqm_interval(strata)
        row = {
            "estimator": estimator,
            "num_tasks": len(values),
            "num_runs": found.num_pairs,
            "iqm": found.estimate,
            "iqm low": found.low,
            "iqm high": found.high,
        }
        gap = gaps[(gaps["estimator"] == estimator) & (gaps["task"] == "overall")]
        for key in ("difference", "low", "high"):
            row[f"{method} ahead by" if key == "difference" else f"ahead {key}"] = gap[key].iloc[0] if len(gap) else None
        shared = [t for t in strata if t in mine]
        if estimator != method and any(mine[t].keys() & values[t].keys() for t in shared):
            seeds = {t: sorted(mine[t].keys() & values[t].keys()) for t in shared}
            chance = statistics.probability_of_improvement_interval(
                *({t: np.array([runs[t][s] for s in seeds[t]]) for t in shared if seeds[t]} for runs in (mine, values)),
                num_resamples=1000,
                paired=True,
            )
            row |= {f"P({method} better)": chance.estimate, "P low": chance.low, "P high": chance.high}
        pass_1 = recommend.normalised(results, dict.fromkeys(scale, (0.0, 1.0)), estimator, "pass@1")
        row["pass@1"] = np.mean([np.mean(list(v.values())) for v in pass_1.values()]) if pass_1 else None
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values(["num_tasks", "iqm"], ascending=[False, False], kind="stable", na_position="last")


def advice(answers):
    """The answers of recommend.advise, one row per k."""
    rows = []
    for a in answers:
        lead = a.lead or statistics.Interval(None, None, None, 0)
        rows.append(
            {
                "k": a.k,
                "best": a.best,
                "mean max@k": a.level,
                "num_tasks": a.num_tasks,
                "sure": a.sure,
                "runner_up": a.runner_up,
                "lead": lead.estimate,
                "lead low": lead.low,
                "lead high": lead.high,
                "num_pairs": lead.num_pairs,
                "not told apart": ", ".join(a.tied),
                "worse": ", ".join(a.worse),
                "ahead where it applies": ", ".join(a.ahead),
                "not judged": ", ".join(a.unjudged),
            }
        )
    return pd.DataFrame(rows)


def wall_clock(results):
    """Seconds per seed by phase, per cell. Evaluation is off the training clock."""
    rows = []
    for (task, estimator), cell in results.cells.items():
        phases = cell.timing.get("phases") or {}
        if cell.usable and phases:
            seconds = {p: float(phases[p]) for p in PHASES if isinstance(phases.get(p), (int, float))}
            rows.append(
                {
                    "task": task,
                    "estimator": estimator,
                    **{p: seconds.get(p, 0.0) for p in PHASES},
                    "training": sum(seconds.get(p, 0.0) for p in TRAINING_PHASES),
                    "wall_s": cell.timing.get("wall_s"),
                }
            )
    return pd.DataFrame(rows, columns=["task", "estimator", *PHASES, "training", "wall_s"])


def exact(results):
    """Sampled minus exact max@K of each cell whose problem was enumerated: mean over seeds, 95% interval, p after Holm."""
    rows = []
    for (task, estimator), cell in results.cells.items():
        known = (cell.metrics.get("exact") or {}).get("max@K") if cell.usable else None
        if not known:
            continue
        truth = {int(s): v for s, v in zip(cell.metrics["seeds"], known, strict=False) if isinstance(v, (int, float))}
        found = statistics.mean_interval(statistics.pair(cell.values("max@K"), truth)[0])
        outside = found.low is not None and not found.low <= 0 <= found.high
        rows.append([task, estimator, found.estimate, found.low, found.high, outside, found.num_pairs, found.p])
    columns = ["task", "estimator", "difference", "low", "high", "outside", "num_seeds", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=statistics.holm([None if pd.isna(p) else p for p in table["p"]]))


def claim_table(claims):
    """One row per finding of each claim."""
    return pd.DataFrame(
        [
            {
                "claim": c.id,
                "claim_verdict": c.verdict,
                "against": f.against,
                "where": f.where,
                "verdict": f.verdict,
                "unit": c.unit,
                "effect": f.effect,
                "low": f.low,
                "high": f.high,
                "null": f.null,
                "exact": f.exact,
                "num_pairs": f.num_pairs,
                "reason": f.reason,
            }
            for c in claims
            for f in c.findings
        ],
        columns=[
            "claim",
            "claim_verdict",
            "against",
            "where",
            "verdict",
            "unit",
            "effect",
            "low",
            "high",
            "null",
            "exact",
            "num_pairs",
            "reason",
        ],
    )


def headline(results, claims, table, method=REFERENCE):
    """The few numbers of results/metrics.json, which `dvc metrics show` and `dvc exp show` print side by side.

    cells: with results; max@K: the method's interquartile mean over tasks and seeds; lead: its mean max@K less that of the
    best other estimator with results on as many tasks; pass@1: its mean; variance: the smallest geometric mean, over the
    published non-centred alternatives, of their gradient variance over the method's (above 1: the method has the least);
    supported, contradicted: claims.
    """
    rows = {row["estimator"]: row for _, row in table.iterrows()}
    mine = rows.get(method, {})
    ahead = [r[f"{method} ahead by"] for e, r in rows.items() if e != method and r["num_tasks"] == mine.get("num_tasks")]
    published = [e for e in results.non_centred() if e != method and not results.is_own(e)]
    ratios = [variance_ratios(results, e) for e in published]
    means = [math.exp(np.mean(np.log(r))) for r in ratios if r]
    found = {
        "cells": sum(c.status in load.USABLE for c in results.cells.values()),
        "max@K": mine.get("iqm"),
        "lead": min((a for a in ahead if not pd.isna(a)), default=None),
        "pass@1": mine.get("pass@1"),
        "variance": min(means, default=None),
        "supported": sum(c.verdict == "supported" for c in claims),
        "contradicted": sum(c.verdict == "contradicted" for c in claims),
    }
    known = {k: v for k, v in found.items() if v is not None and math.isfinite(v)}
    return {k: v if isinstance(v, int) else round(float(v), 4) for k, v in known.items()}


def variance_ratios(results, other):
    """Var(other) / Var(maxpo) at every measured checkpoint."""
    if "ratio_to_maxpo" not in results.variance:
        return []
    rows = results.variance[results.variance["estimator"] == other]["ratio_to_maxpo"]
    return [float(v) for v in rows if math.isfinite(v) and v > 0]


def latex(results):
    """A paste-ready LaTeX table (booktabs): max@K by task and estimator, mean and half-width of the 95% interval, best bold."""
    table = cells(results)
    tasks = [t for t in results.tasks if t in set(results.usable_tasks())]
    lines = [
        r"\begin{tabular}{l" + "r" * len(results.estimators) + "}",
        r"\toprule",
        " & ".join(["task", *map(_tex, results.estimators)]) + r" \\",
        r"\midrule",
    ]
    for task in tasks:
        rows = table[table["task"] == task].set_index("estimator")
        values = pd.to_numeric(rows["max@K"], errors="coerce")
        best = values.max()
        digits = 3 if abs(best) < 10 else 1
        row = [_tex(f"{task} (K={results.k(task)})")]
        for estimator in results.estimators:
            value, high = values[estimator], rows.loc[estimator, "max@K high"]
            if pd.isna(value):
                row.append("--")
                continue
            text = f"{value:.{digits}f}"
            text = rf"\mathbf{{{text}}}" if f"{best:.{digits}f}" == text else text
            if not pd.isna(high):
                text += rf"_{{\pm {high - value:.{digits}f}}}"
            row.append(f"${text}$")
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text):
    table = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    return "".join(table.get(c, "\\" + c if c in "_&%$#" else c) for c in str(text))
