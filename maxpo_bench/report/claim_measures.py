"""What each measure of claims.yaml looks at: comparisons of the method with its alternatives, none of them judged yet.

Every judge_* takes (results, method, spec) and returns (unit, list of Finding); an effect above the finding's null favours
the claim. Both p values are one-sided and agree with the 95% interval: below 2.5% only where the interval leaves out null.
"""

import math
import numbers
from dataclasses import dataclass

import numpy as np
import pandas as pd

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.measure import statistics
from maxpo_bench.report import load

LEVEL = 0.05
SIDE = LEVEL / 2  # each direction, so that a verdict agrees with a 95% interval
TRAINED = ("max@K", "pass@1", "pass@K", "mean_reward")
TRAINING_PHASES = ("sample", "reward", "advantage", "update")
AGAINST = ("non_centred", "published_non_centred", "own_non_centred", "centred")


@dataclass
class Finding:
    """One comparison behind a claim. effect > null favours the claim."""

    against: str
    where: str
    verdict: str = "inconclusive"
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    null: float = 0.0
    num_pairs: int = 0
    reason: str = ""
    p_for: float | None = None  # one-sided: small when the claim holds here
    p_against: float | None = None  # one-sided: small when the opposite holds here
    exact: bool = False  # by enumeration: no chance in it, so no interval


def _alternatives(results, method, spec):
    against = spec.get("against", "non_centred")
    if isinstance(against, list):
        return [e for e in against if e != method]
    loose = [e for e in results.non_centred() if e != method]
    if against == "centred":
        return [e for e in results.estimators if e != method and e not in loose]
    own = [e for e in loose if results.is_own(e)]
    return {"non_centred": loose, "own_non_centred": own, "published_non_centred": [e for e in loose if e not in own]}[against]


def _agree(finding):
    """The p values never say more than the shown interval: a bootstrap interval and a t or z test differ at the edge."""
    if finding.low is not None and finding.low <= finding.null and finding.p_for is not None:
        finding.p_for = max(finding.p_for, SIDE)
    if finding.high is not None and finding.high >= finding.null and finding.p_against is not None:
        finding.p_against = max(finding.p_against, SIDE)
    return finding


def _count(value):
    """A count out of a table: 0 where it is empty."""
    return int(value) if isinstance(value, numbers.Real) and math.isfinite(value) else 0


def _absent(results, path, what="not there or empty"):
    return f"{path}: {results.stale.get(path, what)}"


def judge_property(results, method, spec):
    """Exact enumeration: true or false, no chance in it."""
    table = results.studies.get("properties")
    study, _, column = spec.get("effect", "").rpartition(".")
    for key in ("column", "effect"):
        if key == "effect" and study:
            continue
        if table is not None and "estimator" in table and spec.get(key, "estimator") not in table:
            near = did_you_mean(spec[key], list(table))
            raise InputError(f"claims.yaml: claim {spec['id']}: {key}: results/studies/properties.csv has no {spec[key]!r}{near}")
    found, wanted = results.property_of(spec["column"]).get(method), spec["is"]
    wanted = {True: "yes", False: "no"}[wanted] if isinstance(wanted, bool) else str(wanted)  # YAML reads a bare yes as true
    if found is None:
        return "", [Finding("", "enumeration", reason=_absent(results, "results/studies/properties.csv", "no row for it"))]
    effect, num_groups = None, 0
    if study:
        rows = results.studies.get(study, pd.DataFrame(columns=["estimator", column]))
        if column not in rows:
            raise InputError(f"claims.yaml: claim {spec['id']}: effect: results/studies/{study}.csv has no column {column!r}")
        rows = rows[rows["estimator"] == method]
        if len(rows):
            effect, num_groups = float(rows[column].max()), _count(rows["num_groups"].sum() if "num_groups" in rows else 0)
    elif "effect" in spec:
        effect = results.property_of(spec["effect"]).get(method)
    holds = str(found) == wanted
    what = f"{spec['column']} = {found}, by exact enumeration"
    finding = Finding("", "enumeration", effect=effect, num_pairs=num_groups, reason=what, exact=True)
    finding.p_for, finding.p_against = (0.0, 1.0) if holds else (1.0, 0.0)
    return ("" if effect is None else spec.get("unit", "relative bias")), [finding]


