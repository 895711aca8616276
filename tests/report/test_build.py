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

from maxpo_bench.measure import statistics
from maxpo_bench.report import build, figures_variance, load, page, tables, verdicts, words
from maxpo_bench.settings import claims

TASKS, ESTIMATORS = ("bandit", "maze", "frozenlake"), ("rloo", "passk_training", "pkpo", "maxpo")
OLD_PROCESSOR = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR", "OPENBLAS_CORETYPE": "Prescott"}
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
    synthetic.edit(root, "frozenlake", "rloo", lambda m: m.update(status="diverged", reason="seed 1: loss is NaN at step 12"))
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
    """Also in another process, folder, time zone, order of hashing, and with the arithmetic and the sorts of an older processor."""
    shutil.copytree(project, tmp_path / "else where")
    for name in ("report.md", "report.html", "claims.json", "metrics.json", "figures", "tables"):
        path = tmp_path / "else where" / "results" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    where = str(tmp_path / "else where")
    command = f"import sys; from maxpo_bench.report import build; build({where!r}); assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C", **OLD_PROCESSOR}
    subprocess.run([sys.executable, "-c", command], check=True, env=environment, cwd=synthetic.ROOT, capture_output=True)
    first, second = outputs(project), outputs(tmp_path / "else where")
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def shake(value, rng):
    """The value with every float in it moved in its last bits, as another processor might."""
    if isinstance(value, dict):
        return {k: shake(v, rng) for k, v in value.items()}
    if isinstance(value, list):
        return [shake(v, rng) for v in value]
    return value * (1 + rng.choice([-1, 1]) * 1e-12) if isinstance(value, float) else value


def test_noise_in_the_last_bits_of_the_results_does_not_show(tmp_path):
    """Tables, figures and pages: rounding is far above what another processor's arithmetic moves."""
    first, second = (synthetic.write(tmp_path / name, TASKS, ESTIMATORS) for name in ("first", "second"))
    rng = np.random.default_rng(0)
    for path in (second / "results" / "runs").rglob("metrics.json"):
        path.write_text(json.dumps(shake(json.loads(path.read_text()), rng)))
    measured = [*(second / "results").rglob("*.csv.gz"), *(second / "results" / "variance").glob("*.csv")]
    for path in [*measured, second / "results" / "studies" / "regimes.csv"]:
        floats = lambda t: t.apply(lambda c: c * (1 + rng.choice([-1, 1], len(c)) * 1e-12) if c.dtype == float else c)  # noqa: E731
        synthetic.edit_table(second, path.relative_to(second / "results"), floats)
    assert build(first) == build(second) == 0
    one, two = outputs(first), outputs(second)
    assert [name for name in one if one[name] != two[name]] == []


def test_the_report_is_a_function_of_the_results_alone(project, tmp_path):
    """Neither provenance, dvc.lock, checkpoints, leftovers of a stopped run nor git change a byte; times change the last section
    alone."""
    shutil.copytree(project, tmp_path / "p")
    root = tmp_path / "p"
    lock = {"variance@maze": {"outs": [{"path": "results/variance/maze.csv", "md5": "older"}]}}
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": lock}))
    cell = root / "results" / "runs" / "bandit" / "maxpo"
    (cell / "checkpoints").mkdir()
    (cell / ".resume").mkdir()
    (cell / "provenance.json").write_text(json.dumps({"task_sha256": "older", "versions": {"python": "3.99"}}))
    subprocess.run(["git", "init", "-q", root], check=True)
    build(root)
    assert outputs(project) == outputs(root)
    timing = json.loads((cell / "timing.json").read_text())
    timing["phases"]["sample"] *= 7
    (cell / "timing.json").write_text(json.dumps(timing))
    build(root)
    one, two = outputs(project), outputs(root)
    changed = {name for name in one if one[name] != two[name]}
    assert changed == {f"results/{n}" for n in ("report.html", "figures/wall_clock.svg", "tables/wall_clock.csv")}
    start = [text["results/report.html"].split(b'<section id="time"')[0] for text in (one, two)]
    assert start[0] == start[1] and b'id="every-cell"' in start[0]


def test_sorts_are_stable():
    """numpy's default sort orders equal values by what the processor can do."""
    package = synthetic.ROOT / "maxpo_bench"
    sorts = [
        (path.name, line.strip())
        for path in [*(package / "report").glob("*.py"), *(package / "studies").glob("*.py")]
        for line in path.read_text().splitlines()
        if re.search(r"\.sort_values\(|\bargsort\(", line)
    ]
    assert len(sorts) > 5 and [found for found in sorts if "stable" not in found[1]] == []


def test_no_word_of_this_machine(project):
    text = " ".join(Page((project / "results" / "report.html").read_text()).words).lower()
    text = text.replace("was not computed on this machine, is said by", "")  # how to read: what the report does not say
    for word in ("this machine", "stale:", "committed", "computed here", "recomputed", "not used: older"):
        assert word not in text, word


