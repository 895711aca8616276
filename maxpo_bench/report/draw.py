"""How the report draws: dots with intervals, lines along training, heat maps; each from a long table, panel by panel."""

from maxpo_bench.studies import style

SHADE = "#EEEAE0"  # the margin within which a difference does not matter
MARKS = "osD^v<>"  # of several policies in one row
WIDE = 8.2  # inches: as wide as the page


def grid(num, cols, height, width="full", **kwargs):
    """A figure with num panels: (figure, [axes]); what is left of the last row is removed, not left empty."""
    cols = min(cols, num)
    rows = -(-num // cols)
    figure, axes = style.new_figure(width, height * rows + 0.3, rows, cols, squeeze=False, **kwargs)
    for ax in axes.flat[num:]:
        ax.remove()
    return figure, list(axes.flat[:num])


def dots(table, names, xlabel, null=0.0, margin=0.0, cols=3, log=False, titles=None, width="full", step=0.17, **kwargs):
    """Dots with 95% intervals: a panel per `panel` (titles: {panel: its title}), a row per `row`, in the order of names.

    table: columns panel, row, estimator (its colour), value, low, high, and `mark` where a row holds several dots.
    null: a value, or {panel: value}: a line there, dots filled whose interval leaves it out. margin: shaded around it.
    """
    titles = titles or {panel: panel for panel in dict.fromkeys(table["panel"])}
    marks = list(dict.fromkeys(table["mark"])) if "mark" in table else [""]
    colours, shapes = style.colours(set(table["estimator"])), style.markers(set(table["estimator"]))
    figure, axes = grid(len(titles), cols, max(1.1, 0.45 + step * len(names)), width, sharey=True, **kwargs)
    for ax, panel in zip(axes, titles, strict=True):
        zero = null.get(panel) if isinstance(null, dict) else null
        if zero is not None:
            ax.axvspan(zero - margin, zero + margin, color=SHADE, zorder=0, linewidth=0)
            ax.axvline(zero, color="#333333", linewidth=0.8, zorder=1)
        for row in table[table["panel"] == panel].astype({"value": float, "low": float, "high": float}).itertuples():
            j, colour = marks.index(getattr(row, "mark", "")), colours[row.estimator]
            place = names.index(row.row) + 0.22 * (j - (len(marks) - 1) / 2)
            ax.plot([row.low, row.high], [place, place], color=colour, linewidth=1.4, zorder=3, solid_capstyle="butt")
            fill = colour if zero is None or row.low > zero or row.high < zero else "white"
            shape = MARKS[j % len(MARKS)] if len(marks) > 1 else shapes[row.estimator]
            ax.plot([row.value], [place], shape, color=colour, markerfacecolor=fill, markersize=4.5, zorder=4)
        if log:
            ax.set_xscale("log")
            style.plain_log_ticks(ax.xaxis, *ax.get_xlim(), most=3)
        else:
            ax.locator_params(axis="x", nbins=3)
        ax.set_title(titles[panel])
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        for tick, name in zip(ax.set_yticks(range(len(names)), names), names, strict=True):
            tick.label1.set_color(colours.get(name, "black"))
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    if len(marks) > 1:
        shown = [axes[0].plot([], [], MARKS[j % len(MARKS)], color="#444444", label=str(m))[0] for j, m in enumerate(marks)]
        figure.legend(handles=shown, loc="outside upper center", ncols=len(marks))
    figure.supxlabel(xlabel, fontsize=8)
    return figure


def pairs(table, results, x, column, labels, method, before=None, log2=True):
    """Two panels for each task: levels of `column` against x (those of `before` dashed), and paired differences to the method.

    Bands of eight lines hide each other, so the interval stands once: that of the last difference, as a bar behind the lines' end.
    """
    tasks, known = list(dict.fromkeys(table["task"])), [e for e in results.estimators if e in set(table["estimator"])]
    figure, axes = grid(2 * len(tasks), 4, 1.45, WIDE)
    for i, ax in enumerate(axes):
        task, shown = tasks[i // 2], column if i % 2 == 0 else f"{column}_gap"
        rows = table[table["task"] == task].dropna(subset=[shown]).sort_values(x, kind="stable")
        last, room, ends = rows[x].max(), 0.02 * (rows[x].max() - rows[x].min()), {}
        for j, (name, line) in enumerate((e, rows[rows["estimator"] == e]) for e in known):
            if not len(line):
                continue
            look = style.line_style(name, results.estimators)
            ax.plot(line[x], line[shown], markevery=max(1, len(line) // 6), **look)
            ends[name] = line[shown].iloc[-1]
            if i % 2 and name != method:
                low, high = line[f"{shown}_low"].iloc[-1], line[f"{shown}_high"].iloc[-1]
                place = last * 1.09 ** (j + 1) if log2 else last + room * (j + 1)
                ax.plot([place, place], [low, high], color=look["color"], linewidth=1.4, solid_capstyle="butt")
        if before is not None and i % 2 == 0:
            start = before[before["task"] == task].groupby(x)[column].first()
            ax.plot(start.index, start, color=style.GREY, linestyle="--", linewidth=1.4, zorder=2)
        if log2:
            ticks = [int(v) for v in sorted(set(rows[x])) if int(v) & (int(v) - 1) == 0]
            ax.set_xscale("log", base=2)
            ax.set_xticks(ticks, [str(v) for v in ticks])
            ax.minorticks_off()
        ax.locator_params(axis="y", nbins=5)
        ax.margins(x=0.01)
        ax.set_title(f"minus {method}" if i % 2 else f"{task} (K={results.setting(task, 'k')})")
        if i % 2:
            style.label_ends(ax, ends, names=results.estimators)
    for supertitle, label in zip((figure.supxlabel, figure.supylabel), labels, strict=True):
        supertitle(label, fontsize=8)
    return figure


def heat(ax, wide, limit):
    """A table as coloured numbers: orange above 0, purple below, deepest at ±limit."""
    import seaborn

    text = wide.map(lambda v: "" if v != v else f"{v:+.3f}" if abs(v) >= 0.0005 else "0")
    seaborn.heatmap(
        wide.astype(float), annot=text, fmt="", cmap=style.DIVERGING + "_r", vmin=-limit, vmax=limit, ax=ax, cbar=False,
        linewidths=0.5, annot_kws={"fontsize": 7},
    )  # fmt: skip
    ax.set_facecolor("#D8D8D8")
    ax.tick_params(length=0, rotation=0)
    ax.grid(False)
