"""Figures of the report: each takes a table and returns [(name, figure, caption)], empty without data."""

import numpy as np
import pandas as pd

from maxpo_bench.report import load
from maxpo_bench.report.draw import dots, grid, heat, label_grid, levels_and_gaps, log2_ticks, pages, with_intervals
from maxpo_bench.report.words import ALIKE, count
from maxpo_bench.studies import style

LABELS = {"max_at_k": "max@K", "pass_at_1": "pass@1"}


def seeds_of(results):
    """How many seeds stand behind the tasks' numbers, in words."""
    tasks = {}
    for task in results.usable_tasks():
        most = max(len(results.cells[task, e].values("max@K")) for e in results.estimators)
        tasks.setdefault(most, []).append(task)
    parts = [f"{n} on {', '.join(names)}" for n, names in sorted(tasks.items(), reverse=True)]
    return f"Seeds: {'; '.join(parts)}." if parts else ""


def _seeds(results):
    counts = [len(c.values("max@K")) for c in results.cells.values() if c.values("max@K")]
    return f"{min(counts)}{'' if min(counts) == max(counts) else f' to {max(counts)}'} seeds a task"


def _differences(table, measure, panel):
    """Rows of verdicts or of single tasks as draw.dots takes them."""
    rows = table[(table["measure"] == measure) & table["effect"].notna()] if len(table) else table
    columns = {panel: "panel", "rival": "row", "effect": "value"}
    return rows.assign(estimator=rows["rival"]).rename(columns=columns) if len(rows) else rows


# -------------------------------------------------------------------------------------------------------- first screens


def answer(verdicts, results, margin, method=style.REFERENCE):
    """max@K, method - rival: a row per rival, a column per aggregate, the margin shaded."""
    rows = _differences(verdicts, "max@K", "aggregate")
    if not len(rows):
        return []
    titles = {a: f"{a} ({len(results.tasks_of(a))})" for a in load.AGGREGATES if a in set(rows["panel"])}
    label = f"max@K of {method} minus the rival's  (right: {method} better)"
    figure = dots(rows, list(rows["row"].drop_duplicates()), label, margin=margin, titles=titles, width=5.2, step=0.2, sharex=True)
    for ax in figure.axes:
        ax.set_title(ax.get_title(loc="left"), fontsize=7.5, loc="center")
        ax.set_title("", loc="left")
    caption = (
        f"Left: max@K after training, {method} minus each rival on the same seed, mean of the tasks (their number in brackets), "
        f"scale 0 to 1, {_seeds(results)}. Bars: 95% intervals; filled: 0 is outside; shaded: ±{margin:g}, too small to matter."
    )
    return [("answer", figure, caption)]


def collapse(table, results):
    """Entropy, distinct answers and max@k far above K after training against before: a row per estimator, a panel each."""
    rows = table[table["task"] == "mean of tasks"].dropna(subset=["value"])
    if not len(rows):
        return []
    most = rows.groupby("measure", sort=False)["num_tasks"].max()
    rows = rows[rows["num_tasks"] == rows["measure"].map(most)]  # a mean of fewer tasks is another mean
    titles = {measure: f"{measure} ({n})" for measure, n in most.items()}
    null = {measure: 0.0 if measure.startswith("max") else 1.0 for measure in most.index}
    names = [e for e in results.estimators if e in set(rows["estimator"])]
    figure = dots(rows.assign(panel=rows["measure"], row=rows["estimator"]), names, "", null=null, titles=titles)
    for ax, measure in zip(figure.axes, most.index, strict=True):
        ax.set_xlabel("after minus before" if measure.startswith("max") else "after / before")
    caption = (
        "What training does to the variety of the policy, mean of the tasks that measure it (their number in brackets) with "
        "95% intervals; the line: as before training. Entropy of a token or an action; distinct answers among the samples of a "
        "prompt; max@k for the largest k drawn, at least 4 K: left of 0 training has lost answers that the untrained policy "
        f"finds in k samples. Estimators that do not run on all of these tasks have no dot. {seeds_of(results)}"
    )
    return [("collapse", figure, caption)]


