"""What stands on the page as data: texts, figures, and tables as they are shown, for both templates."""

import math

import pandas as pd

from maxpo_bench.report import load
from maxpo_bench.report.verdicts import PROTOCOLS, RATIOS, VIEWS
from maxpo_bench.report.words import TEXT, about, caption, count, said, short
from maxpo_bench.studies.style import REFERENCE

MARKS = {"supported": "✓", "contradicted": "✗", "equivalent": "=", "undecided": "?"}
SHORT = {"at half of the steps": "½", "area under the curve": "area", "initial policy": "initial", "final policy": "final"}
WHOLE = {"seeds", "pairs", "tasks", "K", "N", "k", "num_seeds", "num_tasks", "num_pairs", "num_groups", "num_runs", "group_size"}
WHOLE |= {"runs", "epochs", "processes"}


def number(value, sign=False, digits=3):
    """A number for a table: 3 decimals below 10, fewer above; "-" for none."""
    if _none(value) or isinstance(value, float) and math.isinf(value):
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    plus, size = "+" if sign else "", abs(value)
    if isinstance(value, int):
        return f"{value:{plus}d}"
    if 0 < size < 0.0005:
        return f"{value:{plus}.{'4f' if size >= 0.00005 else '0e'}}"
    return f"{value:{plus}.{digits if size < 9.9995 else 1 if size < 999.95 else 0}f}"


def interval(low, high, shown=number):
    """[low, high] in words for a table."""
    return "no interval" if _none(low) or _none(high) else f"[{shown(low)}, {shown(high)}]"


def spans(data, value, low="low", high="high", sign=False):
    """A column "value [low, high]" out of three; "-" where there is no value."""
    rows = zip(data[value], data[low], data[high], strict=True)
    return ["-" if _none(v) else f"{number(v, sign)} {interval(a, b)}" for v, a, b in rows]


def _none(value):
    return value is None or value != value


def cell(text, kind="", estimator=None, note=""):
    """One table cell: text, a class, the estimator whose colour marks it, and a second, smaller line."""
    return {"text": str(text), "kind": kind, "estimator": estimator, "note": note}


def frame(data, caption="", csv="", fold=False, cards=False, groups=()):
    """A DataFrame as a table block: names of estimators get their colour, verdicts and statuses theirs, numbers stand right.

    cards: on a narrow screen every row is a card of its own. groups: (title, number of columns) of a second head.
    """

    def shown(column, value):
        if isinstance(value, dict):
            return value
        if column in ("estimator", "rival"):
            return cell(value, "name", value)
        if value in MARKS:
            return cell(f"{MARKS[value]} {value}", f"verdict {value}")
        if column == "status":
            return cell(value, f"status {value}")
        if isinstance(value, str) and value != "-" and not value[:1].isdigit() and value[:2] not in ("-0", "+0", "+1"):
            return cell(value)
        value = value.item() if hasattr(value, "item") else value
        whole = isinstance(value, float) and value.is_integer() and column in WHOLE
        return cell(number(int(value) if whole else value), "num")

    rows = [[shown(*pair) for pair in zip(data.columns, row, strict=True)] for row in data.itertuples(index=False)]
    table = {"kind": "table", "columns": [str(c) for c in data.columns], "rows": rows, "caption": caption, "csv": csv}
    return table | {"fold": fold, "cards": cards, "groups": list(groups)}


def table(name, data, csv=None, **options):
    """A DataFrame with its caption of report.yaml and a link to tables/<csv or name>.csv; None where it is empty."""
    csv = name if csv is None else csv
    found = TEXT["captions"].get(name, "")
    return frame(data, found, csv and f"tables/{csv}.csv", **options) if data is not None and len(data) else None


def text(*paragraphs):
    return {"kind": "text", "paragraphs": [p for p in paragraphs if p]}


def figure(made, csv=""):
    """One picture of several files side by side: made is a list of (stem, caption)."""
    return {"kind": "figure", "names": [stem for stem, _ in made], "caption": " ".join(c for _, c in made), "csv": csv}


def sections(blocks, **values):
    """The sections of report.yaml. blocks: {name: a block, a list of blocks, or None}; values: for the braces of its paragraphs."""
    for title, names in TEXT["sections"].items():
        shown = []
        for name in names:
            found = blocks.get(name) if " " not in name else text(name.format(**values))
            found = {"kind": "heading", "text": name[2:]} if name.startswith("# ") else found
            shown += found if isinstance(found, list) else [found]
        shown = [block for block in shown if block and block.get("paragraphs", True)]
        slug = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
        none = [text("Nothing to show yet: no results of this kind.")]
        yield {"id": slug, "title": title, "blocks": shown or none}


