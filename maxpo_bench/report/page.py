"""The report as data: sections of text, tables and figures in reading order, shown by both templates."""

import json
import math

import pandas as pd

from maxpo_bench.report import load
from maxpo_bench.report.verdicts import PROTOCOLS, RATIOS, VIEWS
from maxpo_bench.report.words import about, count, short
from maxpo_bench.studies import style

MARKS = {"supported": "✓", "contradicted": "✗", "equivalent": "=", "undecided": "?"}
MEANING = (
    "✓ supported: better, the interval leaves out 0. ✗ contradicted: worse. = equivalent: the interval lies inside the margin "
    "({margins}). ? undecided: 2× means that twice the seeds (variance: groups, time: rounds) would decide. *: another verdict at "
    "half of the training steps (½) or by the area under the curve (area), given behind the interval."
)


def number(value, sign=False, digits=3):
    """A number for a table: 3 decimals below 10, fewer above; "-" for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:+d}" if sign else str(value)
    size = abs(value)
    digits = digits if size < 9.9995 else 1 if size < 999.95 else 0
    if 0 < size < 0.0005:
        return f"{value:{'+' if sign else ''}.{'4f' if size >= 0.00005 else '0e'}}"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def interval(low, high, shown=number):
    """[low, high] in words for a table."""
    return "no interval" if _none(low) or _none(high) else f"[{shown(low)}, {shown(high)}]"


def spans(data, value, low, high, sign=False):
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
    rows = []
    for row in data.itertuples(index=False):
        cells = []
        for column, value in zip(data.columns, row, strict=True):
            if isinstance(value, dict):
                cells.append(value)
            elif column in ("estimator", "rival"):
                cells.append(cell(value, "name", value))
            elif value in MARKS:
                cells.append(cell(f"{MARKS[value]} {value}", f"verdict {value}"))
            elif column == "status":
                cells.append(cell(value, f"status {value}"))
            elif isinstance(value, str) and value != "-" and not value[:1].isdigit() and value[:2] not in ("-0", "+0", "+1"):
                cells.append(cell(value))
            else:
                value = value.item() if hasattr(value, "item") else value
                value = int(value) if isinstance(value, float) and value.is_integer() and column in WHOLE else value
                cells.append(cell(number(value), "num"))
        rows.append(cells)
    table = {"kind": "table", "columns": [str(c) for c in data.columns], "rows": rows, "caption": caption, "csv": csv}
    return table | {"fold": fold, "cards": cards, "groups": list(groups)}


SHORT = {"at half of the steps": "½", "area under the curve": "area", "initial policy": "initial", "final policy": "final"}
WHOLE = ("seeds", "pairs", "tasks", "K", "N", "num_seeds", "num_tasks", "num_pairs", "num_groups", "num_runs", "k", "group_size")


def text(*paragraphs):
    return {"kind": "text", "paragraphs": [p for p in paragraphs if p]}


def heading(words):
    return {"kind": "heading", "text": words}


def figure(made, csv=""):
    """One picture of several files side by side: made is a list of (stem, caption)."""
    made = made if isinstance(made, list) else [made]
    return {"kind": "figure", "names": [stem for stem, _ in made], "caption": " ".join(c for _, c in made), "csv": csv}


def section(title, *blocks):
    slug = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
    blocks = [b for b in blocks if b and b.get("paragraphs", True)]
    return {"id": slug, "title": title, "blocks": blocks or [text("Nothing to show yet: no results of this kind.")]}


# ------------------------------------------------------------------------------------------------------------- verdicts


def matrix(verdicts, properties, method, measures, rivals=None, csv="tables/claims.csv"):
    """The verdicts of some measures: a row per rival (of `rivals`, or all), a column per measure and aggregate."""
    chosen = verdicts[verdicts["measure"].isin(measures)] if len(verdicts) else verdicts
    chosen = chosen[chosen["rival"].isin(rivals)] if rivals and len(chosen) else chosen
    if not len(chosen):
        return [text("No claim could be judged.")]
    measures = [m for m in measures if m in set(chosen["measure"])]
    aggregates = [a for a in load.AGGREGATES if a in set(chosen["aggregate"])]
    found = {(r["rival"], r["measure"], r["aggregate"]): r for _, r in chosen.iterrows()}
    rows = []
    for rival in chosen["rival"].drop_duplicates():
        row = {"rival": rival, "what it is": about(rival)}
        rows.append(row | {f"{m}: {a}": _verdict_cell(found.get((rival, m, a))) for m in measures for a in aggregates})
    groups = [("", 2), *((m, len(aggregates)) for m in measures)]
    margins = {m: _margin(rows) for m, rows in chosen.groupby("measure", sort=False)}
    caption = MEANING.format(margins=", ".join(f"{m} {margin}" for m, margin in margins.items()))
    caption += f" Numbers: {method} minus rival, scale 0 to 1"
    caption += f"; of {' and '.join(m for m in measures if m in RATIOS)} rival over {method}" if set(measures) & set(RATIOS) else ""
    caption += ". Intervals: 95%, this comparison alone; verdicts: corrected for all comparisons of a measure."
    lacking = chosen.loc[chosen["left_out"] > 0, "rival"].drop_duplicates()
    caption += f" On part of the tasks, because it refuses the others' rewards: {', '.join(lacking)}." if len(lacking) else ""
    for r in properties.to_dict("records"):
        caption += f" {r['statement']}: {MARKS[r['verdict']]} {r['verdict']}, by exact enumeration."
    return [frame(pd.DataFrame(rows), caption, csv, cards=True, groups=groups)]


def _margin(rows):
    margin = rows["margin"].iloc[0]
    return f"±{100 * margin:g}%" if rows["measure"].iloc[0] in RATIOS else f"±{margin:g}"


def _verdict_cell(row, view=""):
    """A verdict with its number and interval; of the main view with what other views say where it flips."""
    if row is None:
        return cell("-")
    verdict, prefix = (row[view], f"{view}: ") if view else (row["verdict"], "")
    effect, low, high = (row.get(f"{prefix}{column}") for column in ("effect", "low", "high"))
    if _none(effect):
        return cell(MARKS.get(verdict, "-"), f"verdict {verdict}" if verdict else "", note="no results of both" if verdict else "")
    note = interval(low, high, short)
    if not view:
        note += f" {row['seeds_factor']:.1f}×" if not _none(row["seeds_factor"]) else ""
        note += f", {count(int(row['num_tasks']), 'task')}" if row["left_out"] else ""
        note += "".join(
            f", {SHORT[v]}\u00a0{MARKS[row[v]]}"
            for v in SHORT
            if row["flips"] and row.get(v) in {*MARKS} - {row["verdict"], "undecided"}
        )
    star = "*" if not view and row["flips"] else ""
    return cell(f"{MARKS[verdict]}{star} {short(effect, '' if row['measure'] in RATIOS else '+')}", f"verdict {verdict}", note=note)


def protocols(verdicts, csv="tables/claims.csv"):
    """Verdicts at the shared learning rate beside those with every estimator at its own best, on the swept tasks."""
    rows = verdicts[verdicts[PROTOCOLS[1]].isin(MARKS)] if PROTOCOLS[1] in verdicts else []
    if not len(rows):
        return []
    columns = {"rival": rows["rival"], "measure": rows["measure"], "tasks of": rows["aggregate"]}
    columns |= {view.split(",")[0]: [_verdict_cell(row, view) for row in rows.to_dict("records")] for view in PROTOCOLS}
    columns["depends on the protocol"] = ["yes" if depends else "" for depends in rows["depends"]]
    caption = (
        "On the swept tasks alone. Shared: one rate a task, the best mean rank over all default estimators. Own best: every "
        "estimator at the rate that did best for it on tuning seeds, in cells of their own."
    )
    changed = rows[rows["depends"]]
    said = [f"{r['measure']} against {r['rival']} ({r['aggregate']})" for r in changed.to_dict("records")]
    words = f"{count(len(said), 'verdict')} of {len(rows)} depend on the protocol: {'; '.join(said)}." if said else ""
    words = words or f"None of {len(rows)} verdicts depends on the protocol."
    return [text(words), frame(pd.DataFrame(columns), caption, csv, fold=len(rows) > 20)]


def every_verdict(verdicts, csv="tables/claims.csv"):
    """Each comparison behind a verdict, with its reason and its other views."""
    if not len(verdicts):
        return None
    rows = verdicts.to_dict("records")
    data = verdicts[["measure", "rival", "aggregate", "verdict"]].rename(columns={"aggregate": "tasks of"})
    data = data.assign(effect=spans(verdicts, "effect", "low", "high"), tasks=verdicts["num_tasks"], pairs=verdicts["num_pairs"])
    data["other views"] = ["; ".join(f"{v.removeprefix('at ')}: {r[v]}" for v in VIEWS[r["measure"]][1:] if r[v]) for r in rows]
    data["more seeds"] = ["" if _none(f) else f"{f:.1f} × as many" for f in verdicts["seeds_factor"]]
    data["reason"] = verdicts["reason"]
    return frame(data, "Pairs: pairs of seeds; for the variance groups of samples.", csv, fold=True)


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
    shown["max@K"] = spans(data, "mean", "low", "high")
    shown["pass@1"] = spans(data, "pass@1", "pass@1 low", "pass@1 high")
    caption = "After training, mean of the tasks an estimator ran on, scale 0 to 1, 95% intervals over seeds; not paired."
    return frame(shown, caption, "tables/overall.csv")


def ladder_ends(data, ks=(1, 16)):
    """pass@1 and pass@16 side by side on the tasks with 0/1 rewards, each task's first row the policy before training."""
    graded = set(data.loc[(data["max_at_k"] - data["pass_at_k"]).abs() > 1e-9, "task"])
    data = data[data["k"].isin(ks) & ~data["task"].isin(graded)].sort_values("step", kind="stable")
    if not len(data):
        return None
    data = data.assign(estimator=data["estimator"].where(data["when"] == "after", "before training"))
    data = data.drop_duplicates(["task", "estimator", "k"])
    data = data.assign(shown=spans(data, "pass_at_k", "pass_at_k_low", "pass_at_k_high"))
    wide = {k: data[data["k"] == k].set_index(["task", "estimator"])["shown"].rename(f"pass@{k}") for k in ks}
    shown = pd.concat(wide.values(), axis=1).reset_index()
    shown = shown.sort_values("task", key=lambda c: c.map({t: i for i, t in enumerate(dict.fromkeys(c))}), kind="stable")
    caption = "Tasks whose rewards are 0 or 1: one sample and the best of 16; mean over seeds with its 95% interval."
    return frame(shown, caption, "tables/ladder.csv", fold=len(shown) > 30)


