"""Figures of the report: each takes a table of tables.py and returns [(name, figure, caption)], empty without data."""

import math

import numpy as np
import pandas as pd

from maxpo_bench.report import style

PER_FIGURE = 12  # panels; more tasks go on further figures
PHASE_COLOURS = {"sample": "#2F4B7C", "reward": "#8FA9D0", "advantage": "#C1272D", "update": "#A8A8A8"}
BAND = "Bands and whiskers: 95% intervals over seeds; none below 3 seeds."


def pages_of(tasks, per_figure=PER_FIGURE):
    tasks = list(tasks)
    return [tasks[i : i + per_figure] for i in range(0, len(tasks), per_figure)]


def panels(num, cols, height, **kwargs):
    """A full-width figure with num panels: (figure, [axes]); what is left of the last row is removed, not left empty."""
    cols = min(cols, num)
    rows = -(-num // cols)
    figure, axes = style.new_figure("full", height=height * rows + 0.2, rows=rows, cols=cols, squeeze=False, **kwargs)
    flat = list(axes.flat)
    for ax in flat[num:]:
        ax.remove()
    return figure, flat[:num]


def numbered(name, page, pages):
    return name if len(pages) == 1 else f"{name}_{page + 1}"


def _present(table, estimators):
    found = set(table["estimator"])
    return [e for e in estimators if e in found]


def learning_curves(table, results, metric):
    """Mean over seeds against samples drawn, one panel per task, each line named at its end."""
    label = {"max_at_k": "max@K", "pass_at_1": "pass@1"}[metric]
    unit = "reward" if metric == "max_at_k" else "share"
    made, pages = [], pages_of(table["task"].drop_duplicates(), 10)
    for page, tasks in enumerate(pages):
        figure, axes = panels(len(tasks), 2, 1.9)
        for ax, task in zip(axes, tasks, strict=True):
            rows, ends = table[table["task"] == task], {}
            names = _present(rows, results.estimators)
            for name in names:
                line = rows[rows["estimator"] == name].dropna(subset=[metric]).sort_values("samples")
                if not len(line):
                    continue
                x = line["samples"] / 1000
                look = style.line_style(name, results.estimators)
                ax.plot(x, line[metric], markevery=max(1, len(line) // 6), **look)
                ax.fill_between(
                    x,
                    line[f"{metric}_low"].astype(float),
                    line[f"{metric}_high"].astype(float),
                    color=look["color"],
                    alpha=0.10,
                    linewidth=0,
                )
                ends[name] = line[metric].iloc[-1]
            if metric == "pass_at_1":
                ax.set_ylim(bottom=max(0, ax.get_ylim()[0]))
            ax.margins(x=0.01)
            ax.set_title(f"{task} (K={results.k(task)})" if metric == "max_at_k" else task)
            style.label_ends(ax, ends, names=results.estimators)
        label_grid(axes, 2, "samples drawn [thousand]", f"{label} [{unit}]")
        made.append(
            (
                numbered(f"curves_{metric}", page, pages),
                figure,
                f"{label} on held-out prompts or start states along training, mean over seeds. {BAND} {seeds_of(results)}",
            )
        )
    return made


def seeds_of(results):
    """How many seeds stand behind the tasks' numbers, in words."""
    tasks = {}
    for task in results.usable_tasks():
        most = max(len(results.cells[task, e].values("max@K")) for e in results.estimators)
        tasks.setdefault(most, []).append(task)
    parts = [f"{n} on {', '.join(names)}" for n, names in sorted(tasks.items(), reverse=True)]
    return f"Seeds: {'; '.join(parts)}." if parts else ""


def label_grid(axes, cols, xlabel, ylabel):
    """Axis labels where they are needed: y on the first column, x on the last panel of every column."""
    cols = min(cols, len(axes))
    for i, ax in enumerate(axes):
        if i % cols == 0:
            ax.set_ylabel(ylabel)
        if i + cols >= len(axes):
            ax.set_xlabel(xlabel)


def ladder(table, results):
    """max@k against k, before training (dashed) and after, one panel per task."""
    made, pages = [], pages_of(table["task"].drop_duplicates(), 10)
    for page, tasks in enumerate(pages):
        figure, axes = panels(len(tasks), 2, 1.9)
        for ax, task in zip(axes, tasks, strict=True):
            rows, ends = table[table["task"] == task], {}
            before = rows[rows["when"] == "before"].groupby("k").first()
            if len(before):
                ax.plot(before.index, before["max_at_k"].to_numpy(), color=style.GREY, linestyle="--", linewidth=1.4, zorder=2)
                bounds = (before[f"max_at_k_{end}"].astype(float) for end in ("low", "high"))
                ax.fill_between(before.index, *bounds, color=style.GREY, alpha=0.15, linewidth=0)
                ends["before"] = before["max_at_k"].iloc[-1]
            for name in _present(rows, results.estimators):
                line = rows[(rows["estimator"] == name) & (rows["when"] == "after")].dropna(subset=["max_at_k"]).sort_values("k")
                if len(line):
                    look = style.line_style(name, results.estimators)
                    ax.plot(line["k"], line["max_at_k"], **look)
                    bounds = (line[f"max_at_k_{end}"].astype(float) for end in ("low", "high"))
                    ax.fill_between(line["k"], *bounds, color=look["color"], alpha=0.10, linewidth=0)
                    ends[name] = line["max_at_k"].iloc[-1]
            ax.set_xscale("log", base=2)
            ticks = sorted({k for k in rows["k"] if (int(k) & (int(k) - 1)) == 0})
            ax.set_xticks(ticks, [str(int(k)) for k in ticks])
            ax.minorticks_off()
            ax.set_title(f"{task} (K={results.k(task)})")
            style.label_ends(ax, ends, names=results.estimators)
        label_grid(axes, 2, "k [samples per prompt]", "max@k [reward]")
        made.append(
            (
                numbered("ladder", page, pages),
                figure,
                "max@k on held-out prompts or start states against k, before (dashed) and after training for K, mean over seeds. "
                f"{BAND} {seeds_of(results)}",
            )
        )
    return made


def forest(table, results, metric, method=style.REFERENCE):
    """Paired differences method - other: one panel per task and one for the mean over tasks."""
    table = table.dropna(subset=["difference"])
    if not len(table):
        return []
    names = [e for e in results.estimators if e in set(table["estimator"])]
    made, pages = [], pages_of(["overall", *[t for t in table["task"].drop_duplicates() if t != "overall"]])
    for page, tasks in enumerate(pages):
        figure, axes = panels(len(tasks), 4, 0.55 + 0.16 * len(names), sharey=True)
        for ax, task in zip(axes, tasks, strict=True):
            rows = table[table["task"] == task].set_index("estimator")
            ax.axvline(0, color="#333333", linewidth=0.8, zorder=1)
            for place, name in enumerate(names):
                if name not in rows.index:
                    ax.text(
                        0,
                        place,
                        "no pairs",
                        fontsize=6,
                        color=style.GREY,
                        va="center",
                        ha="center",
                        zorder=6,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
                    )
                    continue
                whisker(ax, place, rows.loc[name], "difference", style.line_style(name, results.estimators))
            ax.set_yticks(range(len(names)), names)
            ax.set_ylim(len(names) - 0.4, -0.6)
            ax.set_title("mean of all tasks" if task == "overall" else task)
            ax.grid(axis="y", visible=False)
            ax.locator_params(axis="x", nbins=4)
            ax.tick_params(axis="y", length=0)
        cols = min(4, len(axes))
        for ax in axes[-cols:]:
            ax.set_xlabel("")
        figure.supxlabel(f"{method} minus the other, {metric} [scale 0 to 1]", fontsize=8)
        made.append(
            (
                numbered(f"forest_{_slug(metric)}", page, pages),
                figure,
                f"{metric} after training: {method} minus each other estimator, paired by seed; right of 0, {method} is ahead. "
                f"Filled: the 95% interval leaves out 0. No whisker: too few seeds or no spread. {seeds_of(results)}",
            )
        )
    return made


def _slug(metric):
    return metric.lower().replace("@", "_at_")


def whisker(ax, place, row, key, look, null=0.0):
    low, high = row["low"], row["high"]
    known = not (pd.isna(low) or pd.isna(high))
    if known:
        ax.plot([low, high], [place, place], color=look["color"], linewidth=1.3, zorder=3, solid_capstyle="butt")
    settled = known and (low > null or high < null)
    ax.plot(
        [row[key]],
        [place],
        marker=look["marker"],
        color=look["color"],
        markersize=4.5,
        zorder=4,
        linestyle="none",
        markerfacecolor=look["color"] if settled else "white",
        markeredgewidth=1.0,
    )


def summary(results, scale):
    """Heat map task x estimator: the number is max@K, the colour how far above or below the task's mean it is."""
    tasks = [t for t in results.tasks if t in scale]
    names = list(results.estimators)
    if not tasks:
        return []
    from matplotlib.ticker import MaxNLocator

    made, pages = [], pages_of(tasks, 25)
    for page, rows in enumerate(pages):
        values = np.array([[_level(results.cells[t, e]) for e in names] for t in rows])
        spans = np.array([scale[t][1] - scale[t][0] for t in rows])[:, None]
        with np.errstate(invalid="ignore"):
            counts = np.maximum(np.isfinite(values).sum(1, keepdims=True), 1)
            shade = (values - np.nansum(values, 1, keepdims=True) / counts) / spans
        figure, ax = style.new_figure("full", height=max(2.3, 0.9 + 0.27 * len(rows)))
        limit = max(float(np.nanmax(np.abs(shade))) if np.isfinite(shade).any() else 0.0, 0.01)
        image = ax.imshow(np.ma.masked_invalid(shade), cmap=style.DIVERGING + "_r", vmin=-limit, vmax=limit, aspect="auto")
        ax.set_facecolor("#F2F2F2")
        for i, task in enumerate(rows):
            best = np.nanmax(values[i]) if np.isfinite(values[i]).any() else math.nan
            for j, name in enumerate(names):
                value = values[i, j]
                if math.isfinite(value):
                    dark = np.dot(image.cmap(image.norm(shade[i, j]))[:3], (0.3, 0.59, 0.11)) < 0.5
                    ax.text(
                        j,
                        i,
                        _short(value),
                        ha="center",
                        va="center",
                        fontsize=7.5,
                        color="white" if dark else "black",
                        fontweight="bold" if _short(value) == _short(best) else "normal",
                    )
                else:
                    status = results.cells[task, name].status
                    ax.text(
                        j, i, {"not_applicable": "n/a"}.get(status, status), ha="center", va="center", fontsize=6.5, color="#555555"
                    )
        ax.set_xticks(range(len(names)), names, rotation=25, ha="right", rotation_mode="anchor")
        for tick, name in zip(ax.get_xticklabels(), names, strict=True):
            tick.set_color(style.colours(names)[name])
            tick.set_fontweight("bold")
        ax.set_yticks(range(len(rows)), [f"{t} (K={results.k(t)})" for t in rows])
        ax.tick_params(length=0)
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(image, ax=ax, fraction=0.025, pad=0.015)
        bar.set_label("above the mean [scale 0 to 1]", fontsize=7.5)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(5)
        made.append(
            (
                numbered("summary", page, pages),
                figure,
                "max@K after training, mean over seeds. Bold: highest of the row (not a test: see the differences). Colour: "
                f"above (orange) or below (purple) the mean of the row. Intervals are in the CSV. {seeds_of(results)}",
            )
        )
    return made


def _level(cell):
    values = list(cell.values("max@K").values())
    return float(np.mean(values)) if values else math.nan


def _short(value):
    return f"{value:.3f}" if abs(value) < 9.9995 else f"{value:.1f}" if abs(value) < 999.95 else f"{value:.3g}"


def which_k(answers, results):
    """Mean over tasks of max@k behind the best estimator, against k: the picture of the advice table."""
    answers = [a for a in answers if a.k != "K" and a.best]
    if not answers or not answers[0].gaps:
        return []
    figure, ax = style.new_figure("full", height=2.9)
    ks, ends = [a.k for a in answers], {}
    for name in results.estimators:
        gaps = [
            0.0 if a.best == name else -a.gaps[name].estimate if name in a.gaps and a.gaps[name].estimate is not None else math.nan
            for a in answers
        ]
        if all(math.isnan(g) for g in gaps) or any(name in a.partial for a in answers):
            continue
        ax.plot(ks, gaps, **style.line_style(name, results.estimators))
        ends[name] = next(g for g in reversed(gaps) if not math.isnan(g))
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.minorticks_off()
    ax.set(xlabel="k [samples per prompt]", ylabel="max@k minus the best's\n[scale 0 to 1, mean of tasks]")
    style.label_ends(ax, ends, names=results.estimators)
    return [
        (
            "which_k",
            figure,
            "How far each estimator's max@k is behind the best one's at each k, mean over tasks; the line at 0 is "
            "the best; intervals are in the table. Estimators without results on some task are left out here. "
            + seeds_of(results),
        )
    ]


def wall_clock(table, results):
    """Seconds per seed by phase, stacked, one panel per task."""
    from matplotlib.patches import Patch

    made, pages = [], pages_of(table["task"].drop_duplicates())
    for page, tasks in enumerate(pages):
        names = _present(table[table["task"].isin(tasks)], results.estimators)
        figure, axes = panels(len(tasks), 4, 0.5 + 0.15 * len(names), sharey=True)
        for ax, task in zip(axes, tasks, strict=True):
            rows = table[table["task"] == task].set_index("estimator")
            for place, name in enumerate(names):
                if name not in rows.index:
                    ax.text(0, place, " no run", fontsize=6, color=style.GREY, va="center")
                    continue
                left = 0.0
                for phase, colour in PHASE_COLOURS.items():
                    ax.barh(place, rows.loc[name, phase], left=left, color=colour, height=0.72, linewidth=0)
                    left += rows.loc[name, phase]
            ax.set_yticks(range(len(names)), names)
            ax.set_ylim(len(names) - 0.4, -0.6)
            ax.set_title(task)
            ax.grid(axis="y", visible=False)
            ax.locator_params(axis="x", nbins=4)
            ax.tick_params(axis="y", length=0)
        figure.legend(handles=[Patch(color=c, label=p) for p, c in PHASE_COLOURS.items()], loc="outside upper center", ncols=4)
        figure.supxlabel("training time per seed on one core [s]", fontsize=8)
        made.append(
            (
                numbered("wall_clock", page, pages),
                figure,
                "Wall-clock of training by phase, evaluation and checkpoints off the clock. One run per cell, mean over its seeds, "
                f"no interval: differences of a few per cent between estimators are noise of the machine. {seeds_of(results)}",
            )
        )
    return made