def regime_map(table, method=style.REFERENCE):
    """Variance of pkpo over the method's in every regime: a row per kind of policy, a block per success probability, K/N inside."""
    if table is None or not {"geometry", "success_probability", "k_over_n", "estimator", "ratio"} <= set(table):
        return []
    rows = table[table["estimator"] == "pkpo"].round({"success_probability": 9})  # a name of columns here, not a number
    if not len(rows):
        return []
    from matplotlib.colors import BoundaryNorm

    kinds, chances, sizes = (list(rows[c].drop_duplicates()) for c in ("geometry", "success_probability", "k_over_n"))
    wide = rows.pivot(index="geometry", columns=["success_probability", "k_over_n"], values="ratio")
    values = wide.reindex(index=kinds, columns=[(p, s) for p in chances for s in sizes]).to_numpy(float)
    figure, ax = style.new_figure(5.2, max(1.8, 0.95 + 0.2 * len(kinds)))
    bounds = [0.35, 0.5, 0.7, 0.9, 0.98, 1.02, 1.1, 1.4, 2, 2.8]
    norm = BoundaryNorm(bounds, 256, extend="both")
    image = ax.pcolormesh(np.ma.masked_invalid(values), cmap=style.DIVERGING + "_r", norm=norm, edgecolors="white", linewidth=0.3)
    ax.set_facecolor("#D8D8D8")
    for i in range(1, len(chances)):
        ax.axvline(i * len(sizes), color="black", linewidth=0.9)
    ax.set_yticks(np.arange(len(kinds)) + 0.5, [ALIKE.get(kind, kind) for kind in kinds], fontsize=7)
    ax.set_xticks((np.arange(len(chances)) + 0.5) * len(sizes), [f"{p:g}" for p in chances])
    ax.invert_yaxis()
    ax.grid(False)
    ax.tick_params(length=0)
    ax.set_xlabel("chance that a sample succeeds", fontsize=8)
    bar = figure.colorbar(image, ax=ax, location="top", fraction=0.06, aspect=45, pad=0.02, ticks=bounds)
    bar.ax.set_xticklabels([f"{b:g}" for b in bounds])
    bar.ax.tick_params(length=0, labelsize=7)
    bar.outline.set_visible(False)
    bar.set_label(f"gradient variance of pkpo / {method}", fontsize=8)
    less, more = int((rows["ratio"] > 1 + 1e-9).sum()), int((rows["ratio"] < 1 - 1e-9).sum())
    caption = (
        f"Right: where {method}'s baseline helps, {count(len(rows), 'case')} by exact enumeration; a row per kind of policy, in "
        f"each block K/N = {', '.join(sizes)}. Orange: pkpo, which lacks it, has more variance ({less}); purple: less ({more}); "
        "grey: mirrors the left half of its row."
    )
    return [("regime_map", figure, caption)]


# -------------------------------------------------------------------------------------------------------- task by task


def single_tasks(table, results, measure, margin, method=style.REFERENCE):
    """Paired differences method - rival on single tasks, a panel each."""
    rows, made = _differences(table, measure, "task"), []
    names = [e for e in results.estimators if len(rows) and e in set(rows["row"])]
    rows = rows[rows["row"].isin(names)] if len(rows) else rows
    stem = "tasks_" + measure.lower().replace("@", "_at_")
    caption = (
        f"{measure} after training on single tasks, {method} minus each rival, paired by seed; right of 0 {method} is ahead. "
        f"Filled: the 95% interval leaves out 0; shaded: ±{margin:g}; no dot: no results. {seeds_of(results)}"
    )
    for name, tasks in pages(stem, [t for t in results.tasks if len(rows) and t in set(rows["panel"])], 12):
        label = f"{measure} of {method} minus the rival's [scale 0 to 1]"
        made.append((name, dots(rows, names, label, margin=margin, titles={t: t for t in tasks}), caption))
    return made


def _paired(stem, table, results, x, column, labels, caption, method, before=None, log2=True):
    """Two panels for each task: levels of `column` against x (those of `before` dashed), and paired differences to the method."""
    made = []
    for name, tasks in pages(stem, table["task"] if len(table) else [], 5):
        figure, axes = grid(2 * len(tasks), 2, 1.6)
        for pair, task in zip(zip(axes[::2], axes[1::2], strict=True), tasks, strict=True):
            rows = table[table["task"] == task]
            for ax, ends in levels_and_gaps(pair, rows, results.estimators, x, column, method):
                if before is not None:
                    start = before[before["task"] == task].groupby(x)[column].first()
                    if ax is pair[0] and len(start):
                        ax.plot(start.index, start.to_numpy(), color=style.GREY, linestyle="--", linewidth=1.4, zorder=2)
                        ends["before"] = start.iloc[-1]
                if log2:
                    log2_ticks(ax, rows[x])
                style.label_ends(ax, ends, names=results.estimators)
            pair[0].set_title(f"{task} (K={results.setting(task, 'k')})")
        label_grid(axes, 2, *labels)
        made.append((name, figure, caption))
    return made


