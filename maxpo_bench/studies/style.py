"""One look for every figure: fixed colour and marker per estimator, colour-blind safe, SVG whose bytes repeat on any processor."""

import hashlib
import io
import math
import re
from pathlib import Path

WIDTHS = {"half": 3.5, "full": 5.6}  # inches; printed in one of two columns (3.5 in) 8 pt text of "full" is still 5 pt
REFERENCE = "maxpo"  # the method under test: drawn last and heaviest

# Okabe-Ito and Tol "muted", picked so that neighbours stay apart under red-green blindness (tested).
_FIXED = {
    "maxpo": ("#D55E00", "o"),
    "pkpo": ("#0072B2", "s"),
    "rloo": ("#56B4E9", "^"),
    "grpo": ("#009E73", "D"),
    "bon_mean": ("#882255", "v"),
    "passk_training": ("#CC79A7", "P"),
    "tailrl": ("#332288", "X"),
    "rs_grpo": ("#999933", "<"),
    "fitted_blend": ("#E6AB02", ">"),
    "reinforce": ("#7F7F7F", "p"),
    "dr_grpo": ("#44AA99", "d"),
    "pkpo_raw": ("#88CCEE", "h"),
    "pkpo_loo": ("#6699CC", "8"),
    "pkpo_centred": ("#661100", "H"),
    "best_gap": ("#117733", "*"),
    "maxrl": ("#AA4499", "p"),
    "passk_reweighted": ("#DDCC77", "d"),
    "baseline_blend": ("#B15928", "h"),
}
_SPARE = ["#1B9E77", "#7570B3", "#E7298A", "#66A61E", "#A6761D", "#4D4D4D", "#1F78B4", "#FB9A99", "#6A3D9A", "#B2DF8A"]
_SPARE_MARKERS = "osD^v<>PX*"

SEQUENCE = "viridis"  # for ordered quantities (k, group size)
DIVERGING = "PuOr"  # for differences around 0; safe under red-green blindness
GREY = "#6B6B6B"


def _spare(names):
    """Place of each name outside the fixed table in the spare list: by a hash of the name, next free place on a clash."""
    taken, places = set(), {}
    for name in sorted(set(names) - set(_FIXED)):
        place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(_SPARE)
        for _ in _SPARE:
            if place not in taken:
                break
            place = (place + 1) % len(_SPARE)
        taken.add(place)
        places[name] = place
    return places


def colours(names):
    """Colour of every name as {name: "#RRGGBB"}: the same in each figure; a new estimator gets one from its name."""
    names, places = list(names), _spare(names)
    return {n: _FIXED[n][0] if n in _FIXED else _SPARE[places[n]] for n in names}


def markers(names):
    """Marker of every name, as {name: matplotlib marker}, so that colour is never the only cue."""
    names, places = list(names), _spare(names)
    return {n: _FIXED[n][1] if n in _FIXED else _SPARE_MARKERS[places[n]] for n in names}


def apply():
    """Set the shared look on matplotlib's rcParams; every call gives the same state."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager

    shipped = str(Path(matplotlib.get_data_path()))  # never a font of the system's with the same name
    font_manager.fontManager.ttflist = [f for f in font_manager.fontManager.ttflist if f.fname.startswith(shipped)]
    matplotlib.rcParams.update(
        matplotlib.rcParamsDefault
        | {
            "backend": "Agg",
            "font.family": ["DejaVu Sans"],
            "font.size": 8,
            "axes.labelsize": 8,
            "axes.titlesize": 8.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "xtick.labelsize": 7.5,
            "ytick.labelsize": 7.5,
            "legend.fontsize": 7.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.linewidth": 0.7,
            "axes.formatter.useoffset": False,
            "grid.color": "#E6E6E6",
            "grid.linewidth": 0.6,
            "xtick.major.width": 0.7,
            "ytick.major.width": 0.7,
            "xtick.minor.size": 1.5,
            "ytick.minor.size": 1.5,
            "lines.linewidth": 1.3,
            "lines.markersize": 3.5,
            "figure.dpi": 72,
            "svg.hashsalt": "maxpo_bench",
            "svg.fonttype": "path",
        }
    )


def new_figure(width="full", height=None, rows=1, cols=1, **kwargs):
    """A figure of the shared look and its axes, like plt.subplots: (figure, axes).

    width: "half" (3.5 in), "full" (5.6 in) or a number of inches; height in inches, by default from the panels.
    Further keywords go to Figure.subplots (sharex, sharey, squeeze, gridspec_kw...). Raises ValueError for another width.
    """
    if isinstance(width, str) and width not in WIDTHS:
        raise ValueError(f"figure width {width!r}: use 'half', 'full' or a number of inches")
    apply()
    from matplotlib.figure import Figure

    inches = WIDTHS[width] if isinstance(width, str) else float(width)
    height = height or min(12.0, 0.68 * inches / cols * rows + 0.3)
    figure = Figure(figsize=(inches, height), layout="constrained")  # no pyplot: nothing to close, no global state
    return figure, figure.subplots(rows, cols, **kwargs)


def save(figure, path):
    """Write the figure as an SVG with the same bytes on every run and every processor; returns the path.

    Coordinates are rounded to a hundredth of a point and names of parts, which matplotlib makes by hashing unrounded
    coordinates, are counted instead: noise in the last bit of a number cannot show.
    """
    from maxpo_bench.machine import files

    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    names, svg = {}, out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"""(id="|"#|url\(#)([a-z]?[0-9a-f]{10})\b""", lambda m: m[1] + names.setdefault(m[2], f"n{len(names)}"), svg)
    svg = re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda m: _rounded(float(m[0])), svg)
    files.write_bytes(path, svg.encode())
    return path