def judge_growth(results, method, spec):
    """Slope of log time against log group size over the four largest sizes timed."""
    table, bound = results.studies.get("cost"), float(spec["at_most"])
    unit = "exponent below the bound"
    if table is None or not {"estimator", "group_size", "time_us_per_group"} <= set(table):
        return unit, [Finding("", "cost study", reason=_absent(results, "results/studies/cost.csv"))]
    rows = table[(table["estimator"] == method) & (table["time_us_per_group"] > 0)]
    rows = rows.groupby("group_size")["time_us_per_group"].min().dropna().sort_index().tail(4)
    if len(rows) < 4:
        return unit, [Finding("", "cost study", reason=f"{len(rows)} group sizes timed, 4 needed")]
    from scipy.stats import linregress, t

    fit = linregress(np.log(rows.index.to_numpy(float)), np.log(rows.to_numpy()))
    dof, error = len(rows) - 2, max(float(fit.stderr), 1e-12)
    slope, half = float(fit.slope), float(t.ppf((1 + statistics.SIZE) / 2, dof)) * error
    p = float(t.sf((bound - slope) / error, dof))
    # written so that a larger effect favours the claim, as everywhere: the room left below the bound
    return unit, [
        Finding(
            "",
            "cost study",
            effect=bound - slope,
            low=bound - slope - half,
            high=bound - slope + half,
            num_pairs=len(rows),
            p_for=p,
            p_against=1 - p,
            reason=f"time grows as N^{slope:.2f} for N = {rows.index.min()} to {rows.index.max()}",
        )
    ]


def _ratio_finding(against, where, row, num_pairs):
    """A ratio alternative / method with its interval, judged on the log scale."""
    ratio, low, high = (float(row.get(key, math.nan)) for key in ("ratio", "low", "high"))
    finding = Finding(against, where, null=1.0, num_pairs=num_pairs)
    if not math.isfinite(ratio) or ratio <= 0:
        finding.reason = "no finite ratio"
        return finding
    finding.effect = ratio
    if row.get("exact"):
        finding.exact = True
        same = abs(ratio - 1) < 1e-9
        finding.p_for, finding.p_against = (1.0, 1.0) if same else (0.0, 1.0) if ratio > 1 else (1.0, 0.0)
        finding.reason = "equal" if same else ""
        return finding
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        finding.reason = "no interval"
        return finding
    from scipy.stats import norm

    finding.low, finding.high = low, high
    z = math.log(ratio) / ((math.log(high) - math.log(low)) / (2 * norm.ppf((1 + statistics.SIZE) / 2)))
    finding.p_for, finding.p_against = float(norm.sf(z)), float(norm.cdf(z))
    return _agree(finding)


def judge_variance(results, method, spec):
    """Var(alternative) / Var(method) at every checkpoint of every task, for alternatives with the same expected gradient."""
    unit, table, findings = f"variance, other / {method}", results.variance, []
    if "ratio_to_maxpo" not in table or not len(table):
        return unit, [Finding("", "variance stage", reason="no current results/variance/*.csv")]
    same = results.property_of("unbiased_for")
    absent = [t for t in results.tasks if t not in set(table["task"])]
    for name in _alternatives(results, method, spec):
        if same.get(name, results.declared.get(name, {}).get("objective")) != "J_K":
            continue
        old = {t: results.stale.get(f"results/variance/{t}.csv: {name}") for t in results.tasks}
        findings += [Finding(name, t, null=1.0, reason=f"stale: {why}") for t, why in old.items() if why]
        if name not in set(table["estimator"]):
            continue
        findings += [Finding(name, t, null=1.0, reason=_absent(results, f"results/variance/{t}.csv")) for t in absent]
        for _, row in table[table["estimator"] == name].iterrows():
            if str(row.get("k", 2)) in ("1", "1.0"):
                continue  # every estimator of J_1 with a baseline of 0 or none: not the claim
            if pd.isna(row.get("trace_cov")):
                continue  # no gradient there: this k or these rewards are not for it
            values = {"ratio": row["ratio_to_maxpo"], "low": row.get("ratio_low"), "high": row.get("ratio_high")}
            values = {k: math.nan if v is None else v for k, v in values.items()}
            finding = _ratio_finding(name, f"{row['task']}, {row['checkpoint']}", values, _count(row.get("num_groups")))
            finding.reason = row["reason"] if isinstance(row.get("reason"), str) else finding.reason
            findings.append(finding)
    return unit, findings


def judge_regimes(results, method, spec):
    """Var(alternative) / Var(method) in every regime of the map."""
    unit, table, findings = f"variance, other / {method}", results.studies.get("regimes"), []
    if table is None or not {"regime", "estimator", "ratio", "exact"} <= set(table):
        return unit, [Finding("", "regime study", reason=_absent(results, "results/studies/regimes.csv"))]
    for name in _alternatives(results, method, spec):
        for _, row in table[table["estimator"] == name].iterrows():
            findings.append(_ratio_finding(name, str(row["regime"]), row.to_dict(), _count(row.get("num_groups"))))
    return unit, findings or [Finding("", "regime study", reason="results/studies/regimes.csv holds no such ratio")]