def learning_curves(table, results, metric, method=style.REFERENCE):
    """Along training, two panels for each task: levels, and paired differences to the method."""
    caption = (
        f"{LABELS[metric]} on held-out prompts or start states along training, mean over seeds. Left: levels. Right: paired "
        f"difference to {method} on the same seed, with its 95% interval; above the line the rival is ahead. "
        f"{seeds_of(results)}"
    )
    table, labels = table.assign(samples=table["samples"] / 1000), ("samples drawn [thousand]", LABELS[metric])
    return _paired(f"curves_{metric}", table, results, "samples", metric, labels, caption, method, log2=False)


def ladder(table, results, method=style.REFERENCE):
    """max@k against k after training, two panels for each task, before training dashed."""
    caption = (
        "max@k on held-out prompts or start states against k, after training for K, mean over seeds. Left: levels; dashed: before "
        f"training. Right: paired difference to {method} on the same seed, with its 95% interval. {seeds_of(results)}"
    )
    before, after = (table[table["when"] == when] for when in ("before", "after"))
    return _paired("ladder", after, results, "k", "max_at_k", ("k [samples per prompt]", "max@k"), caption, method, before)


# ----------------------------------------------------------------------------------------------------- gradient variance


def variance_ratio(table, results, method=style.REFERENCE):
    """Variance over the method's, for the estimators with the same expected gradient: a panel each, a row per task."""
    table = table[table["estimator"] != method].dropna(subset=["ratio_to_maxpo"])
    rows = table.rename(columns={"task": "row", "checkpoint": "mark", "ratio_to_maxpo": "value", "ratio_low": "low"})
    rows = rows.rename(columns={"ratio_high": "high"}).assign(panel=table["estimator"])
    caption = (
        f"Trace of the gradient's covariance over {method}'s, for the estimators with the same expected gradient; left of 1 the "
        "other has less variance. Filled: the 95% interval leaves out 1; initial, middle, final: how far the policy was trained."
    )
    label = f"gradient variance / {method}'s [ratio, log scale]"
    return [
        (name, dots(rows[rows["row"].isin(tasks)], tasks, label, null=1.0, log=True), f"{caption} {_origin(table)}")
        for name, tasks in pages("variance_ratio", rows["row"], 25)
    ]


def _origin(table):
    low, high = int(table["num_groups"].min()), int(table["num_groups"].max())
    policies = int(table["num_policies"].max())
    return (
        f"All estimators on the same {low:,}{'' if low == high else f' to {high:,}'} groups, at "
        f"{count(policies, 'policy', 'policies')} for each point of a task's training."
    )


def signal_to_noise(table, results):
    """SNR of one group's gradient estimate at every checkpoint with its interval: a panel per task, a row per estimator."""
    table = table[table["estimator"].isin(results.estimators)].dropna(subset=["snr"])
    hidden = table[table["snr"] <= 0]["task"].value_counts(sort=False)
    rows = table[table["snr"] > 0].rename(columns={"task": "panel", "checkpoint": "mark", "snr": "value"})
    if not len(rows):
        return []
    floor = rows.groupby("panel")["value"].transform("min") / 3
    rows = rows.assign(row=rows["estimator"], low=rows["snr_low"].clip(lower=floor), high=rows["snr_high"])
    caption = (
        "Signal-to-noise ratio ||E g||^2 / tr Cov g of one group's gradient estimate, with its 95% interval; right is better, "
        f"no scale of the advantages changes it. Each has the SNR of its own expected gradient. {_origin(table)} A line that "
        "reaches the left end: the interval holds 0."
    )
    if len(hidden):
        counts = ", ".join(f"{task} {n}" for task, n in hidden.items())
        caption += f" Estimates at or below 0 (no signal found) have no place on the log axis and are not shown: {counts}."
    names = [e for e in results.estimators if e in set(rows["estimator"])]
    return [
        (name, dots(rows, names, "SNR [ratio, log scale]", null=None, log=True, titles={t: t for t in tasks}), caption)
        for name, tasks in pages("snr", rows["panel"], 12)
    ]


# -------------------------------------------------------------------------------------------------------------- studies


