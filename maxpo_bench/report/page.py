"""The report as data: sections of text, tables and figures in reading order, shown by both templates."""

import json
import math
import subprocess

from maxpo_bench.report import load, style
from maxpo_bench.report.style import REFERENCE

MARKS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?"}


def number(value, sign=False, digits=3):
    """A number for a table: 3 decimals below 10, fewer above; "-" for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    if float(value).is_integer() and isinstance(value, int):
        return f"{value:+d}" if sign else str(value)
    size = abs(value)
    digits = digits if size < 9.9995 else 1 if size < 999.95 else 0
    if 0 < size < 0.0005:
        digits = 4 if size >= 0.00005 else 0
        form = f"{'+' if sign else ''}.{digits}{'f' if digits else 'e'}"
        return format(value, form)
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def interval(low, high, exact=False):
    """[low, high], or the words that stand in for it: "exact" of a number without chance in it."""
    if exact:
        return "exact"
    known = all(v is not None and math.isfinite(v) for v in (low, high))
    return f"[{number(low)}, {number(high)}]" if known else "no interval"


def cell(text, sort=None, kind="", estimator=None):
    """One table cell: text, what to sort by, a class, and the estimator whose colour marks it."""
    return {"text": str(text), "sort": text if sort is None else sort, "kind": kind, "estimator": estimator}


def num(value, sign=False):
    return cell(number(value, sign), "" if value is None or value != value else value, "num")


def name(estimator):
    return cell(estimator, kind="name", estimator=estimator)


def table(columns, rows, caption="", csv="", fold=False, cards=False):
    """cards: on a narrow screen every row is a card of its own instead of a line to scroll along."""
    return {"kind": "table", "columns": columns, "rows": rows, "caption": caption, "csv": csv, "fold": fold, "cards": cards}


def text(*paragraphs):
    return {"kind": "text", "paragraphs": [p for p in paragraphs if p]}


def figure(made, csv=""):
    stem, caption = made
    return {"kind": "figure", "name": stem, "caption": caption, "csv": csv}


def section(title, *blocks):
    blocks = [b for b in blocks if b]
    slug = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
    return {"id": slug, "title": title, "blocks": blocks}


def count(n, word):
    return f"{n} {word}{'' if n == 1 else 's'}"


# ------------------------------------------------------------------------------------------------------ later sections


def how_to_read(results):
    tasks = len(results.usable_tasks())
    return text(
        "max@k is the expected best reward of k samples, pass@k the chance that one of k passes; both by the unbiased closed form "
        "on held-out prompts or start states. K is the k a task trains for. max@1 is the mean reward, pass@1 the chance of a "
        "reward of at least the task's score.success: where rewards are graded many small ones pass nothing, so an estimator may "
        "lead in one and trail in the other.",
        "All estimators of a task get the same initial policy, prompts, sampling noise and optimiser; only the function from "
        "rewards to advantages differs. Comparisons are therefore paired by seed.",
        "Intervals are 95%: Student's t on the paired differences up to 19 seeds (the bootstrap is too narrow there), BCa from 20; "
        "the interquartile mean over tasks uses a stratified bootstrap. Below 3 seeds, or without spread, no interval is drawn.",
        f"Averages over the {count(tasks, 'task')} put max@k on a scale from 0 to 1 (rewards beyond it: from the lowest to the "
        "highest value seen on the task); tasks weigh the same and are fixed: intervals say how another draw of seeds would come "
        "out, not another set of tasks.",
        "Learning settings were chosen once for each task, the same for all estimators, on seeds from 100 up, which are not "
        "reported: on the language tasks with rloo and maxpo, elsewhere a first guess, kept or changed after a trial under several "
        "estimators (each task's file says how). None was tuned for itself: with settings of its own each may do better.",
        "A verdict needs 2.5% in its direction (5% over both) after Holm's correction; ✓ supported, ✗ contradicted, ? "
        "inconclusive.",
    )


def overall_table(data, method=REFERENCE):
    rows = []
    for _, r in data.iterrows():
        rows.append(
            [
                name(r["estimator"]),
                num(r["num_tasks"]),
                cell(f"{number(r['iqm'])} {interval(r['iqm low'], r['iqm high'])}", r["iqm"], "num"),
                cell(
                    "-"
                    if _none(r[f"{method} ahead by"])
                    else f"{number(r[f'{method} ahead by'], True)} {interval(r['ahead low'], r['ahead high'])}",
                    "" if _none(r[f"{method} ahead by"]) else r[f"{method} ahead by"],
                    "num",
                ),
                cell(
                    "-"
                    if _none(r.get(f"P({method} better)"))
                    else f"{number(r[f'P({method} better)'])} {interval(r['P low'], r['P high'])}",
                    "" if _none(r.get(f"P({method} better)")) else r[f"P({method} better)"],
                    "num",
                ),
                num(r["pass@1"]),
            ]
        )
    return table(
        ["estimator", "tasks", "max@K, interquartile mean", f"{method} ahead by (mean, paired)", f"P({method} better)"]
        + ["pass@1, mean"],
        rows,
        "Over all tasks and seeds, scale 0 to 1, 95% intervals, not corrected for how many are compared (the first table is). "
        "The interquartile mean is over single runs, the other columns over tasks' means. P: chance that a run of one beats a run "
        "of the other on the same task.",
        "tables/overall.csv",
    )


def ladder_ends_table(data):
    """pass@1 and pass@16 side by side, with the base policy as each task's first row."""
    rows = []
    for _, r in data.iterrows():
        own = r["estimator"] != "before training"
        row = [cell(r["task"]), name(r["estimator"]) if own else cell(r["estimator"])]
        for k in (1, 16):
            value, low, high = (r[f"pass_at_{k}{end}"] for end in ("", "_low", "_high"))
            known = not _none(value)
            row.append(cell(f"{number(value)} {interval(low, high)}" if known else "-", value if known else "", "num"))
        rows.append([*row, num(r["num_seeds"])])
    return table(
        ["task", "estimator", "pass@1", "pass@16", "seeds"],
        rows,
        "Tasks whose rewards are 0 or 1: one sample and the best of 16, on held-out prompts or start states; mean over seeds with "
        "its 95% interval. An estimator may win one and lose the other.",
        "tables/ladder_ends.csv",
        fold=len(rows) > 60,
    )