# ------------------------------------------------------------------------------------------------------- what trains more


def pending(results, study):
    """One line where a study that trains has no table yet, or not on all the tasks declared for it."""
    tasks = results.absent.get(study, [])
    where = f" on {', '.join(tasks)}" if study in results.trained and tasks else ""
    return text(f"Not computed yet{where}: `make repro-studies`.") if where or study not in results.trained else None


def rates_table(data):
    caption = (
        "The rate of each estimator's best mean max@K; the rate of the best mean rank over all of them; the rate of the task file."
    )
    shown = data.assign(**{t: [number(v, digits=5).rstrip("0") for v in data[t].astype(float)] for t in data if t != "estimator"})
    return frame(shown, caption)


def k_trained_said(data, margin):
    """In words: does training for K maximise max@K? Counted over tasks, estimators that use K, and every K that was trained for."""
    rows = data[~data["fixed"] & data["gap"].notna() & (data["k"] != data["evaluated"])] if len(data) else data
    if not len(rows):
        return None
    cells = rows.groupby(["task", "estimator", "evaluated"], sort=False)
    above, far = (cells[column].max() for column in ("low", "gap"))
    lost = rows[rows["low"] > 0].sort_values("gap", ascending=False, kind="stable")
    said = f"Training for K = k gives the best max@k, or none is surely better, in {(~(above > 0)).sum()} of {len(above)} cases"
    said += f" (task, estimator, k); it is at most {margin:g} below the best in {(far <= margin + 1e-9).sum()}."
    for r in lost.head(1).to_dict("records"):
        said += (
            f" The largest loss: {r['estimator']} on {r['task']}, training for {r['k']} is {short(r['gap'])} above training for "
            f"{r['evaluated']} in max@{r['evaluated']} [{short(r['low'])}, {short(r['high'])}]."
        )
    return text(said + " Intervals are 95%, paired by seed, of one comparison.")