# ------------------------------------------------------------------------------------------------------------- verdicts


def matrix(verdicts, measures, rivals=None, properties=(), csv="claims"):
    """The verdicts of some measures: a row per rival (of `rivals`, or all), a column per measure and aggregate."""
    chosen = verdicts[verdicts["measure"].isin(measures)] if len(verdicts) else verdicts
    chosen = chosen[chosen["rival"].isin(rivals)] if rivals and len(chosen) else chosen
    if not len(chosen):
        return text("No claim could be judged.")
    columns = [(m, a) for m in measures for a in chosen.loc[chosen["measure"] == m, "aggregate"].drop_duplicates()]
    found = {(r["rival"], r["measure"], r["aggregate"]): r for r in chosen.to_dict("records")}
    rows = [
        {"rival": r, "what it is": about(r)} | {f"{m}: {a}": _verdict_cell(found.get((r, m, a))) for m, a in columns}
        for r in chosen["rival"].drop_duplicates()
    ]
    groups = [("", 2), *((m, sum(m == measure for measure, _ in columns)) for m in measures)]
    margins = chosen.drop_duplicates("measure").itertuples()
    margins = ", ".join(
        f"{r.measure} ±{100 * r.margin:g}%" if r.measure in RATIOS else f"{r.measure} ±{r.margin:g}" for r in margins
    )
    lacking = chosen.loc[chosen["left_out"] > 0, "rival"].drop_duplicates()
    more = f" On part of the tasks, whose rewards it takes: {', '.join(lacking)}." if len(lacking) else ""
    for row in properties:
        more += f" {MARKS[row['verdict']]} by exact enumeration: {row['statement'][0].lower()}{row['statement'][1:]}."
    told = caption("matrix", margins=margins, more=more)
    return frame(pd.DataFrame(rows), told, f"tables/{csv}.csv", cards=True, groups=[(m, n) for m, n in groups if n])


def _verdict_cell(row, view=""):
    """A verdict with its number and interval; of the main view with what other views say where it flips."""
    if row is None:
        return cell("-")
    verdict, prefix = (row[view], f"{view}: ") if view else (row["verdict"], "")
    effect, low, high = (row.get(f"{prefix}{column}") for column in ("effect", "low", "high"))
    if _none(effect):
        return cell(MARKS.get(verdict, "-"), f"verdict {verdict}" if verdict else "", note="no results of both" if verdict else "")
    note, star = interval(low, high, short), "*" if not view and row["flips"] else ""
    if not view:
        note += f" {row['seeds_factor']:.1f}×" if not _none(row["seeds_factor"]) else ""
        note += f", {count(int(row['num_tasks']), 'task')}" if row["left_out"] else ""
        others = {*MARKS} - {verdict, "undecided"}
        note += "".join(f", {SHORT[v]}\u00a0{MARKS[row[v]]}" for v in SHORT if star and row.get(v) in others)
    number = f"×{short(effect)}" if row["measure"] in RATIOS else short(effect, "+")
    return cell(f"{MARKS[verdict]}{star} {number}", f"verdict {verdict}", note=note)


def protocols(verdicts):
    """(words, table): verdicts at the shared learning rate beside those at each estimator's own best, on the swept tasks."""
    rows = verdicts[verdicts[PROTOCOLS[1]].isin(MARKS)] if PROTOCOLS[1] in verdicts else []
    if not len(rows):
        return None, None
    columns = {"rival": rows["rival"], "measure": rows["measure"], "tasks of": rows["aggregate"]}
    columns |= {view.split(",")[0]: [_verdict_cell(row, view) for row in rows.to_dict("records")] for view in PROTOCOLS}
    columns["depends on the protocol"] = ["yes" if depends else "" for depends in rows["depends"]]
    depend = [f"{r.measure} against {r.rival} ({r.aggregate})" for r in rows[rows["depends"]].itertuples()]
    told = f"{count(len(depend), 'verdict')} of {len(rows)} depend on the protocol: {'; '.join(depend)}."
    told = told if depend else f"None of {len(rows)} verdicts depends on the protocol."
    return text(told), table("protocols", pd.DataFrame(columns), "claims", fold=len(rows) > 20)