def _none(value):
    return value is None or value != value


def task_tables(data, results):
    """One sortable table over all cells."""
    rows = []
    for _, r in data.iterrows():
        row = [cell(r["task"]), name(r["estimator"])]
        for metric in ("max@K", "pass@K", "pass@1"):
            value = r[metric]
            row.append(
                cell(
                    "-" if _none(value) else f"{number(value)} {interval(r[f'{metric} low'], r[f'{metric} high'])}",
                    "" if _none(value) else value,
                    "num",
                )
            )
        rows.append([*row, num(r["num_seeds"]), num(r["seconds per seed"]), cell(r["status"], kind=f"status {r['status']}")])
    return table(
        ["task", "estimator", "max@K", "pass@K", "pass@1", "seeds", "s per seed", "status"],
        rows,
        "After training: mean over seeds with its 95% interval.",
        "tables/cells.csv",
        fold=len(rows) > 40,
    )


def status_blocks(data, results):
    counts = data["status"].value_counts()
    summary = table(
        ["status", "cells", "meaning"],
        [[cell(s, kind=f"status {s}"), num(int(counts[s])), cell(meaning)] for s, meaning in load.STATUSES.items() if s in counts],
    )
    listed = data[~data["status"].isin(["ok", "committed"]) | (data["reason"] != "")]
    rows = [
        [cell(r["task"]), name(r["estimator"]), cell(r["status"], kind=f"status {r['status']}"), cell(r["reason"])]
        for _, r in listed.iterrows()
    ]
    files = [
        [cell(path, kind="code"), cell("stale", kind="status stale"), cell(f"{reason}; not used")]
        for path, reason in results.stale.items()
    ]
    errors = data[data["verifier_errors"].fillna(0) > 0]
    told = [
        f"{r['task']} under {r['estimator']}: the verifier raised {int(r['verifier_errors'])} times" for _, r in errors.iterrows()
    ]
    return [
        summary,
        table(["task", "estimator", "status", "reason"], rows) if rows else text("Every declared cell has results."),
        table(["table", "status", "reason"], files) if files else None,
        text(*told),
        text(*(f"Note: {n}" for n in results.notes)),
    ]


def evaluation_check(data):
    """How often sampled evaluation missed the exact value, among the cells whose problem can be enumerated: two blocks."""
    known = data.dropna(subset=["low", "high"])
    if not len(known):
        return []
    outside, after = int(known["outside"].sum()), int((known["p_holm"] < 0.05).sum())
    return [
        text(
            f"Sampled against exact: max@K of {count(len(known), 'cell')} is also known by enumeration. The mean over seeds of "
            f"sampled minus exact is away from 0 at 95% in {outside} of them, where {0.05 * len(known):.0f} are expected by chance "
            "(cells of a task are evaluated with the same start states and noise, so they miss together), and after Holm's "
            f"correction over the cells in {after or 'none'}."
        ),
        frame(data, "Sampled minus exact max@K, mean over seeds.", "tables/exact.csv", fold=True),
    ]


