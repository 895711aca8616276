"""The report as data: sections of text, tables and figures in reading order, shown by both templates."""

import json
import math

import pandas as pd

from maxpo_bench.report import load, tables
from maxpo_bench.report.verdicts import PROTOCOLS, RATIOS, VIEWS
from maxpo_bench.report.words import about, count, short
from maxpo_bench.studies import style

MARKS = {"supported": "✓", "contradicted": "✗", "equivalent": "=", "undecided": "?"}
MEANING = (
    "✓ supported: better, the interval leaves out 0. ✗ contradicted: worse. = equivalent: the interval lies inside the margin "
    "({margins}). ? undecided: 2× means that twice the seeds (variance: groups, time: rounds) would decide. *: another verdict at "
    "half of the training steps (½) or by the area under the curve (area), given behind the interval."
)
SHORT = {"at half of the steps": "½", "area under the curve": "area", "initial policy": "initial", "final policy": "final"}
WHOLE = (
    "seeds",
    "pairs",
    "tasks",
    "K",
    "N",
    "num_seeds",
    "num_tasks",
    "num_pairs",
    "num_groups",
    "num_runs",
    "k",
    "group_size",
    "runs",
    "epochs",
    "processes",
)


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


def text(*paragraphs):
    return {"kind": "text", "paragraphs": [p for p in paragraphs if p]}


def heading(words):
    return {"kind": "heading", "text": words}


def figure(made, csv=""):
    """One picture of several files side by side: made is a list of (stem, caption)."""
    return {"kind": "figure", "names": [stem for stem, _ in made], "caption": " ".join(c for _, c in made), "csv": csv}


def section(title, *blocks):
    slug = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
    blocks = [b for b in blocks if b and b.get("paragraphs", True)]
    return {"id": slug, "title": title, "blocks": blocks or [text("Nothing to show yet: no results of this kind.")]}


# ------------------------------------------------------------------------------------------------------------- verdicts


def matrix(verdicts, method, measures, rivals=None, properties=(), csv="tables/claims.csv"):
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
    groups = [("", 2), *pd.Series([m for m, _ in columns]).value_counts(sort=False).items()]
    margins = {
        m: f"±{100 * x:g}%" if m in RATIOS else f"±{x:g}"
        for m, x in chosen.groupby("measure", sort=False)["margin"].first().items()
    }
    caption = MEANING.format(margins=", ".join(f"{m} {margin}" for m, margin in margins.items()))
    caption += f" Numbers: {method} minus rival, scale 0 to 1" * bool(set(margins) - set(RATIOS))
    caption += "".join(f"; {m}: rival over {method}" for m in margins if m in RATIOS)
    caption += ". Intervals: 95%, this comparison alone; verdicts: corrected for all comparisons of a measure."
    lacking = chosen.loc[chosen["left_out"] > 0, "rival"].drop_duplicates()
    caption += f" On part of the tasks, because it refuses the others' rewards: {', '.join(lacking)}." if len(lacking) else ""
    caption += "".join(f" {r['statement']}: {MARKS[r['verdict']]} {r['verdict']}, by exact enumeration." for r in properties)
    return frame(pd.DataFrame(rows), caption, csv, cards=True, groups=groups)


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
    return cell(f"{MARKS[verdict]}{star} {short(effect, '' if row['measure'] in RATIOS else '+')}", f"verdict {verdict}", note=note)


def protocols(verdicts, csv="tables/claims.csv"):
    """Verdicts at the shared learning rate beside those with every estimator at its own best, on the swept tasks."""
    rows = verdicts[verdicts[PROTOCOLS[1]].isin(MARKS)] if PROTOCOLS[1] in verdicts else []
    if not len(rows):
        return []
    columns = {"rival": rows["rival"], "measure": rows["measure"], "tasks of": rows["aggregate"]}
    columns |= {view.split(",")[0]: [_verdict_cell(row, view) for row in rows.to_dict("records")] for view in PROTOCOLS}
    columns["depends on the protocol"] = ["yes" if depends else "" for depends in rows["depends"]]
    said = [f"{r['measure']} against {r['rival']} ({r['aggregate']})" for r in rows[rows["depends"]].to_dict("records")]
    depend = f"{count(len(said), 'verdict')} of {len(rows)} depend on the protocol: {'; '.join(said)}."
    caption = (
        "On the swept tasks alone. Shared: one rate a task, the best mean rank over all default estimators. Own best: every "
        "estimator at the rate that did best for it on tuning seeds, in cells of their own."
    )
    table = frame(pd.DataFrame(columns), caption, csv, fold=len(rows) > 20)
    return [text(depend if said else f"None of {len(rows)} verdicts depends on the protocol."), table]