def every_verdict(verdicts):
    """Each comparison behind a verdict, with its reason and its other views."""
    if not len(verdicts):
        return None
    data = verdicts[["measure", "rival", "aggregate", "verdict"]].rename(columns={"aggregate": "tasks of"})
    data = data.assign(effect=spans(verdicts, "effect"), tasks=verdicts["num_tasks"], pairs=verdicts["num_pairs"])
    views = [{v.removeprefix("at "): r[v] for v in VIEWS[r["measure"]][1:] if r[v]} for r in verdicts.to_dict("records")]
    data["other views"] = ["; ".join(f"{view}: {verdict}" for view, verdict in found.items()) for found in views]
    data["more seeds"] = ["" if _none(f) else f"{f:.1f} × as many" for f in verdicts["seeds_factor"]]
    return table("verdicts", data.assign(reason=verdicts["reason"]), "claims", fold=True)


# ------------------------------------------------------------------------------------------- tables as they are shown


def columns(data, keys, **shown):
    """The columns `keys` of data, then under each name of `shown` "value [low, high]" of (value, low, high)."""
    found = data[list(keys)].copy()
    for name, three in shown.items():
        found[name] = spans(data, *three, sign=name.startswith(("minus", "change")))
    return found


def ladder_ends(data, ks=(1, 16)):
    """pass@k for some k side by side on the tasks with 0/1 rewards, each task's first row the policy before training."""
    graded = set(data.loc[(data["max_at_k"] - data["pass_at_k"]).abs() > 1e-9, "task"])
    data = data[data["k"].isin(ks) & ~data["task"].isin(graded)].sort_values("step", kind="stable")
    if not len(data):
        return None
    data = data.assign(estimator=data["estimator"].where(data["when"] == "after", "before training"))
    data = data.drop_duplicates(["task", "estimator", "k"])
    data["shown"] = spans(data, "pass_at_k", "pass_at_k_low", "pass_at_k_high")
    order = data[["task", "estimator"]].drop_duplicates()
    shown = order.merge(data.pivot(index=["task", "estimator"], columns="k", values="shown").fillna("-").reset_index())
    shown = shown.sort_values("task", key=lambda c: c.map({t: i for i, t in enumerate(dict.fromkeys(c))}), kind="stable")
    return shown.rename(columns={k: f"pass@{k}" for k in ks})


def power_table(data):
    """Spread, seeds and the width reached; probability of each verdict at true differences, a block of four columns each."""
    names = {"spread": "spread", "seeds": "seeds", "aimed_at": "aimed at", "half_width": "width reached", "seeds_for_it": "needed"}
    shown = data[["task", "rival", *[c for c in names if c in data]]].rename(columns=names)
    groups = [("", shown.shape[1])]
    for truth in dict.fromkeys(c.split(" at ")[1] for c in data if c.split(" at ")[0] in MARKS):
        found = {f"{truth}: {mark}": data[f"{v} at {truth}"] for v, mark in MARKS.items() if f"{v} at {truth}" in data}
        shown = shown.assign(**{name: [f"{v:.2f}" for v in values] for name, values in found.items()})
        groups.append((f"true difference {truth}", len(found)))
    return frame(shown, TEXT["captions"]["power"], "studies/power.csv", fold=len(shown) > 12, groups=groups)


def statuses(data):
    counts = data["status"].value_counts()
    return frame(pd.DataFrame([{"status": s, "cells": counts[s], "meaning": m} for s, m in load.STATUSES.items() if s in counts]))


def reasons(data):
    listed = data.loc[(data["status"] != "ok") | (data["reason"] != ""), ["task", "estimator", "status", "reason"]]
    return frame(listed) if len(listed) else text("Every declared cell has results.")


def notes(data, known):
    errors = data[data["verifier_errors"].fillna(0) > 0].itertuples()
    told = [f"{r.task} under {r.estimator}: the verifier raised {int(r.verifier_errors)} times." for r in errors]
    return text(*told, *(f"Note: {n}" for n in known))


def exact_said(data):
    """How often sampled evaluation missed the exact value, among the cells whose problem can be enumerated."""
    known = data.dropna(subset=["low", "high"])
    outside, after, cells = int(known["outside"].sum()), int((known["p_holm"] < 0.05).sum()), count(len(known), "cell")
    values = {"cells": cells, "outside": outside, "expected": 0.05 * len(known), "after": after or "none"}
    return text(said("exact", **values)) if len(known) else None


def runs(results):
    """Tasks with their settings and seeds; versions, hashes and machines stand beside each cell."""
    rows = []
    for task, declared in results.tasks.items():
        cells = [results.cells[task, e] for e in results.estimators]
        seeds = next((c.metrics.get("seeds", []) for c in cells if c.usable), [])
        title, n = "" if isinstance(declared, str) else declared.title, results.setting(task, "group_size")
        rows.append([task, title, results.setting(task, "k"), n, len(seeds), _ranges(set(seeds))])
    return pd.DataFrame(rows, columns=["task", "title", "K", "N", "seeds", "which"])


