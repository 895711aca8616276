"""Figures of the gradient estimators themselves: the map of regimes, variance over the method's, signal-to-noise ratio."""

import math

import numpy as np

from maxpo_bench.report.figures import label_grid, numbered, pages_of, panels, whisker
from maxpo_bench.report.words import ALIKE, count
from maxpo_bench.studies import style


def regime_map(table, method=style.REFERENCE):
    """Variance of pkpo over the method's in every regime: a row per kind of policy, a block per success probability, K/N inside."""
    if table is None or not {"geometry", "success_probability", "k_over_n", "estimator", "ratio"} <= set(table):
        return []
    rows = table[table["estimator"] == "pkpo"].round({"success_probability": 9})  # a name of columns here, not a number
    if not len(rows):
        return []
    from matplotlib.colors import BoundaryNorm

    kinds, chances, sizes = (list(rows[c].drop_duplicates()) for c in ("geometry", "success_probability", "k_over_n"))
    grid = rows.set_index(["geometry", "success_probability", "k_over_n"])["ratio"]
    values = np.array([[grid.get((g, p, s), math.nan) for p in chances for s in sizes] for g in kinds], dtype=float)
    figure, ax = style.new_figure(5.2, 1.2 + 0.21 * len(kinds))
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
        f"Map: where the leave-two-out baseline helps, {count(len(rows), 'regime')} by exact enumeration, a row for each kind "
        f"of policy, in each block K/N = {', '.join(sizes)}. Orange: pkpo, which lacks it, has more variance than {method} "
        f"({less}); purple: less ({more}); grey: mirrors the left half of its row."
    )
    return [("regime_map", figure, caption)]


def variance_ratio(table, results, method=style.REFERENCE):
    """Variance over the method's, for the estimators with the same expected gradient: a panel each, a row per task."""
    table = table.dropna(subset=["ratio_to_maxpo"])
    table = table[table["estimator"] != method]
    if not len(table):
        return []
    names, tasks = list(table["estimator"].drop_duplicates()), list(table["task"].drop_duplicates())
    checkpoints, shapes = list(table["checkpoint"].drop_duplicates()), "osD^v<>"
    made, pages = [], pages_of(tasks, 25)
    for page, shown in enumerate(pages):
        figure, axes = panels(len(names), 5, 0.75 + 0.17 * len(shown), sharey=True)
        for ax, name in zip(axes, names, strict=True):
            color = style.colours(names)[name]
            ax.axvline(1, color="#333333", linewidth=0.8, zorder=1)
            for row in table[(table["estimator"] == name) & table["task"].isin(shown)].itertuples():
                j = checkpoints.index(row.checkpoint)
                place = shown.index(row.task) + 0.22 * (j - (len(checkpoints) - 1) / 2)
                look = {"color": color, "marker": shapes[j % len(shapes)]}
                whisker(ax, place, (row.ratio_to_maxpo, row.ratio_low, row.ratio_high), look, null=1.0)
            ax.set_xscale("log")
            low, high = ax.get_xlim()
            ax.set_xlim(min(low, 0.97), max(high, 1.03))  # own axis: pkpo_raw is tens of times the others
            style.plain_log_ticks(ax.xaxis, *ax.get_xlim(), most=3)
            ax.set_title(name.replace("_", "_\n"), color=color)
            ax.grid(axis="y", visible=False)
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(shown)), shown)
        axes[0].set_ylim(len(shown) - 0.4, -0.6)
        marks = [axes[0].plot([], [], shapes[j % len(shapes)], color="#444444", label=str(c))[0] for j, c in enumerate(checkpoints)]
        figure.legend(handles=marks, loc="outside upper center", ncols=len(checkpoints))
        figure.supxlabel(f"gradient variance / {method}'s [ratio, log scale]", fontsize=8)
        caption = (
            f"Trace of the gradient's covariance over {method}'s, for the estimators with the same expected gradient; left of 1 "
            f"the other has less variance than {method}. Filled: the 95% interval leaves out 1. {_origin(table)}"
        )
        made.append((numbered("variance_ratio", page, pages), figure, caption))
    return made


def _origin(table):
    low, high = int(table["num_groups"].min()), int(table["num_groups"].max())
    policies = int(table["num_policies"].max())
    return (
        f"All estimators on the same {low:,}{'' if low == high else f' to {high:,}'} groups, at "
        f"{count(policies, 'policy', 'policies')} for each point of a task's training."
    )


def signal_to_noise(table, results):
    """SNR of one group's gradient estimate at every checkpoint with its interval, one panel per task."""
    table = table[table["estimator"].isin(results.estimators)].dropna(subset=["snr"])
    hidden = table[table["snr"] <= 0]["task"].value_counts(sort=False)
    table = table[table["snr"] > 0]
    if not len(table):
        return []
    caption = (
        "Signal-to-noise ratio ||E g||^2 / tr Cov g of one group's gradient estimate, with its 95% interval; higher is better, "
        f"no scale of the advantages changes it. Each has the SNR of its own expected gradient. {_origin(table)} A line that "
        "reaches the bottom: the interval holds 0."
    )
    if len(hidden):
        counts = ", ".join(f"{task} {n}" for task, n in hidden.items())
        caption += f" Estimates at or below 0 (no signal found) have no place on the log axis and are not shown: {counts}."
    made, pages = [], pages_of(table["task"].drop_duplicates())
    for page, tasks in enumerate(pages):
        figure, axes = panels(len(tasks), 2, 1.75)
        for ax, task in zip(axes, tasks, strict=True):
            rows, ends = table[table["task"] == task], {}
            order = list(rows["checkpoint"].drop_duplicates())
            names = [e for e in results.estimators if e in set(rows["estimator"])]
            seen = rows[["snr", "snr_low", "snr_high"]].to_numpy(float)
            floor = seen[seen > 0].min() / 1.3
            ax.set_yscale("log")
            for j, name in enumerate(names):
                own = rows[rows["estimator"] == name].groupby("checkpoint")  # the mean over its policies
                line = own[["snr", "snr_low", "snr_high"]].mean().reindex(order)
                snr, low, high = (line[c].to_numpy(float) for c in ("snr", "snr_low", "snr_high"))
                x = np.arange(len(order)) + 0.12 * ((j + 0.5) / len(names) - 0.5)  # apart, so that whiskers do not cover
                look = style.line_style(name, results.estimators)
                ax.plot(x, snr, **look)
                known = np.isfinite(low) & np.isfinite(high)
                ax.vlines(x[known], np.maximum(low[known], floor), high[known], color=look["color"], linewidth=0.7, zorder=2)
                ends[name] = float(snr[np.isfinite(snr)][-1])
            ax.set_xticks(range(len(order)), order)
            ax.set_xlim(-0.08, len(order) - 0.92)
            ax.set_ylim(bottom=floor)
            style.plain_log_ticks(ax.yaxis, *ax.get_ylim())
            ax.set_title(task)
            style.label_ends(ax, ends, names=results.estimators)
        label_grid(axes, 2, "policy", "SNR [ratio]")
        made.append((numbered("snr", page, pages), figure, caption))
    return made