def every_verdict(verdicts, csv="tables/claims.csv"):
    """Each comparison behind a verdict, with its reason and its other views."""
    if not len(verdicts):
        return None
    data = verdicts[["measure", "rival", "aggregate", "verdict"]].rename(columns={"aggregate": "tasks of"})
    data = data.assign(effect=spans(verdicts, "effect"), tasks=verdicts["num_tasks"], pairs=verdicts["num_pairs"])
    views = [{v.removeprefix("at "): r[v] for v in VIEWS[r["measure"]][1:] if r[v]} for r in verdicts.to_dict("records")]
    data["other views"] = ["; ".join(f"{view}: {verdict}" for view, verdict in found.items()) for found in views]
    data["more seeds"] = ["" if _none(f) else f"{f:.1f} × as many" for f in verdicts["seeds_factor"]]
    return frame(data.assign(reason=verdicts["reason"]), "Pairs: of seeds; for the variance groups of samples.", csv, fold=True)


# ------------------------------------------------------------------------------------------------------- other sections


def how_to_read(results, margin):
    scaled = [t for t, scale in load.scales(results).items() if scale != (0.0, 1.0)]
    scaled = f" (on {', '.join(scaled)}: from the lowest to the highest value seen)" if scaled else ""
    return text(
        "A reward passes when it is at least the task's score.success: where rewards are graded, many small ones pass nothing, "
        "so an estimator may lead in max@K and trail in pass@1. All values are on held-out prompts or start states, by the "
        "unbiased closed form.",
        "All estimators of a task get the same initial policy, prompts, sampling noise, optimiser and number of samples; only "
        "the function from rewards to advantages differs. Comparisons are therefore paired by seed.",
        "Intervals are 95%, Student's t; of a mean over tasks, which weigh the same whatever their seeds, with Satterthwaite's "
        "degrees of freedom. Below 3 seeds, or without spread, there is none. The tasks are fixed: intervals say how another "
        f"draw of seeds would come out, not another set of tasks. Means over tasks are on the scale 0 to 1{scaled}.",
        "A verdict is about one measure, one rival and one set of tasks, after Holm's correction over the comparisons of the "
        f"measure: wrong in at most 5% of such families. Equivalent means that the difference is inside ±{margin:g}, also where "
        "its sign is sure. Single tasks get intervals and no verdict. Verdicts are taken again at half of the training steps, "
        "by the area under the curve and, on the swept tasks, with every estimator at its own best learning rate.",
        "Learning settings are the same for all estimators of a task and were chosen on seeds that are not reported; each "
        "task's file says how. What is stale here, or was not computed on this machine, is said by `maxpo-bench plan` and "
        "`compare`, not here.",
    )


def overall_table(data):
    shown = pd.DataFrame({"estimator": data["estimator"], "tasks": data["num_tasks"], "runs": data["num_runs"]})
    shown["max@K"] = spans(data, "mean")
    shown["pass@1"] = spans(data, "pass@1", "pass@1 low", "pass@1 high")
    caption = "After training, mean of the tasks an estimator ran on, scale 0 to 1, 95% intervals over seeds; not paired."
    return frame(shown, caption, "tables/overall.csv")


def ladder_ends(data, ks=(1, 16), csv="tables/ladder.csv"):
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
    caption = "Tasks whose rewards are 0 or 1: the chance that one of k samples passes; mean over seeds with its 95% interval."
    return frame(shown.rename(columns={k: f"pass@{k}" for k in ks}), caption, csv, fold=len(shown) > 30)


def power_table(data):
    """Spread, seeds and the width reached; probability of each verdict at true differences, a block of four columns each."""
    names = {"spread": "spread", "seeds": "seeds", "aimed_at": "aimed at", "half_width": "width reached", "seeds_for_it": "needed"}
    columns = data[["task", "rival", *[c for c in names if c in data]]].rename(columns=names)
    groups = [("", columns.shape[1])]
    for truth in dict.fromkeys(c.split(" at ")[1] for c in data if c.split(" at ")[0] in MARKS):
        found = {f"{truth}: {MARKS[v]}": data[f"{v} at {truth}"] for v in MARKS if f"{v} at {truth}" in data}
        columns = columns.assign(**{name: [f"{v:.2f}" for v in values] for name, values in found.items()})
        groups.append((f"true difference {truth}", len(found)))
    caption = (
        "Spread: standard deviation over seeds of max@K, maxpo minus rival. Width: half of the 95% interval; aimed at, reached, and "
        "the seeds needed for it. Then the chance of a verdict (✓ supported, ✗ contradicted, = equivalent, ? undecided) on this task "
        "alone, were the true difference so large."
    )
    return frame(columns, caption, "studies/power.csv", fold=len(columns) > 12, groups=groups)