def _ranges(seeds):
    """Seeds in words: "0 to 99, 110 to 309"."""
    starts, ends = (sorted(s for s in seeds if s + step not in seeds) for step in (-1, 1))
    return ", ".join(f"{a} to {b}" if b > a else str(a) for a, b in zip(starts, ends, strict=True)) or "-"


# ------------------------------------------------------------------------------------------ what trains more, or for longer


def pending(results, study):
    """One line where a study that trains has no table yet, or not on all the tasks declared for it."""
    tasks = results.absent.get(study, [])
    where = f" on {', '.join(tasks)}" if study in results.trained and tasks else ""
    return text(said("pending", where=where)) if where or study not in results.trained else None


def k_trained_said(data, margin):
    """In words: does training for K maximise max@K? Counted over tasks, estimators that use K, and every K that was trained for."""
    rows = data[~data["fixed"] & data["gap"].notna() & (data["k"] != data["evaluated"])] if len(data) else data
    if not len(rows):
        return None
    most = rows.groupby(["task", "estimator", "evaluated"], sort=False)[["low", "gap"]].max()
    worst = rows[rows["low"] > 0].sort_values("gap", ascending=False, kind="stable").head(1).to_dict("records")
    told = [
        said("k_trained_worst", **r | {"gap": short(r["gap"]), "interval": interval(r["low"], r["high"], short)}) for r in worst
    ]
    best, near = (~(most["low"] > 0)).sum(), (most["gap"] <= margin + 1e-9).sum()
    return text(said("k_trained", best=best, cases=len(most), margin=margin, near=near, worst="".join(told)))


def off_policy(data):
    """max@K after one pass and after several, with the difference to the method and to one pass."""
    if not len(data):
        return None
    three = {
        name: [c, f"{c}_low", f"{c}_high"] for name, c in (("max@K", "max_at_k"), ("minus", "max_at_k_gap"), ("change", "change"))
    }
    shown = columns(data, ["task", "estimator", "epochs", "clip"], **three)
    shown["minus"], shown["change"] = (
        shown["minus"].where(data["estimator"] != REFERENCE, "-"),
        shown["change"].where(data["epochs"] > 1, "-"),
    )
    return shown.rename(columns={"minus": f"minus {REFERENCE}", "change": "minus 1 epoch"})


def cheap_said(data):
    """Who would join the default list, by the rule."""
    rows = data[data["task"] == "mean"]
    joins = [f"{r.estimator} ({short(r.best, '+')})" for r in rows[rows["joins"]].itertuples()]
    told = f"these would join: {', '.join(joins)}; in brackets, minus the best default" if joins else "nobody would join"
    same = ", ".join(f"{r.estimator} and {r.same_as}" for r in rows[rows["same_as"] != ""].itertuples())
    return text(said("rule"), f"By it {told}." + f" The same numbers on every seed: {same}." * bool(same))


def cheap(data):
    rows = data[data["task"] == "mean"]
    shown = rows[["estimator"]].assign(**{"what it is": [about(e) for e in rows["estimator"]], "max@K": rows["max_at_k"]})
    shown["minus the best default"] = [number(v, sign=True) for v in rows["best"].astype(float)]
    shown[f"minus {REFERENCE}"], shown["tasks"] = spans(rows, "gap", sign=True), rows["num_tasks"]
    shown["default list"] = ["is there" if r.default else "joins" if r.joins else "" for r in rows.itertuples()]
    return table("cheap", shown, "estimators", fold=True)


def long_said(long, not_run):
    """What the long tasks are, how much of each model is trained, and which of them have no results."""
    told = []
    for name, task in long.tasks.items():
        lora = getattr(task, "sections", {}).get("lora", {})
        part = said("lora", rank=lora["rank"], targets=", ".join(lora["targets"])) if lora.get("rank") else said("whole")
        told.append(f"{name}: {getattr(task, 'title', '')}; {part}.")
    absent = [said("not_run", tasks=", ".join(not_run))] if not_run else []
    return text(*told, " ".join([*absent, *[said("costs")] * bool(told)]))


def wall_clock(data):
    """Seconds of training per seed, a row per estimator, a column per task."""
    wide = data.pivot(index="estimator", columns="task", values="training")
    return wide.reindex(index=data["estimator"].drop_duplicates(), columns=data["task"].drop_duplicates()).reset_index()
