"""Claims of claims.yaml, judged from the pipeline's data: supported, contradicted or inconclusive.

A claim is a set of findings: one per alternative and place (task, regime or overall). It is
    contradicted  when at least one finding goes the other way beyond chance (Holm over the claim's findings, 5%),
    supported     when every finding goes its way: the largest p value of them (intersection-union test), Holm over all
                  claims, is below 5%,
    inconclusive  otherwise, and always when there is nothing to judge by.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from maxpo_bench import statistics
from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.report import load

LEVEL = 0.05
SIDE = LEVEL / 2  # each direction, so that a verdict agrees with a 95% interval
TRAINED = ("max@K", "pass@1", "pass@K", "mean_reward")
TRAINING_PHASES = ("sample", "reward", "advantage", "update")
KEYS = {"id", "statement", "measure", "by", "against", "margin", "column", "is", "effect", "at_most"}


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


@dataclass
class Claim:
    """A judged claim. effect, low, high, num_pairs are those of the least favourable finding."""

    id: str
    statement: str
    measure: str
    unit: str = ""
    verdict: str = "inconclusive"
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    num_pairs: int = 0
    p_holm: float | None = None
    reason: str = ""
    findings: list = field(default_factory=list)

    def count(self, verdict):
        return sum(f.verdict == verdict for f in self.findings)


def read(path):
    """(method, list of claim dicts) of claims.yaml. InputError names the claim and the key that is wrong."""
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("method"), str) or not isinstance(raw.get("claims"), list):
        raise InputError(f"{path}: must hold `method: <estimator>` and a list `claims:`")
    for number, claim in enumerate(raw["claims"]):
        where = f"{path}: claim {claim.get('id', number + 1) if isinstance(claim, dict) else number + 1}"
        if not isinstance(claim, dict):
            raise InputError(f"{where}: must be a mapping")
        for key in claim:
            if key not in KEYS:
                raise InputError(f"{where}: unknown key {key!r}{did_you_mean(key, KEYS)}")
        for key in ("id", "statement", "measure"):
            if not isinstance(claim.get(key), str):
                raise InputError(f"{where}: {key}: missing")
        if claim["measure"] not in MEASURES:
            raise InputError(f"{where}: measure: unknown {claim['measure']!r}{did_you_mean(claim['measure'], MEASURES)}")
    return raw["method"], raw["claims"]


def judge(results, path=None):
    """Every claim of claims.yaml judged on the results: a list of Claim, in the file's order."""
    method, declared = read(path or results.root / "claims.yaml")
    judged = []
    for spec in declared:
        claim = Claim(spec["id"], spec["statement"], spec["measure"])
        claim.unit, claim.findings = MEASURES[spec["measure"]](results, method, spec)
        _decide_findings(claim.findings)
        judged.append(claim)
    worst = []
    for claim in judged:
        ps = [f.p_for for f in claim.findings]
        worst.append(max(ps) if ps and None not in ps else None)
    for claim, p in zip(judged, statistics.holm(worst), strict=True):
        _decide(claim, p)
    return judged


def _decide_findings(findings):
    """Verdict of each finding, both directions corrected by Holm over the findings of the claim."""
    up, down = (statistics.holm([getattr(f, key) for f in findings]) for key in ("p_for", "p_against"))
    for finding, p_for, p_against in zip(findings, up, down, strict=True):
        if p_for is not None and p_for < SIDE:
            finding.verdict = "supported"
        elif p_against is not None and p_against < SIDE:
            finding.verdict = "contradicted"
        elif p_for is not None and min(finding.p_for, finding.p_against or 1.0) < SIDE and not finding.reason:
            finding.reason = f"not beyond chance among {len(findings)} comparisons (Holm)"