def _rounded(value):
    """The shift keeps the borders of rounding off the half hundredths that a layout is full of."""
    text = f"{value + 0.00137:.2f}" if abs(value) >= 1 else f"{value + 0.0000137:.4f}"  # below 1: a scale or an opacity
    return text.rstrip("0").rstrip(".") if float(text) else "0"


def line_style(name, names=()):
    """Keywords for a line of this estimator: colour, marker, weight and drawing order (maxpo heaviest and on top).

    names: every name in the figure, so that two estimators outside the fixed table never share a colour.
    """
    names = list(names) if name in names else [*names, name]
    first = name == REFERENCE
    return {
        "color": colours(names)[name],
        "marker": markers(names)[name],
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
        "linewidth": 2.2 if first else 1.2,
        "zorder": 5 if first else 3,
    }


def label_ends(ax, ends, x=None, size=7.5, gap=1.15, names=()):
    """Name each line beside its last point, pushed apart so that no two names overlap, in place of a legend.

    ends: {name: y of the last point, in data units}; x: data x of the last points (default: right end of the axis).
    Call it after the limits of ax are final. gap is the least distance between two names, in line heights.
    """
    ends = {n: y for n, y in ends.items() if y == y}
    if not ends:
        return
    figure, palette = ax.figure, {"before": GREY, **colours(list(names) or list(ends))}
    panel = ax.get_position().height * figure.get_size_inches()[1] * 72  # points; close enough before the layout runs
    panel = max(panel * 0.95, 40)
    to_axis, from_axis = ax.transData + ax.transAxes.inverted(), size * gap / panel
    order = sorted(ends, key=lambda n: (ends[n], n))
    targets = [to_axis.transform((ax.get_xlim()[1], ends[n]))[1] for n in order]
    places = spread([min(max(t, 0.0), 1.0) for t in targets], from_axis)
    right = 1.0 if x is None else to_axis.transform((x, 0))[0]
    for name, target, place in zip(order, targets, places, strict=True):
        ax.plot(
            [right + 0.005, right + 0.045],
            [target, place],
            transform=ax.transAxes,
            color=palette[name],
            linewidth=0.5,
            clip_on=False,
            scalex=False,
            scaley=False,
        )
        ax.text(
            right + 0.055,
            place,
            name,
            transform=ax.transAxes,
            fontsize=size,
            color=palette[name],
            va="center",
            fontweight="bold" if name == REFERENCE else "normal",
        )


def spread(targets, gap):
    """Places at least gap apart, in the order of the sorted targets and as near to them as can be (pooled blocks)."""
    blocks = []  # [mean of (target - offset), count]
    for i, target in enumerate(targets):
        blocks.append([target - i * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2], blocks.pop()
            blocks[-1] = [(a * m + b * n) / (m + n), m + n]
    flat = [b for b, n in blocks for _ in range(n)]
    places = [b + i * gap for i, b in enumerate(flat)]
    top = 1.02  # what is above it moves down, and only what is then in the way moves with it
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top)
        top = places[i] - gap
    return places


def plain_log_ticks(axis, low, high, most=6):
    """Two to `most` plain numbers on a log axis, also when it spans less than a decade."""
    from matplotlib.ticker import FixedLocator, NullLocator

    coarse = (1,), (1, 3), (1, 2, 5), (1, 1.2, 1.5, 2, 3, 5, 7)
    fine = [x / 10 for x in range(10, 100, 5)], [x / 100 for x in range(100, 1000, 5)]
    inside = []
    for leads in (*coarse, *fine):
        denser = [
            m * 10.0**e
            for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for m in leads
            if low <= m * 10.0**e <= high
        ]
        if len(denser) > most and len(inside) >= 2:
            break
        inside = denser
        if len(inside) >= 3:
            break
    inside = inside[:: -(-len(inside) // most)] if inside else [low, high]
    axis.set_major_locator(FixedLocator(inside))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda x, _: f"{x:.0f}" if x >= 1000 else f"{x:.3g}")
