"""The first screen of the report: the answer in words, how sure it is, and the claims with their verdicts."""

from maxpo_bench.report.page import MARKS, cell, count, interval, name, num, number, table
from maxpo_bench.report.style import REFERENCE


def answer(advice, claims=(), method=REFERENCE):
    """The answer in a few sentences: which estimator, how sure, how the claims fared; a list of paragraphs."""
    first = advice[0] if advice else None
    if first is None or first.best is None:
        return ["No cell has a finite max@K yet: run the pipeline; what was run is under State of the cells."]
    k = first.trained_k or "K"
    lines = [_sentence(first, f"For the best of {k} samples (max@{k}, the K trained for)")]
    one = next((a for a in advice if a.k == 1 and a.best), None)
    if one is not None and first.trained_k != 1:
        lines.append(_sentence(one, "For a single answer (k = 1, the mean reward)"))
    if claims:
        verdicts = [f"{sum(c.verdict == v for c in claims)} {v}" for v in ("supported", "contradicted", "inconclusive")]
        lines.append(f"{count(len(claims), 'claim')} about {method}, the method under test: {', '.join(verdicts)} (second table).")
    return lines


def _sentence(a, start):
    """Which estimators come into question, the figures of the highest, and who is surely ahead or behind."""
    chosen = f"use {a.best}"
    if a.tied:
        chosen += f", or one of those not told apart from it: {', '.join(a.tied)}"
    level = f"{a.best} is highest, {number(a.level)} (mean of {count(a.num_tasks, 'task')})"
    if not a.gaps:
        return f"{start}, {chosen}: {level}; no other estimator has results on the same tasks."
    if a.sure == "too few seeds":
        reasons = ", ".join(sorted(set(a.unjudged.values())))
        return f"{start}, {chosen}. Not sure: {level}, but no other could be judged ({reasons})."
    if a.lead is not None:
        pairs = f" ({count(a.lead.num_pairs, 'seed pair')})" if a.lead.low is not None else f" ({a.lead.reason})"
        lead = f"{number(a.lead.estimate, sign=True)} {interval(a.lead.low, a.lead.high)}"
        level += f", {lead} over the next, {a.runner_up}{pairs}; both picked from these data, so this leans high"
    if a.sure == "clear":
        limits = [f"compared on part of the tasks: {_shares(a)}"] if a.partial else []
        limits += [f"no results: {', '.join(a.absent)}"] if a.absent else []
        limits = f" But {'; '.join(limits)}." if limits else ""
        return f"{start}, {chosen}. Sure: {level}, and every other estimator with results is behind it beyond chance.{limits}"
    doubts = [f"ahead of it beyond chance where it applies: {_ahead(a)}"] if a.ahead else []
    doubts += [f"could not be judged: {', '.join(a.unjudged)}"] if a.unjudged else []
    doubts = "".join(f"; {d}" for d in doubts)
    verb = "is" if len(a.worse) == 1 else "are"
    behind = f"Sure: {', '.join(a.worse)} {verb} behind it." if a.worse else "None is behind it beyond chance."
    return f"{start}, {chosen}. Not sure which: {level}{doubts}. {behind}"


def _shares(a):
    return ", ".join(f"{e} ({n} of {a.num_tasks})" for e, n in a.partial.items())


def _ahead(a):
    return ", ".join(f"{e} (on {n} of {a.num_tasks} tasks)" for e, n in a.ahead.items())


def state(data, stale=()):
    """One sentence on how complete the results are; what is missing, failed or stale is named by its count."""
    counts = data["status"].value_counts()
    words = {"ok": "computed on this machine", "committed": "published, not recomputed here", "not_applicable": "not applicable"}
    parts = [f"{n} {words.get(s, s)}" for s, n in counts.items()]
    bad = sum(n for s, n in counts.items() if s not in words)
    num_tables = len({path.partition(": ")[0] for path in stale})
    files = f" Stale rows, not used, in {count(num_tables, 'variance or study table')}." if stale else ""
    where = " Reasons under State of the cells." if bad or stale else ""
    return f"{count(len(data), 'cell')}: {', '.join(parts)}.{files}{where}"