def _decide(claim, p_holm):
    claim.p_holm = p_holm
    if not claim.findings:
        claim.reason = "nothing to judge by: no such alternative among the results"
        return
    shown = [f for f in claim.findings if f.effect is not None]
    if shown:
        least = min(shown, key=lambda f: f.effect - f.null if f.low is None else f.low - f.null)
        claim.effect, claim.low, claim.high, claim.num_pairs = least.effect, least.low, least.high, least.num_pairs
        claim.reason = least.reason if len(claim.findings) == 1 else f"least favourable: {least.against} ({least.where})"
    else:
        claim.reason = claim.findings[0].reason
    if claim.count("contradicted"):
        claim.verdict = "contradicted"
    elif claim.count("supported") == len(claim.findings) and p_holm is not None and p_holm < SIDE:
        claim.verdict = "supported"


def _alternatives(results, method, spec):
    against = spec.get("against", "non_centred")
    if isinstance(against, list):
        return [e for e in against if e != method]
    if against == "non_centred":
        return [e for e in results.non_centred() if e != method]
    if against == "centred":
        loose = results.non_centred()
        return [e for e in results.estimators if e != method and e not in loose]
    raise InputError(f"claims.yaml: claim {spec['id']}: against: {against!r} is not non_centred, centred or a list of names")


# ------------------------------------------------------------------------------------------------------------ measures


def judge_property(results, method, spec):
    """Exact enumeration: true or false, no chance in it."""
    found, wanted = results.property_of(spec["column"]).get(method), str(spec["is"])
    if found is None:
        return "", [Finding("", "enumeration", reason="results/studies/properties.csv has no row for it")]
    effect = results.property_of(spec["effect"]).get(method) if "effect" in spec else None
    holds = str(found) == wanted
    what = f"{spec['column']} = {found}, by exact enumeration"
    finding = Finding(
        "", "enumeration", effect=effect, reason=what, p_for=0.0 if holds else 1.0, p_against=0.0 if not holds else 1.0
    )
    return ("relative bias" if effect is not None else ""), [finding]


def judge_growth(results, method, spec):
    """Slope of log time against log group size over the four largest sizes timed."""
    table, bound = results.studies.get("cost"), float(spec["at_most"])
    unit = "exponent below the bound"
    if table is None or not {"estimator", "group_size", "time_us_per_group"} <= set(table):
        return unit, [Finding("", "cost study", reason="results/studies/cost.csv is not there")]
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
        finding.low = finding.high = ratio
        same = abs(ratio - 1) < 1e-9
        finding.p_for, finding.p_against = (1.0, 1.0) if same else (0.0, 1.0) if ratio > 1 else (1.0, 0.0)
        finding.reason = "exact" if not same else "exact, equal"
        return finding
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        finding.reason = "no interval"
        return finding
    from scipy.stats import norm

    finding.low, finding.high = low, high
    z = math.log(ratio) / ((math.log(high) - math.log(low)) / (2 * norm.ppf((1 + statistics.SIZE) / 2)))
    finding.p_for, finding.p_against = float(norm.sf(z)), float(norm.cdf(z))
    return finding


def judge_variance(results, method, spec):
    """Var(alternative) / Var(method) at every checkpoint of every task, for alternatives with the same expected gradient."""
    unit, table, findings = "variance ratio", results.variance, []
    if "ratio_to_maxpo" not in table or not len(table):
        return unit, [Finding("", "variance stage", reason="no results/variance/*.csv yet")]
    same = results.property_of("unbiased_for")
    for name in _alternatives(results, method, spec):
        if not same.get(name, results.declared.get(name, {}).get("objective")) == "J_K":
            continue
        for _, row in table[table["estimator"] == name].iterrows():
            if str(row.get("k", 2)) in ("1", "1.0"):
                continue  # every estimator of J_1 with a baseline of 0 or none: not the claim
            if pd.isna(row.get("trace_cov")):
                continue  # no gradient there: this k or these rewards are not for it
            values = {"ratio": row["ratio_to_maxpo"], "low": row.get("ratio_low"), "high": row.get("ratio_high")}
            values = {k: math.nan if v is None else v for k, v in values.items()}
            finding = _ratio_finding(name, f"{row['task']}, {row['checkpoint']}", values, int(row.get("num_groups", 0) or 0))
            finding.reason = row["reason"] if isinstance(row.get("reason"), str) else finding.reason
            findings.append(finding)
    return unit, findings


