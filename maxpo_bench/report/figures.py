"""Figures of the report: each takes a table and returns (figure, caption), None without data."""

import numpy as np
import pandas as pd

from maxpo_bench.report import load
from maxpo_bench.report.draw import WIDE, dots, grid, heat, pairs
from maxpo_bench.report.words import TEXT, caption, count
from maxpo_bench.studies import style


def seeds(counts):
    """How many seeds stand behind a figure, in words."""
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low}{'' if low == high else f' to {high}'} seeds a task"


def seeds_of(results):
    return seeds([len(c.values("max@K")) for c in results.cells.values() if c.values("max@K")])


def _differences(table, measures, panel):
    """Rows of verdicts or of single tasks as draw.dots takes them."""
    rows = table.reindex(columns=["measure", panel, "rival", "effect", "low", "high"])
    rows = rows[rows["measure"].isin(measures)].dropna(subset=["effect"])
    return rows.assign(estimator=rows["rival"]).rename(columns={panel: "panel", "rival": "row", "effect": "value"})


# -------------------------------------------------------------------------------------------------------- first screens


def answer(verdicts, results, margin, method=style.REFERENCE):
    """max@K, method - rival: a row per rival, a column per aggregate, the margin shaded."""
    rows = _differences(verdicts, ["max@K"], "aggregate")
    if not len(rows):
        return None
    titles = {a: f"{a} ({len(results.tasks_of(a))})" for a in load.AGGREGATES if a in set(rows["panel"])}
    label = f"max@K of {method} minus the rival's  (right: {method} better)"
    figure = dots(rows, list(rows["row"].drop_duplicates()), label, margin=margin, titles=titles, width=5.2, step=0.2, sharex=True)
    for ax in figure.axes:
        ax.set_title(ax.get_title(loc="left"), fontsize=7.5, loc="center")
        ax.set_title("", loc="left")
    return figure, caption("answer", margin=margin, seeds=seeds_of(results))


def regime_map(table, method=style.REFERENCE):
    """Variance of pkpo over the method's in every regime: a row per kind of policy, a block per success probability, K/N inside."""
    if table is None or not {"geometry", "success_probability", "k_over_n", "estimator", "ratio"} <= set(table):
        return None
    rows = table[table["estimator"] == "pkpo"].round({"success_probability": 9})  # a name of columns here, not a number
    if not len(rows):
        return None
    from matplotlib.colors import BoundaryNorm

    kinds, chances, sizes = (list(rows[c].drop_duplicates()) for c in ("geometry", "success_probability", "k_over_n"))
    wide = rows.pivot(index="geometry", columns=["success_probability", "k_over_n"], values="ratio")
    wide = wide.reindex(index=kinds, columns=pd.MultiIndex.from_product([chances, sizes]))
    figure, ax = style.new_figure(5.2, max(1.8, 0.95 + 0.2 * len(kinds)))
    bounds = [0.35, 0.5, 0.7, 0.9, 0.98, 1.02, 1.1, 1.4, 2, 2.8]
    values, norm = np.ma.masked_invalid(wide.to_numpy(float)), BoundaryNorm(bounds, 256, extend="both")
    image = ax.pcolormesh(values, cmap=style.DIVERGING + "_r", norm=norm, edgecolors="white", linewidth=0.3)
    ax.set(facecolor="#D8D8D8", xlabel="chance that a sample succeeds")
    for i in range(1, len(chances)):
        ax.axvline(i * len(sizes), color="black", linewidth=0.9)
    ax.set_yticks(np.arange(len(kinds)) + 0.5, [TEXT["policies"].get(kind, kind) for kind in kinds], fontsize=7)
    ax.set_xticks((np.arange(len(chances)) + 0.5) * len(sizes), [f"{p:g}" for p in chances])
    ax.invert_yaxis()
    ax.grid(False)
    ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=ax, location="top", fraction=0.06, aspect=45, pad=0.02, ticks=bounds, format="%g")
    bar.ax.tick_params(length=0, labelsize=7)
    bar.outline.set_visible(False)
    bar.set_label(f"gradient variance of pkpo / {method}  (orange: {method} better)", fontsize=8)
    less, more = int((rows["ratio"] > 1 + 1e-9).sum()), int((rows["ratio"] < 1 - 1e-9).sum())
    return figure, caption("regime_map", cases=count(len(rows), "case"), less=less, more=more, sizes=", ".join(sizes))


