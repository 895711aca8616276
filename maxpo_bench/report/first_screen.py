"""The first screen of the report: the answer in words, how sure it is, and the claims with their verdicts."""

from maxpo_bench.report.page import MARKS, cell, count, interval, name, num, number, table


def answer(advice):
    """The answer in two sentences: which estimator, how far ahead, how sure. A list of paragraphs."""
    first = advice[0] if advice else None
    if first is None or first.best is None:
        return ["No cell has results yet: run the pipeline."]
    lines = [f"To raise max@K at the K trained for, use {first.best}: {_sure(first)}"]
    one = next((a for a in advice if a.k == 1 and a.best), None)
    if one is not None:
        lines.append(f"For a single answer (k = 1), use {one.best}: {_sure(one)}")
    return lines


def _sure(a):
    start = f"mean max@{a.k} {number(a.level)} over {count(a.num_tasks, 'task')}"
    if not a.gaps:
        return f"{start}; no other estimator has results on the same tasks."
    if a.sure == "too few seeds":
        reasons = ", ".join(sorted(set(a.unjudged.values())))
        return f"{start}. Not sure: no other estimator could be judged ({reasons})."
    if a.lead is not None:
        start += f", {number(a.lead.estimate, sign=True)} {interval(a.lead.low, a.lead.high)} over the next, {a.runner_up}"
        start += f" ({count(a.lead.num_pairs, 'seed pair')})" if a.lead.low is not None else ""
    if a.sure == "clear":
        return f"{start}. Sure: every other estimator is behind beyond chance."
    if a.lead is not None and a.lead.low is None and not a.ahead:
        return f"{start}. Not sure: {a.lead.reason or 'too few seeds'}."
    rest = [f"ahead of it beyond chance where it applies: {_ahead(a)}"] if a.ahead else []
    rest += [f"not told apart from it: {', '.join(a.tied)}"] if a.tied else []
    rest += [f"could not be judged: {', '.join(a.unjudged)}"] if a.unjudged else []
    rest += [f"behind beyond chance: {', '.join(a.worse)}" if a.worse else "none is behind beyond chance"]
    return f"{start}. Not sure: {'; '.join(rest)}."


def _ahead(a):
    return ", ".join(f"{e} (on {n} of {a.num_tasks} tasks)" for e, n in a.ahead.items())


def state(data):
    """One sentence on how complete the results are; what is missing, failed or stale is named by its count."""
    counts = data["status"].value_counts()
    words = {"ok": "computed on this machine", "committed": "published, not recomputed here", "not_applicable": "not applicable"}
    parts = [f"{n} {words.get(s, s)}" for s, n in counts.items()]
    bad = sum(n for s, n in counts.items() if s not in words)
    return f"{count(len(data), 'cell')}: {', '.join(parts)}." + (" Reasons under State of the cells." if bad else "")


def advice_table(advice):
    rows = []
    for a in advice:
        if a.best is None:
            continue
        label = "K, as trained" if a.k == "K" else str(a.k)
        lead = a.lead
        doubts = [f"{_ahead(a)} ahead"] if a.ahead else []
        doubts += [f"ties with {', '.join(a.tied)}"] if a.tied else []
        doubts += [f"not judged: {', '.join(a.unjudged)}"] if a.unjudged and a.sure != "too few seeds" else []
        sure = "yes: all others behind" if a.sure == "clear" else f"no: {'; '.join(doubts) or a.sure}"
        rows.append(
            [
                cell(label, 0 if a.k == "K" else a.k, "num"),
                name(a.best),
                num(a.level),
                cell(
                    "-" if lead is None else f"{number(lead.estimate, True)} {interval(lead.low, lead.high)}",
                    "" if lead is None else lead.estimate,
                    "num",
                ),
                cell(sure, a.sure, "sure" if a.sure == "clear" else "unsure"),
                num(lead.num_pairs if lead else 0),
            ]
        )
    partial = sorted({f"{e} ({n} of {a.num_tasks})" for a in advice for e, n in a.partial.items()})
    note = f" Results on part of the tasks only, compared there: {', '.join(partial)}." if partial else ""
    return table(
        ["k", "use", "max@k", "lead over the next", "sure?", "pairs"],
        rows,
        "max@k on the scale 0 to 1, mean over tasks, of policies trained for each task's own K. A tie: the paired difference to "
        f"the best is not beyond chance (Holm over the rivals, 5%).{note}",
        "tables/advice.csv",
    )


def claims_table(claims):
    rows = []
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
        ["verdict", "claim", "effect [95% interval]", "of what", "pairs", "evidence"],
        rows,
        "A claim says 'each', so effect, interval and pairs are those of the least favourable comparison. Supported: every "
        "comparison holds. Contradicted: at least one goes the other way beyond chance (Holm over the claim's comparisons). Both "
        "after Holm over the claims, one-sided 2.5% each way. With a margin, a loss no larger than it counts as no loss.",
        "tables/claims.csv",
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