def cell_table(data):
    shown = data[["task", "estimator"]].copy()
    for metric in ("max@K", "pass@K", "pass@1"):
        shown[metric] = spans(data, metric, f"{metric} low", f"{metric} high")
    shown["seeds"], shown["status"] = data["num_seeds"], data["status"]
    return frame(shown, "After training: mean over seeds with its 95% interval.", "tables/cells.csv", fold=True)


def status_blocks(data, notes):
    counts = data["status"].value_counts()
    kinds = pd.DataFrame([{"status": s, "cells": int(counts[s]), "meaning": m} for s, m in load.STATUSES.items() if s in counts])
    listed = data.loc[(data["status"] != "ok") | (data["reason"] != ""), ["task", "estimator", "status", "reason"]]
    errors = data[data["verifier_errors"].fillna(0) > 0].to_dict("records")
    told = [f"{r['task']} under {r['estimator']}: the verifier raised {int(r['verifier_errors'])} times." for r in errors]
    state = frame(listed) if len(listed) else text("Every declared cell has results.")
    return [frame(kinds), state, text(*told, *(f"Note: {n}" for n in notes))]


def exact_blocks(data):
    """How often sampled evaluation missed the exact value, among the cells whose problem can be enumerated."""
    known = data.dropna(subset=["low", "high"])
    if not len(known):
        return []
    outside, after = int(known["outside"].sum()), int((known["p_holm"] < 0.05).sum())
    said = (
        f"Sampled against exact: max@K of {count(len(known), 'cell')} is also known by enumeration. The mean over seeds of "
        f"sampled minus exact is away from 0 at 95% in {outside} of them, where {0.05 * len(known):.0f} are expected by "
        "chance (cells of a task are evaluated with the same start states and noise, so they miss together), and after "
        f"Holm's correction over the cells in {after or 'none'}."
    )
    caption = "Sampled minus exact max@K, mean over seeds."
    return [text(said), frame(data.drop(columns=["p"]), caption, "tables/exact.csv", fold=True)]


def runs_table(results):
    """Tasks with their settings and seeds; versions, hashes and machines stand beside each cell."""
    rows = []
    for task, declared in results.tasks.items():
        cells = [results.cells[task, e] for e in results.estimators]
        seeds = next((c.metrics.get("seeds", []) for c in cells if c.usable), [])
        title = "" if isinstance(declared, str) else declared.title
        rows.append([task, title, results.setting(task, "k"), results.setting(task, "group_size"), len(seeds), _ranges(seeds)])
    caption = "Versions, hashes, numerics and processor of every cell: results/runs/<task>/<estimator>/provenance.json."
    return frame(pd.DataFrame(rows, columns=["task", "title", "K", "N", "seeds", "which"]), caption)


def _ranges(seeds):
    """Seeds in words: "0 to 99, 110 to 309"."""
    parts = [[s, s] for s in sorted(seeds) if s - 1 not in seeds]
    for part in parts:
        while part[1] + 1 in seeds:
            part[1] += 1
    return ", ".join(f"{a} to {b}" if b > a else str(a) for a, b in parts) or "-"


# ------------------------------------------------------------------------------------------ what trains more, or for longer


def pending(results, study):
    """One line where a study that trains has no table yet, or not on all the tasks declared for it."""
    tasks = results.absent.get(study, [])
    where = f" on {', '.join(tasks)}" if study in results.trained and tasks else ""
    return text(f"Not computed yet{where}: `make repro-studies`.") if where or study not in results.trained else None


def k_trained_said(data, margin):
    """In words: does training for K maximise max@K? Counted over tasks, estimators that use K, and every K that was trained for."""
    rows = data[~data["fixed"] & data["gap"].notna() & (data["k"] != data["evaluated"])] if len(data) else data
    if not len(rows):
        return None
    most = rows.groupby(["task", "estimator", "evaluated"], sort=False)[["low", "gap"]].max()
    said = (
        f"Training for K = k gives the best max@k, or none is surely better, in {(~(most['low'] > 0)).sum()} of {len(most)} cases"
    )
    said += f" (task, estimator, k); it is at most {margin:g} below the best in {(most['gap'] <= margin + 1e-9).sum()}."
    for r in rows[rows["low"] > 0].sort_values("gap", ascending=False, kind="stable").head(1).to_dict("records"):
        said += (
            f" The largest loss: {r['estimator']} on {r['task']}, training for {r['k']} is {short(r['gap'])} above training for "
            f"{r['evaluated']} in max@{r['evaluated']} {interval(r['low'], r['high'], short)}."
        )
    return text(said + " Intervals are 95%, paired by seed, of one comparison.")