def findings_table(data, claims):
    tested = {c.id for c in claims if c.measure == "property"}  # true or false: no bound to exceed
    rows = [
        [
            cell(r["claim"]),
            cell(r["against"]) if not r["against"] else name(r["against"]),
            cell(r["where"]),
            cell(f"{MARKS[r['verdict']]} {r['verdict']}", r["verdict"], f"verdict {r['verdict']}"),
            num(r["effect"]),
            cell("-" if _none(r["effect"]) else interval(r["low"], r["high"], r["exact"]), kind="num"),
            cell("-", "", "num") if r["claim"] in tested else num(r["null"]),
            num(r["num_pairs"]),
            cell(r["reason"]),
        ]
        for _, r in data.iterrows()
    ]
    return table(
        ["claim", "against", "where", "verdict", "effect", "95% interval", "must exceed", "n", "reason"],
        rows,
        "Verdicts after Holm over the comparisons of the same claim, one-sided 2.5% each way; a supported claim settles all of "
        "its own. Must exceed: what no difference is, less the claim's margin.",
        "tables/claims.csv",
        fold=True,
    )


def frame(data, caption="", csv="", fold=False):
    """Any DataFrame as a table block; a column called estimator is marked with its colour."""
    rows = [
        [
            name(v) if c == "estimator" else num(v) if isinstance(v, int | float) and not isinstance(v, bool) else cell(v)
            for c, v in zip(data.columns, row, strict=True)
        ]
        for row in data.itertuples(index=False)
    ]
    return table([str(c) for c in data.columns], rows, caption, csv, fold)


def provenance(results):
    """Versions, machines, seeds and hashes, as the cells' own files record them."""
    versions, machines, tasks = {}, {}, []
    for c in results.cells.values():
        if c.usable:
            key = ", ".join(f"{k} {v}" for k, v in sorted(c.metrics.get("versions", {}).items()))
            versions[key] = versions.get(key, 0) + 1
            if c.timing.get("machine"):
                machines[c.timing["machine"]] = machines.get(c.timing["machine"], 0) + 1
    for task in results.tasks:
        known = next((results.cells[task, e].metrics for e in results.estimators if results.cells[task, e].usable), {})
        tasks.append(
            [
                cell(task),
                cell(results.title(task)),
                num(results.k(task)),
                num(results.group_size(task)),
                cell(_seeds(known.get("seeds", []))),
                cell(str(known.get("task_sha256", "-"))[:12], kind="code"),
            ]
        )
    rows = [[cell("versions"), cell(v), num(n)] for v, n in versions.items()] + [
        [cell("machine"), cell(m), num(n)] for m, n in machines.items()
    ]
    sources = [
        [
            name(e),
            cell(
                str(
                    next(
                        (
                            results.cells[t, e].metrics.get("source_sha256", "-")
                            for t in results.tasks
                            if results.cells[t, e].usable
                        ),
                        "-",
                    )
                )[:12],
                kind="code",
            ),
        ]
        for e in results.estimators
    ]
    return [
        table(["what", "recorded", "cells"], rows),
        table(["task", "title", "K", "group size N", "seeds", "hash of the task"], tasks),
        table(["estimator", "hash of its file"], sources, fold=True),
        text(f"Code: {code_commit(results.root)}. `maxpo-bench compare` says whether this machine reproduces it."),
    ]


def code_commit(root):
    """The last commit that changed what is run, in words. Commits of results, tests and texts alone do not count, so
    that committing a report does not change it."""
    git = ["git", "-C", str(root)]
    paths = ["--", "maxpo_bench", "tasks", "params.yaml", "dvc.yaml", "claims.yaml"]
    try:
        last = subprocess.run([*git, "log", "-1", "--format=%H %cs", *paths], capture_output=True, text=True, check=True).stdout
        dirty = subprocess.run([*git, "status", "--porcelain", *paths], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "not under git"
    if not last:
        return "not committed"
    commit, date = last.split()
    return f"commit {commit[:12]} of {date}" + (", with uncommitted changes" if dirty.strip() else "")


def _seeds(seeds):
    seeds = list(seeds)
    return (
        f"{seeds[0]} to {seeds[-1]}"
        if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
        else json.dumps(seeds)[1:-1] or "-"
    )


def palette(results):
    """{estimator: colour} for the marks beside names."""
    return style.colours(sorted({*results.estimators, *results.declared}))
