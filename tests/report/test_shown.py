"""What the report shows, from made-up results: everything promised, self-contained, every number where it belongs."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
import yaml
from pages import ESTIMATORS, EVIL, TASKS, Page, outputs

from maxpo_bench.measure import statistics
from maxpo_bench.report import build, load, page, tables, words


def test_everything_promised_is_written(built):
    names = set(outputs(built))
    for stem in (
        "answer",
        "regime_map",
        "collapse",
        "tasks_max_at_k",
        "tasks_pass_at_1",
        "curves_max_at_k",
        "curves_pass_at_1",
        "ladder",
        "snr",
        "variance_ratio",
        "study_cost",
    ):
        assert f"results/figures/{stem}.svg" in names, stem
    for table in (
        "claims",
        "claims_by_task",
        "collapse",
        "overall",
        "cells",
        "curves",
        "curves_by_task",
        "ladder",
        "exact",
        "variance",
        "wall_clock",
    ):
        assert f"results/tables/{table}.csv" in names, table
    assert "results/tables/max_at_k.tex" in names and not any(name.endswith(".png") for name in names)


def test_page_is_self_contained_and_safe(built):
    text = (built / "results" / "report.html").read_text()
    assert len(text) < 8_000_000
    parsed = Page(text)
    for tag, attributes in parsed.tags:
        for key in ("src", "href", "srcset", "action"):
            value = attributes.get(key) or ""
            assert not re.match(r"(https?:)?//", value) and not value.startswith("javascript:"), (tag, value)
            if tag == "a" and value and not value.startswith("#"):
                assert (built / "results" / value).is_file(), value
        assert tag not in ("link", "iframe", "object", "base")
        assert not any(key.startswith("on") for key in attributes)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 1
    assert "@import" not in text and "url(" not in text
    assert EVIL in "".join(parsed.words)  # shown as text, nowhere as markup
    anchors = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    assert {a["href"][1:] for t, a in parsed.tags if t == "a" and a["href"].startswith("#")} <= anchors


def test_markdown_shows_figures_and_escapes(built):
    text = (built / "results" / "report.md").read_text()
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (built / "results" / path).is_file(), path
    assert "<script>" not in text and "&lt;script&gt;" in text
    widths = {}
    for line in text.splitlines():  # every row of a table has as many cells as its head
        if line.startswith("|"):
            widths.setdefault("now", line.replace("\\|", "").count("|"))
            assert line.replace("\\|", "").count("|") == widths["now"], line
        else:
            widths.clear()


def test_first_screen_answers(built):
    """Sentences, the figure and the verdicts stand before anything else; every name in it says what it is."""
    text = (built / "results" / "report.html").read_text()
    first = text[: text.index('<section id="collapse"')]
    parsed = Page(first)
    assert first.index('class="answer"') < first.index("<figure>") < first.index("<table")
    assert sum(tag == "img" for tag, _ in parsed.tags) == 2
    seen = " ".join(parsed.words)
    for name in ESTIMATORS:
        assert words.about(name) and words.about(name) in seen, name
    for needed in (
        "max@k is the expected best reward of k samples",
        "the method under test",
        "better, ✗ worse, = equivalent",
        "undecided",
        "by exact enumeration",
    ):
        assert needed in seen, needed
    claims = pd.DataFrame(json.loads((built / "results" / "claims.json").read_text()))
    assert set(claims["verdict"]) <= set(statistics.VERDICTS) and "time" not in set(claims["measure"])


def test_metrics_are_a_handful_of_finite_numbers(built):
    metrics = json.loads((built / "results" / "metrics.json").read_text())
    assert set(metrics) == {"cells", "max@K", "lead", "pass@1", "variance", "supported", "contradicted"}
    assert all(isinstance(v, int | float) and math.isfinite(v) for v in metrics.values())
    # `dvc exp show` pads every column by 3: beside a name of 28 ("├── 1a2b3c4 [topaz-yoga]") and a date of 12 it fits 120.
    shown = sum(max(len(key), len(str(value))) + 3 for key, value in metrics.items())
    assert shown + 28 + 12 <= 120
    overall = pd.read_csv(built / "results" / "tables" / "overall.csv").set_index("estimator")
    assert metrics["max@K"] == pytest.approx(overall.loc["maxpo", "mean"], abs=1e-4)


def test_sampled_against_exact_counts_misses_before_and_after_holm(tmp_path):
    root = synthetic.write(tmp_path, ("maze", "bandit"), ("pkpo", "maxpo"), studies=False)
    for task, estimator, bias in (("maze", "pkpo", 0.0), ("maze", "maxpo", 9.0), ("bandit", "maxpo", 0.8)):

        def enumerate_it(metrics, bias=bias):
            noise = np.random.default_rng(3).normal(size=10)
            values = np.array(metrics["final"]["max@K"])
            metrics["exact"] = {"max@K": (values - bias - (noise - noise.mean()) / noise.std()).tolist()}

        synthetic.edit(root, task, estimator, enumerate_it)
    table = tables.exact(load.read(root)).set_index(["task", "estimator"])
    assert table["outside"].to_dict() == {("maze", "pkpo"): False, ("maze", "maxpo"): True, ("bandit", "maxpo"): True}
    said = page.exact_said(table.reset_index())["paragraphs"][0]
    assert "max@K of 3 cells" in said and "at 95% in 2 of them" in said and said.endswith("over the cells in 1.")
    assert page.exact_said(tables.exact(load.read(synthetic.write(tmp_path / "b", ("maze",), ("maxpo",))))) is None


def test_first_tables_are_cards_on_a_narrow_screen(built):
    parsed = Page((built / "results" / "report.html").read_text())
    assert sum(tag == "table" and a.get("class") == "cards" for tag, a in parsed.tags) >= 1
    labels = {a["data-label"] for tag, a in parsed.tags if tag == "td" and "data-label" in a}
    assert {"rival", "what it is", "max@K: all", "pass@1: all", "gradient variance: all"} <= labels


def test_policies_of_several_seeds_are_averaged(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    once = tables.variance(load.read(root))
    synthetic.edit_table(root, "variance/maze.csv", lambda t: pd.concat([t.assign(seed=0), t.assign(seed=1)]))
    twice = tables.variance(load.read(root))
    assert len(once) == len(twice) and (twice["num_policies"] == 2).all()
    width = [(t["ratio_high"] - t["ratio_low"]).dropna() for t in (once, twice)]
    assert np.allclose(width[0] / width[1], 2**0.5)


def test_collapse_is_measured_against_the_start(tmp_path):
    """Entropy and distinct answers after / before, max@k far above K after - before; each with the mean of the tasks."""
    root = synthetic.write(tmp_path, ("maze", "bandit"), ("pkpo", "maxpo"), studies=False)
    for task in ("maze", "bandit"):
        halve = lambda t: t.assign(entropy=np.where(t["step"] == 0, 2.0, 1.0))  # noqa: E731
        synthetic.edit_table(root, f"runs/{task}/pkpo/curve.csv.gz", halve)
        lose = lambda t: t.assign(max=np.where(t["step"] == 0, 0.8, 0.5) + 0.001 * t["seed"])  # noqa: E731
        synthetic.edit_table(root, f"runs/{task}/pkpo/ladder.csv.gz", lose)
    results = load.read(root)
    found = tables.collapse(results, load.scales(results)).set_index(["measure", "estimator", "task"])["value"]
    assert found["entropy", "pkpo", "mean of tasks"] == pytest.approx(0.5)
    assert found["max@k far above K", "pkpo", "maze"] == pytest.approx(-0.3)
    assert found["distinct answers", "maxpo", "bandit"] < 1


def test_curves_carry_the_paired_difference_to_the_method(tmp_path):
    """The noise that a seed shares is gone from it: its band is narrower than that of the level."""
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    table = tables.curves(load.read(root)).set_index(["estimator", "step"])
    last = table.loc[("pkpo", 64)]
    assert last["max_at_k_gap"] == pytest.approx(last["max_at_k"] - table.loc[("maxpo", 64), "max_at_k"])
    assert table["max_at_k_gap"].loc["maxpo"].eq(0).all()
    assert last["max_at_k_gap_high"] - last["max_at_k_gap_low"] < last["max_at_k_high"] - last["max_at_k_low"]


def test_curves_for_dvc_plots_have_every_estimator(built):
    """dvc.yaml draws the columns ${estimators}; a column that is not there would empty the plot."""
    plots = yaml.safe_load((synthetic.ROOT / "dvc.yaml").read_text())["plots"]
    for plot in (next(iter(entry.values())) for entry in plots):
        text = (synthetic.ROOT / plot["template"]).read_text()
        json.loads(text)
        (path,) = plot["y"]
        columns = list(pd.read_csv(built / path))
        assert plot["x"] in columns and set(re.findall(r"datum\['([a-z ]+)'\]", text)) <= set(columns)
    table = pd.read_csv(built / "results" / "tables" / "curves.csv")
    assert list(table) == ["share_of_training", *ESTIMATORS]
    complete = synthetic.write(built.parent / "complete", TASKS[1:], ESTIMATORS)
    results = load.read(complete)
    table = tables.wide_curves(tables.curves(results), results, load.scales(results))
    last = tables.cells(results).query("task == 'frozenlake' and estimator == 'maxpo'")  # passk_training has no maze
    assert table.iloc[-1]["maxpo"] == pytest.approx(last["max@K"].item(), abs=1e-9)


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.12345, "0.123"),
        (123.456, "123.5"),
        (0.0002, "0.0002"),
        (3e-9, "3e-09"),
        (12345.6, "12346"),
        (7, "7"),
        ("J_K", "J_K"),
        (True, "True"),
    ],
)
def test_numbers(value, text):
    assert page.number(value) == text


def test_latex_compiles_in_shape(built):
    text = Path(built / "results" / "tables" / "max_at_k.tex").read_text()
    assert text.count("{") == text.count("}") and r"passk\_training" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in rows}) == 1


def test_one_sample_and_the_best_of_16_side_by_side(tmp_path):
    """Tasks with 0/1 rewards alone, the base policy first, every number with its interval."""
    root = synthetic.write(tmp_path, ("maze", "cartpole"), ("pkpo", "maxpo"))
    for estimator in ("pkpo", "maxpo"):
        synthetic.edit_table(root, f"runs/maze/{estimator}/ladder.csv.gz", lambda t: t.assign(max=t["pass"]))
        synthetic.edit_table(root, f"runs/cartpole/{estimator}/ladder.csv.gz", lambda t: t.assign(max=2 * t["pass"]))
    assert build(root) == 0
    text = (root / "results" / "report.md").read_text()
    text = text[text.index("## Before and after training") : text.index("## Gradient variance")]
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| maze")]
    assert [row[1] for row in rows] == ["before training", "pkpo", "maxpo"] and "| cartpole" not in text
    raw = pd.read_csv(root / "results" / "runs" / "maze" / "pkpo" / "ladder.csv.gz")
    after = raw[(raw["step"] > 0) & (raw["k"] == 16)]["pass"]
    assert rows[1][3].startswith(f"{after.mean():.3f} ") and "," in rows[1][3]


def test_every_figure_has_its_csv_and_says_how_many_seeds(built):
    """Below each figure a link to the numbers; what is drawn from runs names the seeds behind it."""
    text = (built / "results" / "report.html").read_text()
    figures = re.findall(r"<figure.*?</figure>", text, re.S)
    assert len(figures) >= 8
    for block in figures:
        linked = re.findall(r'href="([^"]+[.]csv)"', block)
        assert linked and all((built / "results" / path).is_file() for path in linked), block[-400:]
    runs = [block for block in figures if "mean over seeds" in block or "paired by seed" in block]
    assert len(runs) >= 5 and all("eeds: " in block or "seeds a task" in block for block in runs)


def test_page_has_contents_settings_and_the_property_table(built):
    text = (built / "results" / "report.html").read_text()
    page = Page(text)
    targets = {attributes.get("href") for tag, attributes in page.tags if tag == "a"}
    ids = {f"#{attributes['id']}" for tag, attributes in page.tags if tag == "section" and "id" in attributes}
    assert "nav" in {tag for tag, _ in page.tags} and len(ids) > 8 and ids <= targets
    words = " ".join(page.words)
    for needed in ("0 to 9", "bias_jk", "begin{tabular}", "provenance.json"):
        assert needed in words, needed


def test_intervals_of_a_probability_stay_between_0_and_1(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("maxpo",), seeds=4)
    planted = {"pass@1": [0.0, 0.0, 0.0, 0.3], "pass@K": [1.0, 1.0, 1.0, 0.8]}
    synthetic.edit(root, "maze", "maxpo", lambda m: m["final"].update(planted))
    row = tables.cells(load.read(root)).iloc[0]
    assert row["pass@1 low"] == 0.0 and row["pass@1 high"] > 0.2
    assert row["pass@K high"] == 1.0 and row["pass@K low"] < 0.95