def collapse(table, results):
    """Entropy, distinct answers and max@k far above K after training against before: a row per estimator, a panel each."""
    rows = table[table["task"] == "mean of tasks"].dropna(subset=["value"])
    if not len(rows):
        return None
    most = rows.groupby("measure", sort=False)["num_tasks"].max()
    rows = rows[rows["num_tasks"] == rows["measure"].map(most)]  # a mean of fewer tasks is another mean
    titles = {measure: f"{measure} ({n})" for measure, n in most.items()}
    null = {measure: 0.0 if measure.startswith("max") else 1.0 for measure in most.index}
    names = [e for e in results.estimators if e in set(rows["estimator"])]
    figure = dots(rows.assign(panel=rows["measure"], row=rows["estimator"]), names, "", null=null, titles=titles)
    for ax, measure in zip(figure.axes, most.index, strict=True):
        ax.set_xlabel("after minus before" if measure.startswith("max") else "after / before")
    return figure, caption("collapse", seeds=seeds_of(results))


# -------------------------------------------------------------------------------------------------------- task by task


def single_tasks(table, results, measures, margin, method=style.REFERENCE):
    """Paired differences method - rival on single tasks, a panel for each task and measure."""
    rows, what = _differences(table, measures, "task"), " and ".join(measures)
    rows = rows[rows["row"].isin(results.estimators)]
    if not len(rows):
        return None
    rows = rows.assign(panel=rows["panel"] + ": " + rows["measure"])
    panels = [(f"{t}: {m}", t) for t in results.tasks for m in measures]
    titles = {panel: panel if len(measures) > 1 else t for panel, t in panels if panel in set(rows["panel"])}
    names = [e for e in results.estimators if e in set(rows["row"])]
    label = f"{what} of {method} minus the rival's [scale 0 to 1]"
    figure = dots(rows, names, label, margin=margin, titles=titles, cols=5 - 5 % len(measures), width=WIDE)
    return figure, caption("tasks", what=what, margin=margin, seeds=seeds_of(results))


def learning_curves(table, results, metric, what, method=style.REFERENCE):
    """Along training, two panels for each task: levels, and paired differences to the method. what: the metric in words."""
    if not len(table):
        return None
    table = table.assign(samples=table["samples"] / 1000)
    figure = pairs(table, results, "samples", metric, ("samples drawn [thousand]", what), method, log2=False)
    return figure, caption("curves", what=what, seeds=seeds_of(results), bars=caption("bars"))


def ladder(table, results, method=style.REFERENCE):
    """max@k against k after training, two panels for each task, before training dashed."""
    before, after = (table[table["when"] == when] for when in ("before", "after"))
    if not len(after):
        return None
    figure = pairs(after, results, "k", "max_at_k", ("k [samples per prompt]", "max@k"), method, before)
    return figure, caption("ladder", seeds=seeds_of(results), bars=caption("bars"))


# ----------------------------------------------------------------------------------------------------- gradient variance


def variance_ratio(table, method=style.REFERENCE):
    """Variance over the method's, for the estimators with the same expected gradient: a panel each, a row per task."""
    rows = table[table["estimator"] != method].dropna(subset=["ratio_to_maxpo"])
    if not len(rows):
        return None
    names = {"task": "row", "checkpoint": "mark", "ratio_to_maxpo": "value", "ratio_low": "low", "ratio_high": "high"}
    rows = rows.rename(columns=names).assign(panel=rows["estimator"])
    label = f"gradient variance / {method}'s [ratio, log scale]"
    figure = dots(rows, list(dict.fromkeys(rows["row"])), label, null=1.0, log=True, cols=4, width=WIDE)
    return figure, caption("variance_ratio", origin=_origin(table))


def _origin(table):
    low, high = int(table["num_groups"].min()), int(table["num_groups"].max())
    policies = count(int(table["num_policies"].max()), "policy", "policies")
    return caption("origin", groups=f"{low:,}{'' if low == high else f' to {high:,}'}", policies=policies)