def off_policy_table(data):
    shown = data[["task", "estimator"]].assign(**{"1 epoch": data["on"], "2 epochs, clip .2": data["off"]})
    for column, name in (
        ("change", "change"),
        ("lead on", "behind the method, 1 epoch"),
        ("lead off", "behind the method, 2 epochs"),
    ):
        shown[name] = spans(data, column, f"{column} low", f"{column} high", sign=True)
    caption = "max@K after training, mean over seeds; differences with 95% intervals, paired by seed."
    return frame(shown, caption, "tables/off_policy.csv")


def power_table(data):
    """Spread, seeds and the width reached; probability of each verdict at true differences, a block of four columns each."""
    truths = list(dict.fromkeys(c.split(" at ")[1] for c in data if " at " in c and c.split(" at ")[0] in MARKS))
    plan = {
        "seeds_for_it": "seeds needed",
        "half_width": "width reached",
        "aimed_at": "aimed at",
        "seeds": "seeds",
        "spread": "spread",
    }
    columns = {"task": data["task"], "rival": data["rival"]} | {plan[c]: data[c] for c in reversed(plan) if c in data}
    head, groups = len(columns), []
    for truth in truths:
        found = {f"{truth}: {MARKS[v]}": data[f"{v} at {truth}"] for v in MARKS if f"{v} at {truth}" in data}
        columns |= {name: [number(v, digits=2) for v in values] for name, values in found.items()}
        groups.append((f"true difference {truth}", len(found)))
    caption = (
        "Spread: standard deviation over seeds of max@K, maxpo minus rival. Width: half of the 95% interval. Then the chance of a "
        "verdict (✓ supported, ✗ contradicted, = equivalent, ? undecided) on this task alone, were the true difference so large."
    )
    return frame(pd.DataFrame(columns), caption, "studies/power.csv", groups=[("", head), *groups] if groups else ())