def learning_rate(table, results):
    """Final max@K against the learning rate with its 95% interval over tuning seeds, one panel per task."""
    made = []
    for name, tasks in pages("learning_rate", [t for t in results.tasks if len(table) and t in set(table["task"])], 8):
        figure, axes = grid(len(tasks), 2, 1.75)
        for ax, task in zip(axes, tasks, strict=True):
            ends = with_intervals(ax, table[table["task"] == task], "lr", "max_at_k", results.estimators)
            shared = (getattr(results.tasks.get(task), "optimiser", None) or {}).get("lr")
            if shared:
                ax.axvline(shared, color="#333333", linewidth=0.8, linestyle="--", zorder=1)
            ax.set_xscale("log")
            style.plain_log_ticks(ax.xaxis, *ax.get_xlim(), most=4)
            ax.set_title(task)
            style.label_ends(ax, ends, names=results.estimators)
        label_grid(axes, 2, "learning rate [log scale]", "max@K")
        caption = (
            "max@K after training against the learning rate, mean over tuning seeds with 95% intervals. Dashed: the shared rate."
        )
        made.append((name, figure, caption))
    return made


def k_trained(table):
    """Heat maps, a panel per task and estimator that uses K: evaluated k across, K trained down, max@k minus its column's best."""
    if not len(table):
        return []
    panels = list(table.loc[~table["fixed"], ["task", "estimator"]].drop_duplicates().itertuples(index=False, name=None))
    from matplotlib.patches import Rectangle

    others = table[table["fixed"]].drop_duplicates(["task", "estimator", "evaluated"])
    if not panels:
        return []
    wides = []
    for task, estimator in panels:
        rows = table[(table["task"] == task) & (table["estimator"] == estimator)]
        wide = rows.pivot(index="k", columns="evaluated", values="max_at_k").rename(lambda k: f"K={k}")
        rest = others[others["task"] == task].pivot(index="estimator", columns="evaluated", values="max_at_k")
        wides.append((wide - wide.max(), rest - wide.max()))
    figure, axes = grid(len(panels), 2, 0.5 + 0.2 * max(len(a) + len(b) for a, b in wides))
    for ax, (task, estimator), (mine, rest) in zip(axes, panels, wides, strict=True):
        wide = pd.concat([mine, rest])
        heat(ax, wide, 0.2)
        ax.set(title=f"{estimator} on {task}", ylabel="", xlabel="")
        for i, k in enumerate(mine.index):
            for j in [j for j, evaluated in enumerate(wide.columns) if k == f"K={evaluated}"]:
                ax.add_patch(Rectangle((j, i), 1, 1, fill=False, edgecolor="black", linewidth=1.5))
    label_grid(axes, 2, "k evaluated")
    seeds = table.loc[~table["fixed"], "num_seeds"]
    caption = (
        "max@k after training for K minus the best K of its column (0: the best), mean over seeds; framed: trained for the k "
        f"that is evaluated. Last rows: an estimator that knows no K. Seeds: {seeds.min()} to {seeds.max()}."
    )
    return [("k_trained", figure, caption)]


def group_size(table, results, method=style.REFERENCE):
    """max@K against N at a fixed number of samples, two panels for each task: levels, and paired differences."""
    caption = (
        "max@K after training against the size of a group, the number of samples being the same, mean over seeds. Left: levels. "
        f"Right: paired difference to {method} on the same seed, with its 95% interval."
    )
    caption += f" Seeds: {table['num_seeds'].min()} to {table['num_seeds'].max()}." if len(table) else ""
    labels = ("N [samples in a group]", "max@K")
    return _paired("group_size", table, results, "group_size", "max_at_k", labels, caption, method)


def estimators(table, method=style.REFERENCE):
    """All estimators on the cheap tasks, sorted: max@K minus the method's as coloured numbers."""
    if not len(table):
        return []
    wide = table.pivot(index="estimator", columns="task", values="gap")
    wide = wide.reindex(index=table["estimator"].drop_duplicates(), columns=["mean", *[t for t in wide if t != "mean"]])
    figure, ax = style.new_figure("full", 0.8 + 0.15 * len(wide))
    heat(ax, wide, 0.2)
    ax.set(xlabel=f"max@K minus {method}'s [scale 0 to 1]", ylabel="")
    ax.xaxis.tick_top()
    ax.axvline(1, color="black", linewidth=1)
    default = set(table.loc[table["default"], "estimator"])
    for tick in ax.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() in default else "normal")
    seeds = int(table.loc[table["task"] != "mean", "num_seeds"].max())
    caption = (
        f"Every estimator on the cheap tasks: max@K after training minus {method}'s on the same seeds (at most {seeds} a task), "
        "sorted by the mean of all tasks; below them those that refuse some tasks' rewards (grey). Bold: in the default list."
    )
    return [("estimators", figure, caption)]
