"""How the report draws: dots with intervals, lines along training, heat maps; each from a long table, panel by panel."""

import math

from maxpo_bench.studies import style

SHADE = "#EEEAE0"  # the margin within which a difference does not matter
MARKS = "osD^v<>"  # of several policies in one row


def pages(stem, items, most):
    """(file name, items) of every figure that the different `items` fill, at most `most` on each."""
    items = list(dict.fromkeys(items))
    for start in range(0, len(items), most):
        yield stem if len(items) <= most else f"{stem}_{start // most + 1}", items[start : start + most]


def grid(num, cols, height, width="full", **kwargs):
    """A figure with num panels: (figure, [axes]); what is left of the last row is removed, not left empty."""
    cols = min(cols, num)
    rows = -(-num // cols)
    figure, axes = style.new_figure(width, height * rows + 0.3, rows, cols, squeeze=False, **kwargs)
    for ax in axes.flat[num:]:
        ax.remove()
    return figure, list(axes.flat[:num])


def whisker(ax, place, row, look, null):
    """A dot with its interval; filled when the interval leaves out `null`. row: (value, low, high), NaN for no interval."""
    value, low, high = (math.nan if v is None else float(v) for v in row)
    if math.isfinite(low) and math.isfinite(high):
        ax.plot([low, high], [place, place], color=look["color"], linewidth=1.4, zorder=3, solid_capstyle="butt")
    fill = look["color"] if null is None or low > null or high < null else "white"
    ax.plot([value], [place], look["marker"], color=look["color"], markerfacecolor=fill, markersize=4.5, zorder=4)


def dots(table, names, xlabel, null=0.0, margin=0.0, cols=3, log=False, titles=None, width="full", step=0.17, **kwargs):
    """Dots with 95% intervals: a panel per `panel`, a row per `row`. table: columns panel, row, estimator (its colour), value, low,
    high, and `mark` where a row holds several dots.

    null: a value, or {panel: value}: a line there, dots filled whose interval leaves it out. margin: shaded around it.
    """
    panels = list(titles or dict.fromkeys(table["panel"]))
    marks = list(dict.fromkeys(table["mark"])) if "mark" in table else [None]
    figure, axes = grid(len(panels), cols, max(1.1, 0.45 + step * len(names)), width, sharey=True, **kwargs)
    for ax, panel in zip(axes, panels, strict=True):
        zero = null.get(panel) if isinstance(null, dict) else null
        if margin:
            ax.axvspan(zero - margin, zero + margin, color=SHADE, zorder=0, linewidth=0)
        if zero is not None:
            ax.axvline(zero, color="#333333", linewidth=0.8, zorder=1)
        for row in table[table["panel"] == panel].itertuples():
            look, j = style.line_style(row.estimator, table["estimator"]), marks.index(getattr(row, "mark", None))
            look |= {"marker": MARKS[j % len(MARKS)]} if len(marks) > 1 else {}
            place = names.index(row.row) + 0.22 * (j - (len(marks) - 1) / 2)
            whisker(ax, place, (row.value, row.low, row.high), look, zero)
        if log:
            ax.set_xscale("log")
            style.plain_log_ticks(ax.xaxis, *ax.get_xlim(), most=3)
        else:
            ax.locator_params(axis="x", nbins=3)
        ax.set_title((titles or {}).get(panel, panel))
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    known = set(table["estimator"])
    for ax in axes:
        for tick, name in zip(ax.get_yticklabels(), names, strict=False):  # none on inner panels
            tick.set_color(style.colours(known)[name] if name in known else "black")
    if len(marks) > 1:
        shown = [axes[0].plot([], [], MARKS[j % len(MARKS)], color="#444444", label=str(m))[0] for j, m in enumerate(marks)]
        figure.legend(handles=shown, loc="outside upper center", ncols=len(marks))
    if xlabel:
        figure.supxlabel(xlabel, fontsize=8)
    return figure


def label_grid(axes, cols, xlabel, ylabel=""):
    """Axis labels where they are needed: y on the first column, x on the last panel of every column."""
    for i, ax in enumerate(axes):
        ax.set_ylabel(ylabel if i % min(cols, len(axes)) == 0 else "")
        ax.set_xlabel(xlabel if i + min(cols, len(axes)) >= len(axes) else "")


def log2_ticks(ax, values):
    """A log axis with the powers of 2 among values as its ticks."""
    ticks = [int(v) for v in sorted(set(values)) if int(v) & (int(v) - 1) == 0]
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [str(v) for v in ticks])
    ax.minorticks_off()


def with_intervals(ax, table, x, column, names):
    """A column with its 95% intervals against x, a line per estimator: {estimator: its last value}."""
    ends = {}
    for name, rows in table.groupby("estimator", sort=False):
        look = style.line_style(name, names)
        ax.plot(rows[x], rows[column], **look)
        ax.vlines(rows[x], rows["low"], rows["high"], color=look["color"], linewidth=0.7, zorder=2)
        ends[name] = rows[column].iloc[-1]
    return ends


def levels_and_gaps(pair, rows, names, x, column, method):
    """On the first of two panels the level of every estimator against column x of rows, on the second its paired difference to the
    method: bands of levels lie over each other and say little of two estimators on the same seeds, those of differences do."""
    for ax, shown in zip(pair, (column, f"{column}_gap"), strict=True):
        ends = {}
        for name in [e for e in names if e in set(rows["estimator"])]:
            line = rows[rows["estimator"] == name].dropna(subset=[shown]).sort_values(x, kind="stable")
            if not len(line) or (name == method and shown != column):
                continue
            look = style.line_style(name, names)
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


def heat(ax, wide, limit, digits=3):
    """A table as coloured numbers: orange above 0, purple below, deepest at ±limit."""
    import seaborn

    text = wide.map(lambda v: "" if v != v else f"{v:+.{digits}f}" if abs(v) >= 0.5 * 10**-digits else "0")
    seaborn.heatmap(
        wide.astype(float), annot=text, fmt="", cmap=style.DIVERGING + "_r", vmin=-limit, vmax=limit, ax=ax, cbar=False,
        linewidths=0.5, annot_kws={"fontsize": 7},
    )  # fmt: skip
    ax.set_facecolor("#D8D8D8")
    ax.tick_params(length=0, rotation=0)
    ax.grid(False)