def rates_table(results):
    caption = (
        "Each estimator's best rate by mean max@K (*: the lowest or highest tried); the rate of the best mean rank over all of them; "
        "the rate of the task file."
    )
    return frame(tables.learning_rates(results.trained["learning_rate"], results), caption)


def off_policy_table(data, method=style.REFERENCE):
    """max@K after one pass and after several, with the difference to the method and to one pass."""
    if not len(data):
        return None
    shown = data[["task", "estimator", "epochs", "clip"]].assign(
        **{"max@K": spans(data, "max_at_k", "max_at_k_low", "max_at_k_high")}
    )
    gaps, change = (spans(data, c, f"{c}_low", f"{c}_high", sign=True) for c in ("max_at_k_gap", "change"))
    shown[f"minus {method}"] = ["-" if e == method else gap for e, gap in zip(data["estimator"], gaps, strict=True)]
    shown["minus 1 epoch"] = ["-" if n == 1 else found for n, found in zip(data["epochs"], change, strict=True)]
    return frame(shown, "After training, mean over seeds; differences paired by seed; 95% intervals.", "tables/off_policy.csv")


RULE = (
    "The rule, written before these numbers existed (docs/default-estimators.md): an estimator joins the default list when its "
    "mean max@K over these tasks is within .01 of, or above, the best default estimator's, and no identical formula is there."
)


def cheap_blocks(data):
    """Who would join the default list, by the rule; then every estimator's mean and its difference to the method."""
    rows = data[data["task"] == "mean"]
    said = [f"{r.estimator} ({short(r.best, '+')})" for r in rows[rows["joins"]].itertuples()]
    told = f"these would join: {', '.join(said)}; in brackets, minus the best default" if said else "nobody would join"
    same = ", ".join(f"{r.estimator} and {r.same_as}" for r in rows[rows["same_as"] != ""].itertuples())
    told = f"By it {told}." + f" The same numbers on every seed: {same}." * bool(same)
    shown = rows[["estimator"]].assign(**{"what it is": [about(e) for e in rows["estimator"]], "max@K": rows["max_at_k"]})
    shown["minus the best default"] = [number(v, sign=True) for v in rows["best"].astype(float)]
    shown["minus maxpo"] = spans(rows, "gap", sign=True)
    shown["tasks"] = rows["num_tasks"]
    shown["default list"] = ["is there" if r.default else "joins" if r.joins else "" for r in rows.itertuples()]
    caption = "max@K after training, scale 0 to 1; differences paired by seed, 95% intervals. A mean of fewer tasks has no max@K."
    return [text(RULE, told), frame(shown, caption, "tables/estimators.csv", fold=True)]


def long_said(long, not_run):
    """What the long tasks are, how much of each model is trained, and which of them have no results."""
    said = []
    for name, task in long.tasks.items():
        lora = {} if isinstance(task, str) else task.sections.get("lora", {})
        whole = "all weights of the model are trained, and the variance is that of their gradient"
        part = (
            f"LoRA of rank {lora.get('rank')} on {', '.join(lora.get('targets', ()))}: the adapter alone is trained, and the variance is "
            "that of its parameters"
        )
        title = "" if isinstance(task, str) else f" {task.title};"
        said.append(f"{name}:{title} {part if lora.get('rank') else whole}.")
    absent = f"Not run: {', '.join(not_run)} (`make repro-long`, hours each)." if not_run else ""
    cost = "What one run costs stands under Time." if said else ""
    return text(*said, " ".join(filter(None, [absent, cost])))


def wall_table(data):
    """Seconds of training per seed, a row per estimator, a column per task."""
    if not len(data):
        return None
    wide = data.pivot(index="estimator", columns="task", values="training")
    wide = wide.reindex(index=data["estimator"].drop_duplicates(), columns=data["task"].drop_duplicates()).reset_index()
    caption = (
        "Seconds of training per seed, as each cell recorded it, evaluation left out. Cells ran hours apart, maybe on several "
        "machines: for comparisons see the steps above, which alternate in one process."
    )
    return frame(wide, caption, "tables/wall_clock.csv")


def costs_table(data):
    caption = "The pretrained models: hours of one run (one seed, on one core, evaluation included), and of all, side by side on as many processes."
    return frame(data, caption, "tables/long_costs.csv") if len(data) else None


def palette(results):
    """{estimator: colour} for the marks beside names."""
    names = {*results.estimators, *results.variance["estimator"], *style.colours([])}
    for table in results.studies.values():
        names |= {str(n) for n in table["estimator"].dropna()} if "estimator" in table else set()
    return style.colours(sorted(map(str, names)))
