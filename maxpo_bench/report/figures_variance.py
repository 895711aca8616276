"""Figures of the gradient estimators themselves: signal-to-noise ratio, and variance over maxpo's."""

import numpy as np
import pandas as pd

from maxpo_bench.report import style
from maxpo_bench.report.figures import label_grid, numbered, pages_of, panels, whisker


def _origin(table, results):
    """Where the numbers come from: how many groups, and whose policies."""
    groups = pd.to_numeric(table["num_groups"], errors="coerce").dropna() if "num_groups" in table else []
    low, high = (int(min(groups)), int(max(groups))) if len(groups) else (0, 0)
    size = f"M = {low:,}{'' if low == high else f' to {high:,}'} groups a checkpoint; " if high else ""
    return f"{size}the checkpoints are those of seed 0 of {results.variance_policy}, one trajectory for each task."


def signal_to_noise(table, results):
    """SNR of one group's gradient estimate at every checkpoint with its interval, one panel per task."""
    if not {"snr", "checkpoint"} <= set(table):
        return []
    table = table[table["estimator"].isin(results.estimators)]
    empty = pd.Series(np.nan, table.index)
    columns = ("snr", "snr_low", "snr_high")
    table = table.assign(**{c: pd.to_numeric(table.get(c, empty), errors="coerce") for c in columns})
    hidden = table[table["snr"] <= 0]["task"].value_counts(sort=False)
    caption = (
        "Signal-to-noise ratio ||E g||^2 / tr Cov g of one group's gradient estimate, all estimators on the same samples, with its "
        "95% interval; higher is better, no scale of the advantages changes it. Each has the SNR of its own expected gradient. "
        f"{_origin(table, results)} A line that reaches the bottom: the interval holds 0."
    )
    if len(hidden):
        counts = ", ".join(f"{task} {n}" for task, n in hidden.items())
        caption += f" Estimates at or below 0 (no signal found) have no place on the log axis and are not shown: {counts}."
    table = table[table["snr"] > 0]
    made, pages = [], pages_of(table["task"].drop_duplicates(), 10)
    for page, tasks in enumerate(pages):
        figure, axes = panels(len(tasks), 2, 1.9)
        for ax, task in zip(axes, tasks, strict=True):
            rows, ends = table[table["task"] == task], {}
            order = list(rows["checkpoint"].drop_duplicates())
            names = [e for e in results.estimators if e in set(rows["estimator"])]
            seen = rows[list(columns)].to_numpy(float)
            floor = seen[seen > 0].min() / 1.3
            ax.set_yscale("log")
            for j, name in enumerate(names):
                line = rows[rows["estimator"] == name].set_index("checkpoint").reindex(order)
                snr, low, high = (line[c].to_numpy(float) for c in columns)
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
        label_grid(axes, 2, "checkpoint of the policy", "SNR [ratio]")
        made.append((numbered("snr", page, pages), figure, caption))
    return made


def variance_ratio(table, results, method=style.REFERENCE):
    """Var(other) / Var(method) by task and checkpoint, for the estimators with the same expected gradient."""
    if "ratio_to_maxpo" not in table:
        return []
    table = table[(pd.to_numeric(table["ratio_to_maxpo"], errors="coerce") > 0) & (table["estimator"] != method)]
    names, checkpoints = list(table["estimator"].drop_duplicates()), list(table["checkpoint"].drop_duplicates())
    names = [n for n in names if n in results.non_centred()]
    made, pages = [], pages_of(table["task"].drop_duplicates(), 15)
    for page, tasks in enumerate(pages) if names else ():
        figure, axes = style.new_figure("full", height=0.9 + 0.34 * len(tasks), cols=len(names), sharey=True, squeeze=False)
        for ax, name in zip(axes[0], names, strict=True):
            look = style.line_style(name, results.estimators)
            ax.axvline(1, color="#333333", linewidth=0.8, zorder=1)
            for i, task in enumerate(tasks):
                for j, checkpoint in enumerate(checkpoints):
                    rows = table[(table["task"] == task) & (table["estimator"] == name) & (table["checkpoint"] == checkpoint)]
                    if not len(rows):
                        continue
                    row = rows.iloc[0]
                    place = i + 0.24 * (j - (len(checkpoints) - 1) / 2)
                    shape = {**look, "marker": "os^D"[j % 4]}
                    whisker(
                        ax,
                        place,
                        {"ratio": row["ratio_to_maxpo"], "low": row.get("ratio_low"), "high": row.get("ratio_high")},
                        "ratio",
                        shape,
                        null=1.0,
                    )
            ax.set_xscale("log")
            low, high = ax.get_xlim()
            ax.set_xlim(min(low, 0.97), max(high, 1.03))  # own axis: pkpo_raw is tens of times the others
            style.plain_log_ticks(ax.xaxis, *ax.get_xlim(), most=3)
            ax.set_yticks(range(len(tasks)), tasks)
            ax.set_ylim(len(tasks) - 0.4, -0.6)
            ax.grid(axis="y", visible=False)
            ax.tick_params(axis="y", length=0)
            ax.set_title(name.replace("_", "_\n"), color=look["color"])
        from matplotlib.lines import Line2D

        figure.legend(
            handles=[
                Line2D([], [], marker="os^D"[j % 4], color="#444444", linestyle="none", label=c) for j, c in enumerate(checkpoints)
            ],
            loc="outside upper center",
            ncols=len(checkpoints),
        )
        figure.supxlabel(f"gradient variance / {method}'s [ratio, log scale]", fontsize=8)
        made.append(
            (
                numbered("variance_ratio", page, pages),
                figure,
                f"Trace of the gradient's covariance over {method}'s, for the non-centred estimators with the same expected "
                f"gradient; left of 1 the other has less variance than {method}. Filled: the 95% interval leaves out 1. "
                f"{_origin(table, results)}",
            )
        )
    return made
