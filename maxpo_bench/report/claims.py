"""Claims of claims.yaml, judged from the pipeline's data: supported, contradicted or inconclusive.

A claim is a set of findings: one per alternative and place (task, regime or overall). All p values are one-sided, and a
verdict needs 2.5% in its direction (5% both), after Holm's correction over the claims, the same for both directions:
    supported     every finding goes its way: the largest p value of them (intersection-union test),
    contradicted  at least one finding goes the other way: the smallest p value, after Holm over the claim's findings,
    inconclusive  otherwise, and always when there is nothing to judge by.
A finding by itself is judged after Holm over the findings of its claim; a claim that is supported settles all of its own.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.measure import statistics
from maxpo_bench.report.claim_measures import AGAINST, MEASURES, SIDE, TRAINED, Finding

KEYS = {"id", "statement", "measure", "by", "against", "margin", "column", "is", "effect", "unit", "at_most"}


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
    exact: bool = False  # that finding is exact: there is no interval because there is no chance
    margin: str = ""  # of claims.yaml, in words
    p_for: float | None = None  # one-sided, after Holm over the claims; supported below 2.5%
    p_against: float | None = None  # likewise; contradicted below 2.5%
    reason: str = ""
    findings: list[Finding] = field(default_factory=list)

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
        _check_options(claim, where)
    return raw["method"], raw["claims"]


def _check_options(claim, where):
    """InputError for an option that is missing, has a wrong type, or is not one of its values."""
    measure = claim["measure"]
    needed = {"property": ("column", "is"), "growth": ("at_most",)}.get(measure, ())
    for key in needed:
        if key not in claim:
            raise InputError(f"{where}: {key}: missing, measure {measure} needs it")
    for key in ("column", "effect"):
        if key in claim and not isinstance(claim[key], str):
            raise InputError(f"{where}: {key}: must name a column of results/studies/properties.csv, not {claim[key]!r}")
    for key in ("margin", "at_most"):
        value = claim.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise InputError(f"{where}: {key}: must be a number of at least 0, not {value!r}")
    if "margin" in claim and measure not in (*TRAINED, "wall_clock"):
        raise InputError(f"{where}: margin: not for measure {measure}")
    if claim.get("by", "task") not in ("task", "overall"):
        raise InputError(f"{where}: by: must be task or overall, not {claim['by']!r}")
    against = claim.get("against", "non_centred")
    if isinstance(against, str) and against not in AGAINST:
        raise InputError(f"{where}: against: unknown {against!r}{did_you_mean(against, AGAINST)}")
    if not isinstance(against, str) and not (isinstance(against, list) and all(isinstance(x, str) for x in against)):
        raise InputError(f"{where}: against: must be one of {', '.join(AGAINST)} or a list of names, not {against!r}")


def judge(results, path=None):
    """Every claim of claims.yaml judged on the results: a list of Claim, in the file's order."""
    method, declared = read(path or results.root / "claims.yaml")
    judged = []
    for spec in declared:
        claim = Claim(spec["id"], spec["statement"], spec["measure"], margin=_margin(spec))
        if claim.margin:
            said = "{margin}" in claim.statement
            claim.statement = claim.statement.replace("{margin}", claim.margin) if said else f"{claim.statement} ({claim.margin})"
        claim.unit, claim.findings = MEASURES[spec["measure"]](results, method, spec)
        judged.append(claim)
    every, some = [], []  # p values of "all findings hold" and of "one goes the other way"
    for claim in judged:
        every.append(_largest([f.p_for for f in claim.findings]))
        against = [p for p in _decide_findings(claim.findings) if p is not None]
        some.append(min(against) if against else None)
    for claim, p_for, p_against in zip(judged, statistics.holm(every), statistics.holm(some), strict=True):
        claim.p_for, claim.p_against = p_for, p_against
        _decide(claim)
    return judged


def _margin(spec):
    """The margin in words: a share of the time for wall_clock, else a distance on the 0 to 1 scale; "" without one."""
    margin = spec.get("margin")
    return "" if not margin else f"{100 * margin:g}%" if spec["measure"] == "wall_clock" else f"{margin:g}"


def _largest(ps):
    return max(ps) if ps and None not in ps else None


def _decide_findings(findings):
    """Verdict of each finding, both directions corrected by Holm over them; returns the adjusted p values against."""
    up, down = (statistics.holm([getattr(f, key) for f in findings]) for key in ("p_for", "p_against"))
    for finding, p_for, p_against in zip(findings, up, down, strict=True):
        if p_for is not None and p_for < SIDE:
            finding.verdict = "supported"
        elif p_against is not None and p_against < SIDE:
            finding.verdict = "contradicted"
        elif p_for is not None and min(finding.p_for, finding.p_against) < SIDE and not finding.reason:
            finding.reason = f"not beyond chance among {len(findings)} comparisons (Holm)"
        elif p_for is not None and None not in (finding.low, finding.high) and not finding.reason:
            if not finding.low <= finding.null <= finding.high:
                finding.reason = "at the edge: the interval leaves out no difference, the test does not"
    return down


def _decide(claim):
    if not claim.findings:
        claim.reason = "nothing to judge by: no such alternative among the results"
        return
    if claim.p_against is not None and claim.p_against < SIDE:
        claim.verdict = "contradicted"
    elif claim.p_for is not None and claim.p_for < SIDE:
        claim.verdict = "supported"
        for finding in claim.findings:
            finding.verdict = "supported"
            finding.reason = "" if finding.reason.endswith("(Holm)") else finding.reason
    shown = [f for f in claim.findings if f.effect is not None]
    shown = [f for f in shown if f.verdict == claim.verdict == "contradicted"] or shown
    if not shown:
        claim.reason = claim.findings[0].reason
        return
    least = min(shown, key=lambda f: f.effect - f.null if f.low is None else f.low - f.null)
    claim.effect, claim.low, claim.high = least.effect, least.low, least.high
    claim.num_pairs, claim.exact = least.num_pairs, least.exact
    if len(claim.findings) == 1:
        claim.reason = least.reason
    else:
        claim.reason = f"least favourable: {least.against} ({least.where})" + (f", {least.reason}" if least.reason else "")
    if claim.verdict == "inconclusive" and claim.count("supported") == len(claim.findings):
        holds = "holds here, but not beyond chance among all claims (Holm)"
        claim.reason = "; ".join(filter(None, [claim.reason, holds]))
    if claim.verdict == "inconclusive" and claim.count("contradicted"):
        doubt = "what goes the other way is not beyond chance among all claims (Holm)"
        claim.reason = "; ".join(filter(None, [claim.reason, doubt]))


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