RULE = (
    "The rule, written before these numbers existed (docs/default-estimators.md): an estimator joins the default list when its "
    "mean max@K over these tasks is within .01 of, or above, the best default estimator's, and no identical formula is there."
)


def cheap_blocks(data):
    """Who would join the default list, by the rule; then every estimator's differences to the method."""
    rows = data[data["task"] == "mean"]
    joins = rows[rows["joins"]]
    same = rows[rows["same_as"] != ""]
    said = [f"{r['estimator']} ({short(r['best'], '+')})" for r in joins.to_dict("records")]
    told = (
        f"By it these would join: {', '.join(said)}; in brackets, minus the best default." if said else "By it nobody would join."
    )
    if len(same):
        told += f" The same numbers on every seed: {', '.join(f'{r.estimator} and {r.same_as}' for r in same.itertuples())}."
    shown = rows[["estimator"]].assign(**{"what it is": [about(e) for e in rows["estimator"]], "max@K": rows["max_at_k"]})
    shown["minus the best default"] = [number(v, sign=True) for v in rows["best"].astype(float)]
    for task in dict.fromkeys(data["task"]):
        one = data[data["task"] == task].set_index("estimator").reindex(rows["estimator"])
        shown[f"minus maxpo: {task}"] = spans(one, "gap", "low", "high", sign=True)
    shown["default list"] = ["is there" if r.default else "joins" if r.joins else "" for r in rows.itertuples()]
    caption = (
        "max@K after training, scale 0 to 1; differences paired by seed with 95% intervals. A mean over fewer tasks has no max@K."
    )
    return [text(RULE, told), frame(shown, caption, "tables/estimators.csv", fold=True)]


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
    errors = data[data["verifier_errors"].fillna(0) > 0]
    told = [
        f"{r['task']} under {r['estimator']}: the verifier raised {int(r['verifier_errors'])} times." for _, r in errors.iterrows()
    ]
    told += [f"Note: {n}" for n in notes]
    return [frame(kinds), frame(listed) if len(listed) else text("Every declared cell has results."), text(*told)]


def exact_blocks(data):
    """How often sampled evaluation missed the exact value, among the cells whose problem can be enumerated."""
    known = data.dropna(subset=["low", "high"])
    if not len(known):
        return []
    outside, after = int(known["outside"].sum()), int((known["p_holm"] < 0.05).sum())
    return [
        text(
            f"Sampled against exact: max@K of {count(len(known), 'cell')} is also known by enumeration. The mean over seeds of "
            f"sampled minus exact is away from 0 at 95% in {outside} of them, where {0.05 * len(known):.0f} are expected by "
            "chance (cells of a task are evaluated with the same start states and noise, so they miss together), and after "
            f"Holm's correction over the cells in {after or 'none'}."
        ),
        frame(data.drop(columns=["p"]), "Sampled minus exact max@K, mean over seeds.", "tables/exact.csv", fold=True),
    ]


def runs_table(results):
    """Tasks with their settings and seeds; versions, hashes and machines stand beside each cell."""
    rows = []
    for task, declared in results.tasks.items():
        cells = [results.cells[task, e] for e in results.estimators]
        seeds = next((c.metrics.get("seeds", []) for c in cells if c.usable), [])
        title = "" if isinstance(declared, str) else declared.title
        rows.append([task, title, results.setting(task, "k"), results.setting(task, "group_size"), _seeds(seeds)])
    caption = "Versions, hashes, numerics and processor of every cell: results/runs/<task>/<estimator>/provenance.json."
    return frame(pd.DataFrame(rows, columns=["task", "title", "K", "N", "seeds"]), caption)


def _seeds(seeds):
    whole = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole else json.dumps(list(seeds))[1:-1] or "-"


def palette(results):
    """{estimator: colour} for the marks beside names."""
    names = {*results.estimators, *results.variance["estimator"], *style.colours([])}
    for table in results.studies.values():
        names |= {str(n) for n in table["estimator"].dropna()} if "estimator" in table else set()
    return style.colours(sorted(map(str, names)))
