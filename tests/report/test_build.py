"""The whole report from made-up results: the same bytes, self-contained, honest about what is missing."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
import yaml

from maxpo_bench.report import build, figures_variance, load, page, tables

TASKS, ESTIMATORS = ("bandit", "maze", "frozenlake"), ("rloo", "passk_training", "pkpo", "maxpo")
EVIL = '<script>alert("x")</script> | **b** & [l](http://x)'


class Page(HTMLParser):
    """Tags and attributes of a page, and its text outside script and style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.skip = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.skip += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.skip:
            self.words.append(data)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three tasks with one cell of each bad kind, built once."""
    root = synthetic.write(tmp_path_factory.mktemp("report"), TASKS, ESTIMATORS)
    runs = root / "results" / "runs"
    (runs / "maze" / "rloo" / "metrics.json").unlink()
    synthetic.edit(root, "maze", "pkpo", lambda m: (m.update(status="failed", reason=EVIL), m.pop("final")))
    synthetic.edit(root, "frozenlake", "rloo", lambda m: m.update(task_sha256="of an older version"))
    synthetic.edit(root, "frozenlake", "pkpo", lambda m: m["final"]["max@K"].__setitem__(2, math.nan))
    (runs / "frozenlake" / "passk_training" / "metrics.json").write_text('{"task": "froz')
    assert build(root) == 0
    return root


def outputs(root):
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted((root / "results").rglob("*"))
        if p.is_file() and not {"runs", "variance", "studies"} & set(p.relative_to(root).parts)
    }


def test_two_runs_give_the_same_bytes(project, tmp_path):
    """Also in another process, folder, time zone and order of hashing."""
    shutil.copytree(project, tmp_path / "else where")
    for name in ("report.md", "report.html", "claims.json", "metrics.json", "figures", "tables"):
        path = tmp_path / "else where" / "results" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    where = str(tmp_path / "else where")
    command = f"import sys; from maxpo_bench.report import build; build({where!r}); assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", command], check=True, env=environment, cwd=synthetic.ROOT, capture_output=True)
    first, second = outputs(project), outputs(tmp_path / "else where")
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_everything_promised_is_written(project):
    names = set(outputs(project))
    for stem in (
        "which_k",
        "summary",
        "forest_max_at_k",
        "forest_pass_at_1",
        "curves_max_at_k",
        "curves_pass_at_1",
        "ladder",
        "snr",
        "variance_ratio",
        "wall_clock",
        "study_cost",
    ):
        assert {f"results/figures/{stem}.png", f"results/figures/{stem}.svg"} <= names, stem
    for table in (
        "advice",
        "claims",
        "overall",
        "cells",
        "curves",
        "curves_by_task",
        "ladder",
        "differences_max_at_k",
        "wall_clock",
        "variance",
        "estimators",
    ):
        assert f"results/tables/{table}.csv" in names, table
    assert "results/tables/max_at_k.tex" in names


def test_page_is_self_contained_and_safe(project):
    text = (project / "results" / "report.html").read_text()
    assert len(text) < 8_000_000
    parsed = Page(text)
    for tag, attributes in parsed.tags:
        for key in ("src", "href", "srcset", "action"):
            value = attributes.get(key) or ""
            assert not re.match(r"(https?:)?//", value) and not value.startswith("javascript:"), (tag, value)
            if tag == "a" and value and not value.startswith("#"):
                assert (project / "results" / value).is_file(), value
        assert tag not in ("link", "iframe", "object", "base")
        assert not any(key.startswith("on") for key in attributes)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 1
    assert "@import" not in text and "url(" not in text
    assert EVIL in "".join(parsed.words)  # shown as text, nowhere as markup
    anchors = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    assert {a["href"][1:] for t, a in parsed.tags if t == "a" and a["href"].startswith("#")} <= anchors


def test_markdown_shows_figures_and_escapes(project):
    text = (project / "results" / "report.md").read_text()
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (project / "results" / path).is_file(), path
    assert "<script>" not in text and "&lt;script&gt;" in text
    widths = {}
    for line in text.splitlines():  # every row of a table has as many cells as its head
        if line.startswith("|"):
            widths.setdefault("now", line.replace("\\|", "").count("|"))
            assert line.replace("\\|", "").count("|") == widths["now"], line
        else:
            widths.clear()


def test_first_screen_answers(project):
    text = (project / "results" / "report.html").read_text()
    first = text[: text.index('id="how-to-read-this"')]
    best = pd.read_csv(project / "results" / "tables" / "advice.csv")["best"][0]
    assert f"use {best}" in first and f"{best} is highest" in first
    assert re.search(r"15 claims about maxpo.*\d+ supported, \d+ contradicted, \d+ inconclusive", first)
    assert "1 missing" in first and "2 failed" in first and "1 stale" in first
    claims = json.loads((project / "results" / "claims.json").read_text())
    for claim in claims:
        assert claim["statement"] in first
    assert {c["verdict"] for c in claims} <= {"supported", "contradicted", "inconclusive"}


def test_bad_cells_are_listed_with_reasons_and_not_used(project):
    cells = pd.read_csv(project / "results" / "tables" / "cells.csv").set_index(["task", "estimator"])
    assert cells.loc[("maze", "rloo"), "status"] == "missing"
    assert cells.loc[("maze", "pkpo"), "status"] == "failed" and cells.loc[("maze", "pkpo"), "reason"] == EVIL
    assert cells.loc[("frozenlake", "rloo"), "status"] == "stale"
    assert "tasks/frozenlake.yaml changed" in cells.loc[("frozenlake", "rloo"), "reason"]
    assert pd.isna(cells.loc[("frozenlake", "rloo"), "max@K"])
    assert "seed 2: left out" in cells.loc[("frozenlake", "pkpo"), "reason"] and cells.loc[("frozenlake", "pkpo"), "num_seeds"] == 9
    assert cells.loc[("frozenlake", "passk_training"), "status"] == "failed"
    assert cells.loc[("bandit", "passk_training"), "status"] == "not_applicable"
    text = (project / "results" / "report.md").read_text()
    state = text[text.index("## State of the cells") :]
    for words in ("no metrics.json", "changed since the run", "left out", "rewards must be 0 or 1"):
        assert words in state


def test_metrics_are_a_handful_of_finite_numbers(project):
    metrics = json.loads((project / "results" / "metrics.json").read_text())
    assert set(metrics) == {"cells", "max@K", "pass@1", "variance", "supported", "contradicted"}  # no lead: no rival has all tasks
    assert all(isinstance(v, int | float) and math.isfinite(v) for v in metrics.values())
    # `dvc exp show` pads every column by 3: beside a name of 28 ("├── 1a2b3c4 [topaz-yoga]") and a date of 12 it fits 120.
    shown = sum(max(len(key), len(str(value))) + 3 for key, value in {**metrics, "lead": -0.1234}.items())
    assert shown + 28 + 12 <= 120
    overall = pd.read_csv(project / "results" / "tables" / "overall.csv").set_index("estimator")
    assert metrics["max@K"] == pytest.approx(overall.loc["maxpo", "iqm"], abs=1e-4)


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
    words = page.evaluation_check(table.reset_index())[0]["paragraphs"][0]
    assert "max@K of 3 cells" in words and "at 95% in 2 of them" in words and words.endswith("over the cells in 1.")
    assert page.evaluation_check(tables.exact(load.read(synthetic.write(tmp_path / "b", ("maze",), ("maxpo",))))) == []


def test_first_tables_are_cards_on_a_narrow_screen(project):
    parsed = Page((project / "results" / "report.html").read_text())
    assert sum(tag == "table" and a.get("class") == "cards" for tag, a in parsed.tags) == 2
    labels = {a["data-label"] for tag, a in parsed.tags if tag == "td" and "data-label" in a}
    assert {"verdict", "claim", "evidence", "k", "highest"} <= labels


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_get_no_interval_anywhere(tmp_path, seeds):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), seeds=seeds, studies=False)
    results = load.read(root)
    scale = load.scales(results)
    for table in (
        tables.cells(results),
        tables.curves(results),
        tables.ladders(results),
        tables.differences(results, scale),
        tables.overall(results, scale),
    ):
        for column in [c for c in table.columns if c.endswith(("low", "high"))]:
            assert table[column].isna().all(), column
    assert build(root) == 0
    assert f"{seeds} of the 3 seeds" in (root / "results" / "claims.json").read_text()


def test_snr_says_what_is_not_shown(tmp_path):
    root = synthetic.write(tmp_path, ("maze", "bandit"), ("pkpo", "maxpo"), studies=False)
    path = root / "results" / "variance" / "maze.csv"
    table = pd.read_csv(path)
    table["snr_low"], table["snr_high"] = table["snr"] - 0.5, table["snr"] + 0.5
    table.loc[0, "snr"] = -0.01
    table.to_csv(path, index=False)
    (root / "results" / "variance" / "bandit.csv").unlink()
    results = load.read(root)
    ((_, figure, caption),) = figures_variance.signal_to_noise(results.variance, results)
    assert "not shown: maze 1" in caption and "M = 256 groups" in caption and "seed 0 of maxpo" in caption
    bars = [line for c in figure.axes[0].collections for line in c.get_segments()]
    assert len(bars) == len(table) - 1 and min(line[:, 1].min() for line in bars) > 0
    assert build(root) == 0
    text = (root / "results" / "report.md").read_text()
    assert "No current results/variance/&lt;task&gt;.csv: bandit (not there or empty)" in text


def test_what_is_no_longer_declared_disappears(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    (root / "results" / "figures").mkdir()
    (root / "results" / "figures" / "study_old.png").write_bytes(b"")
    build(root)
    assert not (root / "results" / "figures" / "study_old.png").exists()


def test_curves_for_dvc_plots_have_every_estimator(project):
    """dvc.yaml draws the columns ${estimators}; a column that is not there would empty the plot."""
    plots = yaml.safe_load((synthetic.ROOT / "dvc.yaml").read_text())["plots"]
    for plot in (next(iter(entry.values())) for entry in plots):
        text = (synthetic.ROOT / plot["template"]).read_text()
        json.loads(text)
        (path,) = plot["y"]
        columns = list(pd.read_csv(project / path))
        assert plot["x"] in columns and set(re.findall(r"datum\['([a-z ]+)'\]", text)) <= set(columns)
    table = pd.read_csv(project / "results" / "tables" / "curves.csv")
    assert list(table) == ["share_of_training", *ESTIMATORS]
    complete = synthetic.write(project.parent / "complete", TASKS[1:], ESTIMATORS)
    results = load.read(complete)
    table = tables.wide_curves(results, load.scales(results))
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


def test_latex_compiles_in_shape(project):
    text = Path(project / "results" / "tables" / "max_at_k.tex").read_text()
    assert text.count("{") == text.count("}") and r"passk\_training" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in rows}) == 1


def test_one_sample_and_the_best_of_16_side_by_side(tmp_path):
    """Tasks with 0/1 rewards alone, the base policy first, every number with its interval."""
    root = synthetic.write(tmp_path, ("maze", "cartpole"), ("pkpo", "maxpo"))
    for estimator in ("pkpo", "maxpo"):
        path = root / "results" / "runs" / "maze" / estimator / "ladder.csv"
        table = pd.read_csv(path)
        table.assign(max=table["pass"]).to_csv(path, index=False)
        path = root / "results" / "runs" / "cartpole" / estimator / "ladder.csv"
        table = pd.read_csv(path)
        table.assign(max=2 * table["pass"]).to_csv(path, index=False)
    ends = tables.ladder_ends(tables.ladders(load.read(root)))
    assert list(zip(ends["task"], ends["estimator"], strict=True)) == [
        ("maze", name) for name in ("before training", "pkpo", "maxpo")]
    raw = pd.read_csv(root / "results" / "runs" / "maze" / "pkpo" / "ladder.csv")
    after = raw[(raw["step"] > 0) & (raw["k"] == 16)]["pass"]
    row = ends.set_index("estimator").loc["pkpo"]
    assert row["pass_at_16"] == pytest.approx(after.mean()) and row["pass_at_16_low"] < row["pass_at_16"] < row["pass_at_16_high"]
    assert build(root) == 0
    text = (root / "results" / "report.md").read_text()
    assert "pass@16" in text and "before training" in text


def test_every_figure_has_its_csv_and_says_how_many_seeds(project):
    """Below each figure a link to the numbers; what is drawn from runs names the seeds behind it."""
    text = (project / "results" / "report.html").read_text()
    figures = re.findall(r"<figure.*?</figure>", text, re.S)
    assert len(figures) >= 8
    for block in figures:
        linked = re.findall(r'href="([^"]+[.]csv)"', block)
        assert linked and all((project / "results" / path).is_file() for path in linked), block[-400:]
    runs = [block for block in figures if "mean over seeds" in block or "paired by seed" in block]
    assert len(runs) >= 5 and all("Seeds: " in block for block in runs)


def test_page_has_contents_versions_and_the_property_table(project):
    text = (project / "results" / "report.html").read_text()
    page = Page(text)
    targets = {attributes.get("href") for tag, attributes in page.tags if tag == "a"}
    ids = {f"#{attributes['id']}" for tag, attributes in page.tags if tag == "section" and "id" in attributes}
    assert "nav" in {tag for tag, _ in page.tags} and len(ids) > 8 and ids <= targets
    words = " ".join(page.words)
    for needed in ("torch 2.13.0", "Linux x86_64, 2 cores", "0 to 9", "bias_jk", "begin{tabular}"):
        assert needed in words, needed


def test_equal_seeds_render_without_an_interval(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    for estimator in ("pkpo", "maxpo"):
        synthetic.edit(root, "maze", estimator, lambda m: m["final"].update({"max@K": [0.5] * 10}))
    assert build(root) == 0
    row = pd.read_csv(root / "results" / "tables" / "cells.csv").set_index("estimator").loc["maxpo"]
    assert row["max@K"] == 0.5 and math.isnan(row["max@K low"])
    gaps = pd.read_csv(root / "results" / "tables" / "differences_max_at_k.csv")
    assert gaps["low"].isna().all() and gaps["reason"].str.contains("no spread").all()


def test_intervals_of_a_probability_stay_between_0_and_1(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("maxpo",), seeds=4)
    planted = {"pass@1": [0.0, 0.0, 0.0, 0.3], "pass@K": [1.0, 1.0, 1.0, 0.8]}
    synthetic.edit(root, "maze", "maxpo", lambda m: m["final"].update(planted))
    row = tables.cells(load.read(root)).iloc[0]
    assert row["pass@1 low"] == 0.0 and row["pass@1 high"] > 0.2
    assert row["pass@K high"] == 1.0 and row["pass@K low"] < 0.95