def test_everything_promised_is_written(project):
    names = set(outputs(project))
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
        "wall_clock",
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
    """Sentences, the figure and the verdicts stand before anything else; every name in it says what it is."""
    text = (project / "results" / "report.html").read_text()
    first = text[: text.index('<section id="collapse"')]
    parsed = Page(first)
    assert first.index('class="answer"') < first.index("<figure>") < first.index("<table")
    assert sum(tag == "img" for tag, _ in parsed.tags) == 2
    seen = " ".join(parsed.words)
    for name in ESTIMATORS:
        assert words.about(name) and words.about(name) in seen, name
    for needed in ("max@k is the expected best reward of k samples", "J_K is", "supported", "undecided", "by exact enumeration"):
        assert needed in seen, needed
    claims = pd.DataFrame(json.loads((project / "results" / "claims.json").read_text()))
    assert set(claims["verdict"]) <= set(statistics.VERDICTS) and "time" not in set(claims["measure"])


def test_bad_cells_are_listed_with_reasons_and_not_used(project):
    cells = pd.read_csv(project / "results" / "tables" / "cells.csv").set_index(["task", "estimator"])
    assert cells.loc[("maze", "rloo"), "status"] == "missing"
    assert cells.loc[("maze", "pkpo"), "status"] == "failed" and cells.loc[("maze", "pkpo"), "reason"] == EVIL
    assert cells.loc[("frozenlake", "rloo"), "status"] == "diverged" and cells.loc[("frozenlake", "rloo"), "max@K"] > 0
    assert "seed 2: left out" in cells.loc[("frozenlake", "pkpo"), "reason"] and cells.loc[("frozenlake", "pkpo"), "num_seeds"] == 9
    assert cells.loc[("frozenlake", "passk_training"), "status"] == "failed"
    assert cells.loc[("bandit", "passk_training"), "status"] == "not_applicable"
    text = (project / "results" / "report.md").read_text()
    state = text[text.index("## State of the cells") :]
    for needed in ("no metrics.json", "loss is NaN at step 12", "left out", "rewards must be 0 or 1"):
        assert needed in state


def test_metrics_are_a_handful_of_finite_numbers(project):
    metrics = json.loads((project / "results" / "metrics.json").read_text())
    assert set(metrics) == {"cells", "max@K", "lead", "pass@1", "variance", "supported", "contradicted"}
    assert all(isinstance(v, int | float) and math.isfinite(v) for v in metrics.values())
    # `dvc exp show` pads every column by 3: beside a name of 28 ("├── 1a2b3c4 [topaz-yoga]") and a date of 12 it fits 120.
    shown = sum(max(len(key), len(str(value))) + 3 for key, value in metrics.items())
    assert shown + 28 + 12 <= 120
    overall = pd.read_csv(project / "results" / "tables" / "overall.csv").set_index("estimator")
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
    said = page.exact_blocks(table.reset_index())[0]["paragraphs"][0]
    assert "max@K of 3 cells" in said and "at 95% in 2 of them" in said and said.endswith("over the cells in 1.")
    assert page.exact_blocks(tables.exact(load.read(synthetic.write(tmp_path / "b", ("maze",), ("maxpo",))))) == []


def test_first_tables_are_cards_on_a_narrow_screen(project):
    parsed = Page((project / "results" / "report.html").read_text())
    assert sum(tag == "table" and a.get("class") == "cards" for tag, a in parsed.tags) >= 1
    labels = {a["data-label"] for tag, a in parsed.tags if tag == "td" and "data-label" in a}
    assert {"rival", "what it is", "max@K: all", "pass@1: all", "gradient variance: all"} <= labels


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_get_no_interval_anywhere(tmp_path, seeds):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), seeds=seeds, studies=False)
    results = load.read(root)
    scale = load.scales(results)
    for table in (
        tables.cells(results),
        tables.curves(results),
        tables.ladders(results),
        tables.overall(results, scale),
        tables.collapse(results, scale),
        verdicts.judge(results, claims.read(root / "claims.yaml"))[1].query("measure != 'gradient variance'"),
    ):
        for column in [c for c in table.columns if c.endswith(("low", "high"))]:
            assert table[column].isna().all(), column
    assert build(root) == 0
    assert "fewer than 3 seeds on maze" in (root / "results" / "claims.json").read_text()


