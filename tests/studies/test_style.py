"""The shared look: colours that stay apart, labels that do not overlap, files that repeat."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from maxpo_bench.settings import params
from maxpo_bench.studies import style

ESTIMATORS = tuple(params.read(Path(__file__).parents[2])["estimators"])
# Full red and green blindness (Machado et al. 2009, severity 1), on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}


def lab(colour, sight):
    """CIE Lab of "#RRGGBB" as seen with the given sight: [3]."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(sight @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_default_estimators_stay_apart_also_when_colour_blind(sight):
    seen = {n: lab(c, SIGHT[sight]) for n, c in style.colours(ESTIMATORS).items()}
    gaps = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(ESTIMATORS, 2)}
    assert min(gaps.values()) > 8, min(gaps, key=gaps.get)
    assert len({style.markers(ESTIMATORS)[n] for n in ESTIMATORS}) == len(ESTIMATORS)


def test_colour_is_fixed_per_estimator():
    alone, together = style.colours(["maxpo"]), style.colours([*ESTIMATORS, "somebodys_new_one"])
    assert alone["maxpo"] == together["maxpo"]
    assert len(set(together.values())) == len(together)
    assert style.colours(["somebodys_new_one"])["somebodys_new_one"] == together["somebodys_new_one"]


def test_saved_figures_repeat_byte_for_byte(tmp_path):
    def draw(stem):
        figure, ax = style.new_figure("half")
        ax.plot([0, 1, 2], [0.1, 0.4, 0.5], **style.line_style("maxpo"))
        style.label_ends(ax, {"maxpo": 0.5, "pkpo": 0.49})
        return style.save(figure, tmp_path / f"{stem}.svg").read_bytes()

    assert draw("one") == draw("two")
    assert b"<dc:date>" not in draw("three")


def test_noise_in_the_last_bit_of_a_coordinate_does_not_show(tmp_path):
    """Neither as a digit nor in the names that matplotlib makes by hashing coordinates."""

    from matplotlib.colors import BoundaryNorm

    def draw(noise):
        figure, (left, right) = style.new_figure("half", 2.0, cols=2)
        x = np.linspace(0.0, 1.0, 50) * (1 + noise)
        left.plot(x, np.sin(7 * x), **style.line_style("maxpo"))
        left.fill_between(x, 0.3 * x, x**2, alpha=0.1)
        right.pcolormesh(np.outer(x[:5], x[:5]), norm=BoundaryNorm([0.001, 0.003], 256, extend="both"))
        right.set_xlim(0, 5 * (1 + noise))
        return style.save(figure, tmp_path / f"{noise}.svg").read_bytes()

    plain = draw(0.0)
    assert plain == draw(1e-14) == draw(-3e-15)
    assert not re.search(rb"\d\.\d{5}", plain) and b"image/png" not in plain


def test_fonts_are_those_that_matplotlib_ships():
    """Text is drawn as outlines of its own DejaVu Sans, whatever the system has installed."""
    import matplotlib
    from matplotlib import font_manager

    style.apply()
    font = font_manager.findfont(matplotlib.rcParams["font.family"][0])
    assert font.startswith(matplotlib.get_data_path()) and matplotlib.rcParams["svg.fonttype"] == "path"


def test_labels_never_overlap():
    rng = np.random.default_rng(0)
    for _ in range(200):
        targets = np.sort(rng.uniform(0, 1, 9) ** 3)
        places = style.spread(list(targets), 0.1)
        assert np.all(np.diff(places) > 0.1 - 1e-9)
        assert places[-1] <= 1.02 + 1e-9


def test_a_crowd_at_the_top_leaves_a_label_at_the_bottom_alone():
    assert style.spread([0.02, *[0.98] * 8], 0.1)[0] == 0.02


def test_unknown_width_is_refused():
    with pytest.raises(ValueError, match="'half', 'full'"):
        style.new_figure("wide")


def test_text_of_every_figure_is_readable_in_a_column_of_a_page():
    """A full-width figure shrunk to one of two columns (3.5 in)."""
    figure, _ = style.new_figure("full")
    from matplotlib import rcParams

    smallest = min(rcParams[k] for k in ("font.size", "xtick.labelsize", "ytick.labelsize", "legend.fontsize", "axes.labelsize"))
    assert smallest * style.WIDTHS["half"] / figure.get_size_inches()[0] > 4.5