def judge_trained(results, method, spec):
    """method - alternative after training, paired by seed, on each task or as a mean over tasks.

    A task that does not apply to one of the two is no comparison; tasks and seeds without a pair are named in the reason.
    """
    metric, margin = spec["measure"], float(spec.get("margin", 0.0))
    scale, findings = load.scales(results), []
    by_task = spec.get("by", "overall") == "task"
    for name in _alternatives(results, method, spec):
        if name not in results.estimators or method not in results.estimators:
            continue
        differences, dropped, skipped = {}, {}, []
        for task in results.tasks:
            mine, other = results.cells[task, method], results.cells[task, name]
            if "not_applicable" in (mine.status, other.status):
                skipped.append(task)
                continue
            pairs, seeds = statistics.pair(mine.values(metric), other.values(metric))
            low, high = scale.get(task, (0.0, 1.0)) if not metric.startswith("pass") else (0.0, 1.0)
            pairs, absent = pairs / (high - low), _why_absent(mine, other, seeds)
            if by_task:
                findings.append(_paired_finding(name, task, statistics.mean_interval(pairs), margin, absent))
                continue
            if len(pairs):
                differences[task] = pairs
            if absent or not len(pairs):
                dropped.setdefault(absent or "no seed in common", []).append(task)
        if not by_task:
            found = statistics.task_mean_interval(differences)
            num_kept = sum(len(d) >= statistics.MIN_PAIRS for d in differences.values())
            said = [f"{why} ({', '.join(tasks)})" for why, tasks in dropped.items()]
            said += [f"not applicable to {', '.join(skipped)}"] if skipped else []
            where = f"mean of {num_kept} task{'' if num_kept == 1 else 's'}"
            findings.append(_paired_finding(name, where, found, margin, "; ".join(said)))
    return f"{metric}, {method} - other", findings


def _why_absent(mine, other, seeds):
    """What became of the cells and seeds that are not among the paired seeds, in words; "" when all are."""
    parts = [f"{c.estimator}: {c.status}" for c in (mine, other) if c.status not in ("ok", "committed")]
    lost = sorted({int(s) for c in (mine, other) if c.usable for s in c.metrics.get("seeds", [])} - set(seeds))
    if lost and seeds:
        parts.append(f"seed{'' if len(lost) == 1 else 's'} {', '.join(map(str, lost))} left out")
    return "; ".join(parts)


def _paired_finding(name, where, found, margin, absent):
    finding = Finding(name, where, effect=found.estimate, low=found.low, high=found.high)
    finding.null, finding.num_pairs = 0.0 - margin, found.num_pairs
    finding.reason = "; ".join(filter(None, [found.reason, absent]))
    if found.error:
        finding.p_for = found.p_below(-margin)
        finding.p_against = 1 - finding.p_for
    return _agree(finding)


def judge_wall_clock(results, method, spec):
    """alternative / method in training seconds per seed (evaluation is off the clock), paired by task.

    Only cells timed on the same machine pair. margin: the share of the alternative's time that counts as no more.
    """
    margin, findings = float(spec.get("margin", 0.0)), []
    for name in _alternatives(results, method, spec):
        if name not in results.estimators or method not in results.estimators:
            continue
        logs, elsewhere = [], []
        for task in results.tasks:
            cells = results.cells[task, method], results.cells[task, name]
            mine, other = (training_seconds(c) for c in cells)
            if not mine or not other:
                continue
            if cells[0].timing.get("machine") and cells[0].timing.get("machine") == cells[1].timing.get("machine"):
                logs.append(math.log(other / mine))
            else:
                elsewhere.append(task)
        found = statistics.mean_interval(logs)
        words = f"not timed on one machine: {', '.join(elsewhere)}" if elsewhere else ""
        finding = _paired_finding(name, f"mean of {len(logs)} tasks", found, math.log1p(margin), words)
        for key in ("effect", "low", "high", "null"):
            value = getattr(finding, key)
            setattr(finding, key, None if value is None else math.exp(value))
        finding.reason = finding.reason.replace("seeds", "tasks")
        findings.append(finding)
    return f"time, other / {method}", findings


def training_seconds(cell):
    """Seconds per seed on the training clock of a cell; None when it was not timed."""
    if cell is None or not cell.usable:
        return None
    phases = cell.timing.get("phases") or {}
    seconds = [phases[p] for p in TRAINING_PHASES if isinstance(phases.get(p), (int, float))]
    return sum(seconds) or None


MEASURES = {
    "property": judge_property,
    "growth": judge_growth,
    "variance": judge_variance,
    "regimes": judge_regimes,
    "wall_clock": judge_wall_clock,
    **dict.fromkeys(TRAINED, judge_trained),
}
