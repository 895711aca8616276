"""Figures of the report: each takes a table and returns [(name, figure, caption)], empty without data."""

import math

import numpy as np

from maxpo_bench.report import load
from maxpo_bench.report.tables import bands
from maxpo_bench.studies import style

PER_FIGURE = 10  # panels or rows of panels; more tasks go on further figures
PHASE_COLOURS = {"sample": "#2F4B7C", "reward": "#8FA9D0", "advantage": "#C1272D", "update": "#A8A8A8"}
LABELS = {"max_at_k": "max@K", "pass_at_1": "pass@1"}
SHADE = "#EEEAE0"  # the margin within which a difference does not matter


def pages_of(tasks, per_figure=PER_FIGURE):
    tasks = list(tasks)
    return [tasks[i : i + per_figure] for i in range(0, len(tasks), per_figure)]


def panels(num, cols, height, **kwargs):
    """A full-width figure with num panels: (figure, [axes]); what is left of the last row is removed, not left empty."""
    cols = min(cols, num)
    rows = -(-num // cols)
    figure, axes = style.new_figure("full", height * rows + 0.3, rows, cols, squeeze=False, **kwargs)
    flat = list(axes.flat)
    for ax in flat[num:]:
        ax.remove()
    return figure, flat[:num]


def numbered(name, page, pages):
    return name if len(pages) == 1 else f"{name}_{page + 1}"


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


def whisker(ax, place, row, look, null=0.0):
    """A dot with its interval; filled when the interval leaves out `null`. row: (value, low, high), NaN for no interval."""
    value, low, high = (math.nan if v is None else float(v) for v in row)
    if math.isfinite(low) and math.isfinite(high):
        ax.plot([low, high], [place, place], color=look["color"], linewidth=1.4, zorder=3, solid_capstyle="butt")
    settled = low > null or high < null
    fill = look["color"] if settled else "white"
    ax.plot([value], [place], look["marker"], color=look["color"], markerfacecolor=fill, markersize=4.5, zorder=4)


def name_rows(ax, names):
    """Rows named from top to bottom, on the first panel; each name in its colour."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    for one in ax.figure.axes:
        one.grid(axis="y", visible=False)
        one.tick_params(axis="y", length=0)
        for tick, name in zip(one.get_yticklabels(), names, strict=False):  # none on inner panels
            tick.set_color(style.colours(names)[name])


def label_grid(axes, cols, xlabel, ylabel):
    """Axis labels where they are needed: y on the first column, x on the last panel of every column."""
    cols = min(cols, len(axes))
    for i, ax in enumerate(axes):
        if i % cols == 0 and ylabel:
            ax.set_ylabel(ylabel)
        if i + cols >= len(axes):
            ax.set_xlabel(xlabel)


# -------------------------------------------------------------------------------------------------------- first screen


def answer(verdicts, results, margin, method=style.REFERENCE):
    """max@K, method - rival: a row per rival, a column per aggregate, the margin shaded."""
    rows = verdicts[(verdicts["measure"] == "max@K") & verdicts["effect"].notna()] if len(verdicts) else verdicts
    if not len(rows):
        return []
    names, groups = list(rows["rival"].drop_duplicates()), [a for a in load.AGGREGATES if a in set(rows["aggregate"])]
    figure, axes = style.new_figure(5.2, 0.95 + 0.19 * len(names), 1, len(groups), sharey=True, sharex=True, squeeze=False)
    for ax, group in zip(axes[0], groups, strict=True):
        ax.axvspan(-margin, margin, color=SHADE, zorder=0, linewidth=0)
        ax.axvline(0, color="#333333", linewidth=0.8, zorder=1)
        for row in rows[rows["aggregate"] == group].itertuples():
            look = style.line_style(row.rival, names)
            whisker(ax, names.index(row.rival), (row.effect, row.low, row.high), look)
        ax.set_title(f"{group} ({len(results.tasks_of(group))})", fontsize=7.5, loc="center")
        ax.locator_params(axis="x", nbins=4)
    name_rows(axes[0][0], names)
    figure.supxlabel(f"max@K of {method} minus the rival's  (right: {method} better)", fontsize=8)
    caption = (
        f"Dots: max@K after training, {method} minus each rival, paired by seed, mean of the tasks (their number in brackets), "
        f"scale 0 to 1; bars are 95% intervals, filled dots leave out 0, the shaded margin of ±{margin:g} is what does not "
        f"matter; {_seeds(results)}."
    )
    return [("answer", figure, caption)]


def collapse(table, results):
    """Entropy, distinct answers and max@k far above K after training against before: a row per estimator, a panel each."""
    rows = table[table["task"] == "mean of tasks"].dropna(subset=["value"])
    measures = list(rows["measure"].drop_duplicates())
    if not measures:
        return []
    names = [e for e in results.estimators if e in set(rows["estimator"])]
    most = rows.groupby("measure")["num_tasks"].max()
    figure, axes = style.new_figure("full", 0.95 + 0.19 * len(names), 1, len(measures), sharey=True, squeeze=False)
    for ax, measure in zip(axes[0], measures, strict=True):
        unchanged = 0.0 if measure.startswith("max") else 1.0
        ax.axvline(unchanged, color="#333333", linewidth=0.8, linestyle="--", zorder=1)
        for row in rows[rows["measure"] == measure].itertuples():
            if row.num_tasks == most[measure]:  # a mean of fewer tasks is another mean
                whisker(
                    ax,
                    names.index(row.estimator),
                    (row.value, row.low, row.high),
                    style.line_style(row.estimator, names),
                    unchanged,
                )
        ax.set_title(f"{measure} ({most[measure]})", fontsize=8)
        ax.set_xlabel("after minus before" if measure.startswith("max") else "after / before")
        ax.locator_params(axis="x", nbins=4)
    name_rows(axes[0][0], names)
    caption = (
        "What training does to the variety of the policy, mean of the tasks that measure it (their number in brackets) with "
        "95% intervals; dashed: as before training. Entropy of a token or an action; distinct answers among the samples of a "
        "prompt; max@k for the largest k drawn, at least 4 K: left of 0 training has lost answers that the untrained policy "
        f"finds in k samples. Estimators that do not run on all of these tasks have no dot. {seeds_of(results)}"
    )
    return [("collapse", figure, caption)]


# -------------------------------------------------------------------------------------------------------- task by task


def single_tasks(table, results, measure, margin, method=style.REFERENCE):
    """Paired differences method - rival on single tasks, a panel each."""
    table = table[(table["measure"] == measure) & table["effect"].notna()] if len(table) else table
    if not len(table):
        return []
    names = [e for e in results.estimators if e in set(table["rival"])]
    made, pages = [], pages_of([t for t in results.tasks if t in set(table["task"])], 12)
    for page, tasks in enumerate(pages):
        figure, axes = panels(len(tasks), 4, 0.5 + 0.16 * len(names), sharey=True)
        for ax, task in zip(axes, tasks, strict=True):
            ax.axvspan(-margin, margin, color=SHADE, zorder=0, linewidth=0)
            ax.axvline(0, color="#333333", linewidth=0.8, zorder=1)
            for row in table[table["task"] == task].itertuples():
                if row.rival in names:
                    whisker(ax, names.index(row.rival), (row.effect, row.low, row.high), style.line_style(row.rival, names))
            ax.set_title(task)
            ax.locator_params(axis="x", nbins=4)
        name_rows(axes[0], names)
        figure.supxlabel(f"{measure} of {method} minus the rival's [scale 0 to 1]", fontsize=8)
        slug = measure.lower().replace("@", "_at_")
        caption = (
            f"{measure} after training on single tasks, {method} minus each rival, paired by seed; right of 0 {method} is ahead. "
        )
        caption += f"Filled: the 95% interval leaves out 0; shaded: ±{margin:g}; no dot: no results. {seeds_of(results)}"
        made.append((numbered(f"tasks_{slug}", page, pages), figure, caption))
    return made


def levels_and_gaps(pair, rows, results, x, column, method):
    """On the first of two panels the level of every estimator against column x of rows, on the second its paired difference to the
    method.

    The bands of levels lie over each other and say little of two estimators on the same seeds; those of the differences do.
    """
    for ax, shown in zip(pair, (column, f"{column}_gap"), strict=True):
        ends = {}
        for name in [e for e in results.estimators if e in set(rows["estimator"])]:
            line = rows[rows["estimator"] == name].dropna(subset=[shown]).sort_values(x, kind="stable")
            if not len(line) or (name == method and shown != column):
                continue
            look = style.line_style(name, results.estimators)
            ax.plot(line[x], line[shown], markevery=max(1, len(line) // 6), **look)
            if shown != column:
                low, high = (line[f"{shown}_{end}"].astype(float) for end in ("low", "high"))
                ax.fill_between(line[x], low, high, color=look["color"], alpha=0.13, linewidth=0)
            ends[name] = line[shown].iloc[-1]
        if shown != column:
            ax.axhline(0, color=style.colours([method])[method], linewidth=1.6, zorder=2)
            ax.set_title(f"minus {method}")
        ax.margins(x=0.01)
        yield ax, ends


def learning_curves(table, results, metric, method=style.REFERENCE):
    """Along training, two panels for each task: levels, and paired differences to the method."""
    made, pages = [], pages_of(table["task"].drop_duplicates(), 5)
    for page, tasks in enumerate(pages):
        figure, axes = panels(2 * len(tasks), 2, 1.6)
        for pair, task in zip(zip(axes[::2], axes[1::2], strict=True), tasks, strict=True):
            rows = table[table["task"] == task]
            for ax, ends in levels_and_gaps(pair, rows.assign(samples=rows["samples"] / 1000), results, "samples", metric, method):
                style.label_ends(ax, ends, names=results.estimators)
            pair[0].set_title(f"{task} (K={results.setting(task, 'k')})")
            pair[0].set_ylabel(LABELS[metric])
        label_grid(axes, 2, "samples drawn [thousand]", "")
        caption = (
            f"{LABELS[metric]} on held-out prompts or start states along training, mean over seeds. Left: levels. Right: paired "
            f"difference to {method} on the same seed, with its 95% interval; above the line the rival is ahead. "
            f"{seeds_of(results)}"
        )
        made.append((numbered(f"curves_{metric}", page, pages), figure, caption))
    return made


def ladder(table, results, method=style.REFERENCE):
    """max@k against k after training, two panels for each task: levels, with those before training dashed, and paired
    differences."""
    made, pages = [], pages_of(table["task"].drop_duplicates(), 5)
    for page, tasks in enumerate(pages):
        figure, axes = panels(2 * len(tasks), 2, 1.6)
        for pair, task in zip(zip(axes[::2], axes[1::2], strict=True), tasks, strict=True):
            rows = table[table["task"] == task]
            before = rows[rows["when"] == "before"].groupby("k")["max_at_k"].first()
            after, k = rows[rows["when"] == "after"], sorted(int(k) for k in rows["k"].unique())
            for ax, ends in levels_and_gaps(pair, after, results, "k", "max_at_k", method):
                if ax is pair[0] and len(before):
                    ax.plot(before.index, before.to_numpy(), color=style.GREY, linestyle="--", linewidth=1.4, zorder=2)
                    ends["before"] = before.iloc[-1]
                ax.set_xscale("log", base=2)
                ax.set_xticks([i for i in k if i & (i - 1) == 0], [str(i) for i in k if i & (i - 1) == 0])
                ax.minorticks_off()
                style.label_ends(ax, ends, names=results.estimators)
            pair[0].set_title(f"{task} (K={results.setting(task, 'k')})")
            pair[0].set_ylabel("max@k")
        label_grid(axes, 2, "k [samples per prompt]", "")
        caption = (
            "max@k on held-out prompts or start states against k, after training for K, mean over seeds. Left: levels; dashed: "
            f"before training. Right: paired difference to {method} on the same seed, with its 95% interval. "
            f"{seeds_of(results)}"
        )
        made.append((numbered("ladder", page, pages), figure, caption))
    return made


# ------------------------------------------------------------------------------------------------------ rates and time


def wall_clock(table, results):
    """Seconds per seed by phase, stacked, one panel per task."""
    from matplotlib.patches import Patch

    made, pages = [], pages_of(table["task"].drop_duplicates(), 12)
    for page, tasks in enumerate(pages):
        names = [e for e in results.estimators if e in set(table.loc[table["task"].isin(tasks), "estimator"])]
        figure, axes = panels(len(tasks), 4, 0.5 + 0.15 * len(names), sharey=True)
        for ax, task in zip(axes, tasks, strict=True):
            rows = table[table["task"] == task].set_index("estimator")[list(PHASE_COLOURS)].reindex(names).fillna(0.0)
            left = np.zeros(len(names))
            for phase, colour in PHASE_COLOURS.items():
                ax.barh(range(len(names)), rows[phase], left=left, color=colour, height=0.72, linewidth=0)
                left = left + rows[phase].to_numpy()
            ax.set_title(task)
            ax.locator_params(axis="x", nbins=4)
        name_rows(axes[0], names)
        figure.supxlabel("training time [seconds per seed]", fontsize=8)
        patches = [Patch(color=c, label=p) for p, c in PHASE_COLOURS.items()]
        figure.legend(handles=patches, loc="outside upper center", ncols=len(patches))
        caption = (
            "Training time of a seed by phase, as each cell recorded it; evaluation is off the clock. Cells ran hours apart, maybe "
        )
        caption += "on several machines: for comparisons see the table above."
        made.append((numbered("wall_clock", page, pages), figure, caption))
    return made


def learning_rate(table, results):
    """Final max@K against the learning rate with its 95% interval over tuning seeds, one panel per task."""
    if table is None:
        return []
    made, pages = [], pages_of(table["task"].drop_duplicates())
    for page, tasks in enumerate(pages):
        figure, axes = panels(len(tasks), 2, 1.75)
        for ax, task in zip(axes, tasks, strict=True):
            ends = {}
            for name, rows in table[table["task"] == task].groupby("estimator", sort=False):
                mean, low, high = bands(rows.groupby("lr")["max_at_k"])
                look = style.line_style(name, results.estimators)
                ax.plot(mean.index, mean, **look)
                ax.vlines(mean.index, low, high, color=look["color"], linewidth=0.7, zorder=2)
                ends[name] = mean.iloc[-1]
            ax.set_xscale("log")
            style.plain_log_ticks(ax.xaxis, *ax.get_xlim(), most=4)
            ax.set_title(task)
            style.label_ends(ax, ends, names=results.estimators)
        label_grid(axes, 2, "learning rate", "max@K")
        caption = "max@K after training against the learning rate, mean over tuning seeds with 95% intervals."
        made.append((numbered("learning_rate", page, pages), figure, caption))
    return made