def signal_to_noise(table, results):
    """SNR of one group's gradient estimate at every checkpoint with its interval: a panel per task, a row per estimator."""
    table = table[table["estimator"].isin(results.estimators)].dropna(subset=["snr"])
    rows = table[table["snr"] > 0].rename(columns={"task": "panel", "checkpoint": "mark", "snr": "value"})
    if not len(rows):
        return None
    floor = rows.groupby("panel")["value"].transform("min") / 3
    rows = rows.assign(row=rows["estimator"], low=rows["snr_low"].clip(lower=floor), high=rows["snr_high"])
    hidden = ", ".join(f"{task} {n}" for task, n in table[table["snr"] <= 0]["task"].value_counts(sort=False).items())
    told = f" Estimates at or below 0 (no signal found) have no place on the log axis and are not shown: {hidden}."
    names = [e for e in results.estimators if e in set(rows["estimator"])]
    figure = dots(rows, names, "SNR [ratio, log scale]", null=None, log=True, cols=5, width=WIDE)
    return figure, caption("snr", origin=_origin(table), hidden=told if hidden else "")


# -------------------------------------------------------------------------------------------------------------- studies


def learning_rate(table, results):
    """Final max@K against the learning rate with its 95% interval over tuning seeds, one panel per task."""
    tasks = [t for t in results.tasks if t in set(table["task"])] if len(table) else []
    if not tasks:
        return None
    figure, axes = grid(len(tasks), 3, 1.75, WIDE)
    for ax, task in zip(axes, tasks, strict=True):
        ends = {}
        for name, line in table[table["task"] == task].groupby("estimator", sort=False):
            look = style.line_style(name, results.estimators)
            ax.plot(line["lr"], line["max_at_k"], **look)
            ax.vlines(line["lr"], line["low"], line["high"], color=look["color"], linewidth=0.7, zorder=2)
            ends[name] = line["max_at_k"].iloc[-1]
        ax.axvline(getattr(results.tasks[task], "optimiser", {}).get("lr", np.nan), color="#333333", linewidth=0.8, linestyle="--")
        ax.set(xscale="log", title=task)
        style.plain_log_ticks(ax.xaxis, *ax.get_xlim(), most=4)
        style.label_ends(ax, ends, names=results.estimators)
    figure.supxlabel("learning rate [log scale]", fontsize=8)
    figure.supylabel("max@K", fontsize=8)
    return figure, caption("learning_rate", seeds=seeds(table["num_seeds"]))


def k_trained(table):
    """Heat maps, a panel per task: evaluated k across, estimator and K trained down, max@k minus its column's best."""
    if not len(table):
        return None
    from matplotlib.patches import Rectangle

    rows = table[~table["fixed"] | ~table.duplicated(["task", "estimator", "evaluated"])]
    rows = rows.sort_values(["fixed", "estimator", "k"], kind="stable")
    rows = rows.assign(row=rows["estimator"] + np.where(rows["fixed"], "", " K=" + rows["k"].astype(str)))
    figure, axes = grid(rows["task"].nunique(), 2, 0.6 + 0.17 * rows["row"].nunique(), WIDE, sharey=True)
    for ax, (task, part) in zip(axes, rows.groupby("task", sort=False), strict=True):
        wide = part.pivot(index="row", columns="evaluated", values="max_at_k").reindex(rows["row"].drop_duplicates())
        heat(ax, wide - wide.max(), 0.2)
        ax.set(title=task, ylabel="", xlabel="k evaluated")
        for i, name in enumerate(wide.index):
            for j in [j for j, k in enumerate(wide.columns) if name.endswith(f" K={k}")]:
                ax.add_patch(Rectangle((j, i), 1, 1, fill=False, edgecolor="black", linewidth=1.5))
    return figure, caption("k_trained", seeds=seeds(table["num_seeds"]))


def group_size(table, results, method=style.REFERENCE):
    """max@K against N at a fixed number of samples, two panels for each task: levels, and paired differences."""
    if not len(table):
        return None
    figure = pairs(table, results, "group_size", "max_at_k", ("N [samples in a group]", "max@K"), method)
    return figure, caption("group_size", seeds=seeds(table["num_seeds"]), bars=caption("bars"))


def estimators(table, method=style.REFERENCE):
    """All estimators on the cheap tasks, sorted: max@K minus the method's as coloured numbers."""
    if not len(table):
        return None
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
    return figure, caption("estimators", most=int(table.loc[table["task"] != "mean", "num_seeds"].max()))