def judge_regimes(results, method, spec):
    """Var(alternative) / Var(method) in every regime of the map."""
    unit, table, findings = "variance ratio", results.studies.get("regimes"), []
    if table is None or not {"regime", "estimator", "ratio", "exact"} <= set(table):
        return unit, [Finding("", "regime study", reason="results/studies/regimes.csv is not there")]
    for name in _alternatives(results, method, spec):
        for _, row in table[table["estimator"] == name].iterrows():
            findings.append(_ratio_finding(name, str(row["regime"]), row.to_dict(), int(row.get("num_groups", 0) or 0)))
    return unit, findings or [Finding("", "regime study", reason="results/studies/regimes.csv holds no such ratio")]


def judge_trained(results, method, spec):
    """method - alternative after training, paired by seed, on each task or as a mean over tasks."""
    metric, margin = spec["measure"], float(spec.get("margin", 0.0))
    scale, findings = load.scales(results), []
    by_task = spec.get("by", "overall") == "task"
    for name in _alternatives(results, method, spec):
        if name not in results.estimators:
            continue
        differences = {}
        for task in results.tasks:
            pairs, _ = statistics.pair(
                results.cells[task, method].values(metric) if (task, method) in results.cells else {},
                results.cells[task, name].values(metric),
            )
            low, high = scale.get(task, (0.0, 1.0)) if not metric.startswith("pass") else (0.0, 1.0)
            pairs = pairs / (high - low)
            if by_task:
                found = statistics.mean_interval(pairs)
                findings.append(_paired_finding(name, task, found, margin, _why_absent(results, task, method, name)))
            elif len(pairs):
                differences[task] = pairs
        if not by_task:
            found = statistics.task_mean_interval(differences)
            findings.append(_paired_finding(name, f"mean of {len(differences)} tasks", found, margin, ""))
    return metric, findings


def _why_absent(results, task, method, name):
    cells = [results.cells.get((task, e)) for e in (method, name)]
    return "; ".join(f"{c.estimator}: {c.status}" for c in cells if c is not None and c.status not in ("ok", "committed"))


def _paired_finding(name, where, found, margin, absent):
    finding = Finding(
        name,
        where,
        effect=found.estimate,
        low=found.low,
        high=found.high,
        null=0.0 - margin,
        num_pairs=found.num_pairs,
        reason="; ".join(filter(None, [found.reason, absent])),
    )
    if found.error:
        finding.p_for = found.p_below(-margin)
        finding.p_against = 1 - found.p_below(-margin if margin else 0.0)
        if found.low is not None and (finding.p_for < SIDE) != (found.low > -margin):  # BCa and t disagree
            finding.p_for = max(finding.p_for, SIDE)
    return finding


def judge_wall_clock(results, method, spec):
    """alternative / method in training seconds per seed (evaluation is off the clock), paired by task."""
    margin, findings = float(spec.get("margin", 0.0)), []
    for name in _alternatives(results, method, spec):
        if name not in results.estimators:
            continue
        logs = []
        for task in results.tasks:
            mine, other = (training_seconds(results.cells.get((task, e))) for e in (method, name))
            if mine and other:
                logs.append(math.log(other / mine))
        found = statistics.mean_interval(logs)
        null = math.log(1 - margin) if margin else 0.0
        finding = _paired_finding(name, f"mean of {len(logs)} tasks", found, -null, "")
        for key in ("effect", "low", "high", "null"):
            value = getattr(finding, key)
            setattr(finding, key, None if value is None else math.exp(value))
        finding.reason = finding.reason.replace("seeds", "tasks")
        findings.append(finding)
    return "time ratio", findings


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


def as_json(claims):
    """Plain values for claims.json; findings included."""

    def clean(value):
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, list):
            return [clean(v) for v in value]
        if isinstance(value, float):
            return float(f"{value:.6g}") if math.isfinite(value) else None
        return value

    return [clean(asdict(c)) for c in claims]