def test_snr_says_what_is_not_shown(tmp_path):
    root = synthetic.write(tmp_path, ("maze", "bandit"), ("pkpo", "maxpo"), studies=False)
    synthetic.edit_table(root, "variance/maze.csv", lambda t: t.assign(
        snr_low=t["snr"] - 0.5, snr_high=t["snr"] + 0.5, snr=t["snr"].where(t.index > 0, -0.01)))  # fmt: skip
    (root / "results" / "variance" / "bandit.csv").unlink()
    results = load.read(root)
    table = tables.variance(results)
    ((_, figure, caption),) = figures_variance.signal_to_noise(table, results)
    assert "not shown: maze 1" in caption and "same 256 groups" in caption and "at 1 policy" in caption
    bars = [line for c in figure.axes[0].collections for line in c.get_segments()]
    assert len(bars) == len(table) - 1 and min(line[:, 1].min() for line in bars) > 0
    assert build(root) == 0
    assert "No usable results/variance/&lt;task&gt;.csv: bandit" in (root / "results" / "report.md").read_text()


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


def test_power_and_learning_rates_have_their_sections_when_they_are_there(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    assert build(root) == 0 and "How many seeds" not in (root / "results" / "report.md").read_text()
    studies = root / "results" / "studies"
    power = pd.DataFrame([{"task": "maze", "rival": "pkpo", "spread": 0.22, "seeds": 300, "half_width": 0.025, "equivalent": 0.1}])
    power.to_csv(studies / "power.csv", index=False)
    rates = [{"task": "maze", "estimator": e, "lr": lr, "seed": s, "max_at_k": 0.5 + lr * s}
             for e in ("pkpo", "maxpo") for lr in (0.01, 0.02, 0.04) for s in range(4)]  # fmt: skip
    pd.DataFrame(rates).to_csv(studies / "learning_rate.csv", index=False)
    assert build(root) == 0
    text = (root / "results" / "report.md").read_text()
    assert "## How many seeds a verdict takes" in text and "half_width" in text and "## Learning rates" in text
    assert (root / "results" / "figures" / "learning_rate.svg").is_file()
    power.drop(columns="spread").to_csv(studies / "power.csv", index=False)
    assert "studies/power.csv: has no column spread" in load.read(root).notes[0]


def test_what_is_no_longer_declared_disappears(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    (root / "results" / "figures").mkdir()
    (root / "results" / "figures" / "study_old.svg").write_bytes(b"")
    build(root)
    assert not (root / "results" / "figures" / "study_old.svg").exists()


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


def test_latex_compiles_in_shape(project):
    text = Path(project / "results" / "tables" / "max_at_k.tex").read_text()
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


def test_every_figure_has_its_csv_and_says_how_many_seeds(project):
    """Below each figure a link to the numbers; what is drawn from runs names the seeds behind it."""
    text = (project / "results" / "report.html").read_text()
    figures = re.findall(r"<figure.*?</figure>", text, re.S)
    assert len(figures) >= 8
    for block in figures:
        linked = re.findall(r'href="([^"]+[.]csv)"', block)
        assert linked and all((project / "results" / path).is_file() for path in linked), block[-400:]
    runs = [block for block in figures if "mean over seeds" in block or "paired by seed" in block]
    assert len(runs) >= 5 and all("eeds: " in block or "seeds a task" in block for block in runs)


def test_page_has_contents_settings_and_the_property_table(project):
    text = (project / "results" / "report.html").read_text()
    page = Page(text)
    targets = {attributes.get("href") for tag, attributes in page.tags if tag == "a"}
    ids = {f"#{attributes['id']}" for tag, attributes in page.tags if tag == "section" and "id" in attributes}
    assert "nav" in {tag for tag, _ in page.tags} and len(ids) > 8 and ids <= targets
    words = " ".join(page.words)
    for needed in ("0 to 9", "bias_jk", "begin{tabular}", "provenance.json"):
        assert needed in words, needed


def test_equal_seeds_render_without_an_interval(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    for estimator in ("pkpo", "maxpo"):
        synthetic.edit(root, "maze", estimator, lambda m: m["final"].update({"max@K": [0.5] * 10}))
    assert build(root) == 0
    row = pd.read_csv(root / "results" / "tables" / "cells.csv").set_index("estimator").loc["maxpo"]
    assert row["max@K"] == 0.5 and math.isnan(row["max@K low"])
    gaps = pd.read_csv(root / "results" / "tables" / "claims_by_task.csv").query("measure == 'max@K'")
    assert gaps["low"].isna().all() and gaps["reason"].str.contains("no spread").all()


def test_intervals_of_a_probability_stay_between_0_and_1(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("maxpo",), seeds=4)
    planted = {"pass@1": [0.0, 0.0, 0.0, 0.3], "pass@K": [1.0, 1.0, 1.0, 0.8]}
    synthetic.edit(root, "maze", "maxpo", lambda m: m["final"].update(planted))
    row = tables.cells(load.read(root)).iloc[0]
    assert row["pass@1 low"] == 0.0 and row["pass@1 high"] > 0.2
    assert row["pass@K high"] == 1.0 and row["pass@K low"] < 0.95