def advice_table(advice):
    rows, partial = [], {}
    trained = advice[0].trained_k if advice else None
    for a in advice:
        if a.best is None or a.k == trained:  # its row is the first one
            continue
        label = str(a.k) if a.k != "K" else f"{trained}, as trained" if trained else "K, as trained"
        lead = a.lead
        doubts = [f"{_ahead(a)} ahead"] if a.ahead else []
        doubts += [f"not told apart from {', '.join(a.tied)}"] if a.tied else []
        doubts += [f"not judged: {', '.join(a.unjudged)}"] if a.unjudged and a.sure != "too few seeds" else []
        where = " where compared" if a.partial or a.absent else ""
        sure = f"yes: all others behind{where}" if a.sure == "clear" else f"no: {'; '.join(doubts) or a.sure}"
        rows.append(
            [
                cell(label, (trained or 0) if a.k == "K" else a.k, "num"),
                name(a.best),
                num(a.level),
                cell(
                    "-" if lead is None else f"{number(lead.estimate, True)} {interval(lead.low, lead.high)}",
                    "" if lead is None else lead.estimate,
                    "num",
                ),
                cell(sure, a.sure, "sure" if a.sure == "clear" else "unsure"),
                num(a.num_tasks),
                num(lead.num_pairs if lead else 0),
            ]
        )
        for e, n in a.partial.items():
            partial.setdefault(e, {}).setdefault(f"{n} of {a.num_tasks}", label)
    parts = []
    for e, found in sorted(partial.items()):
        shares = [share if i == 0 else f"{share} at k = {k}" for i, (share, k) in enumerate(found.items())]
        parts.append(f"{e} ({'; '.join(shares)})")
    note = f" Results on part of the tasks only, compared there: {', '.join(parts)}." if parts else ""
    return table(
        ["k", "highest", "max@k", "lead over the next", "sure?", "tasks", "pairs"],
        rows,
        "max@k on the scale 0 to 1, mean over tasks, of policies trained for each task's own K, whatever k they are asked for; in "
        "brackets the 95% interval of the paired difference. A task counts where its evaluation drew k samples. Not told apart: "
        "the paired difference to the highest is not beyond chance (5%, Holm over all pairs of estimators, so whichever is "
        "highest); not the same as equal. The highest and the next are picked from these same data: level and lead lean high."
        + note,
        "tables/advice.csv",
        cards=True,
    )


def claims_table(claims, untrained=()):
    """untrained: non-centred alternatives without cells, which no claim about trained policies looks at."""
    rows, left_out = [], f" Not trained, so not compared after training: {', '.join(untrained)}." if untrained else ""
    for c in claims:
        effect = "-" if c.effect is None else f"{number(c.effect, _signed(c))} {interval(c.low, c.high, c.exact)}"
        rows.append(
            [
                cell(f"{MARKS[c.verdict]} {c.verdict}", c.verdict, f"verdict {c.verdict}"),
                cell(c.statement),
                cell(effect, "" if c.effect is None else c.effect, "num"),
                cell(c.unit + (f", margin {c.margin}" if c.margin else "")),
                num(c.num_pairs) if c.num_pairs else cell("-", 0, "num"),
                cell(evidence(c)),
            ]
        )
    return table(
        ["verdict", "claim", "effect [95% interval]", "of what", "n", "evidence"],
        rows,
        "A claim says 'each', so effect, interval and n (pairs of seeds; pairs of tasks for time, groups for a sampled variance, "
        "sizes for growth) are those of the least favourable comparison. Supported: every comparison holds. Contradicted: at least "
        "one goes the other way beyond chance (Holm over the claim's comparisons). Both after Holm over the claims, one-sided 2.5% "
        "each way. With a margin, a loss no larger than it counts as no loss. Variance on each task is compared at three policies "
        f"of its training (initial, middle, final). In brackets: 95% intervals.{left_out}",
        "tables/claims.csv",
        cards=True,
    )


def _signed(claim):
    return claim.unit.startswith(("max", "pass", "mean"))


def evidence(claim):
    """What stands behind a verdict: the numbers of each comparison when they are few, else how many fall which way."""
    if len(claim.findings) <= 1:
        only = [f"against {f.against}, {f.where}" for f in claim.findings if f.against]
        return "; ".join([*only, claim.reason] if claim.reason else only)
    parts, groups = [], {}
    for f in claim.findings:
        groups.setdefault(f.against, []).append(f)
    if all(len(found) == 1 for found in groups.values()) and len(groups) <= 3:
        return "; ".join(
            f"against {f.against}: {number(f.effect, _signed(claim))} {interval(f.low, f.high, f.exact)} {MARKS[f.verdict]}"
            + (f" ({f.reason})" if f.reason else "")
            for f in claim.findings
        )
    if all(len(found) == 1 for found in groups.values()):
        groups = {f"{len(groups)} others": claim.findings}
    for against, found in groups.items():
        counts = {v: sum(f.verdict == v for f in found) for v in MARKS}
        share = ", ".join(f"{n} {v}" for v, n in counts.items() if n)
        parts.append(f"against {against}: {share}" + (f" of {len(found)}" if len(share.split(", ")) > 1 else ""))
    return "; ".join([*parts, claim.reason] if len(parts) == 1 else parts)
