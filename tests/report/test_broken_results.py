"""The report from results that are missing, broken or edited: each is told with its reason, none is a crash."""

import json
import math
import shutil

import pandas as pd
import pytest
import synthetic
from pages import EVIL

from maxpo_bench.report import build, figures, load, tables, verdicts
from maxpo_bench.settings import claims


def test_no_results_at_all(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    shutil.rmtree(root / "results")
    assert build(root) == 0
    text = (root / "results" / "report.md").read_text()
    assert "No rival can be compared in max@K yet" in text and "no metrics.json" in text


def test_no_finite_value_is_not_called_no_results(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    for estimator in ("pkpo", "maxpo"):
        synthetic.edit(root, "maze", estimator, lambda m: m["final"].update({"max@K": [float("nan")] * 10}))
    assert build(root) == 0
    text = (root / "results" / "report.md").read_text()
    assert "No rival can be compared in max@K yet" in text and "no finite max@K for seed 0, 1, 2" in text


def test_broken_task_file_is_a_note_not_a_crash(tmp_path):
    root = synthetic.write(tmp_path, ("maze", "bandit"), ("pkpo", "maxpo"), studies=False)
    (root / "tasks" / "maze.yaml").write_text("version: 1\nkind: [")
    assert build(root) == 0
    assert load.read(root).tasks_of("bandit and gym") == ["bandit"]
    assert "tasks/maze.yaml" in (root / "results" / "report.md").read_text()


def test_broken_study_is_a_note_not_a_crash(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    (root / "results" / "studies" / "cost.csv").write_text("other,columns\n1,2\n")
    assert build(root) == 0
    assert "its figure could not be drawn" in (root / "results" / "report.md").read_text()


def test_an_edited_metrics_file_is_told(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    (root / "results" / "runs" / "maze" / "pkpo" / "metrics.json").write_text("[1, 2]")
    assert load.read(root).cells["maze", "pkpo"].status == "failed"
    assert build(root) == 0 and "is not a whole metrics file" in (root / "results" / "report.md").read_text()


@pytest.mark.parametrize(
    "path, text",
    [
        ("runs/maze/pkpo/timing.json", "[1]"),
        ("runs/maze/pkpo/curve.csv", "seed,step\n0,1\n"),
        ("runs/maze/pkpo/ladder.csv", "seed\n0\n"),
        ("variance/maze.csv", "k,snr\n4,1\n"),
    ],
)
def test_an_edited_table_is_a_note(tmp_path, path, text):
    root = synthetic.write(tmp_path, ("maze", "frozenlake"), ("pkpo", "maxpo"))
    if path.startswith("runs") and path.endswith(".csv"):
        (root / "results" / f"{path}.gz").unlink()
    (root / "results" / path).write_text(text)
    results = load.read(root)
    assert build(root) == 0 and results.cells["maze", "pkpo"].usable
    assert path.endswith(".json") or any(path in note and "has no column" in note for note in results.notes)


def test_a_failed_base_is_the_reason_of_its_cells(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    (root / "results" / "runs" / "maze" / "pkpo" / "metrics.json").unlink()
    base = root / "results" / "base" / "maze" / "base.json"
    base.parent.mkdir(parents=True)
    base.write_text(json.dumps({"status": "failed", "reason": EVIL}))
    cell = load.read(root).cells["maze", "pkpo"]
    assert cell.status == "failed" and cell.reason == f"the base stage failed: {EVIL}"
    base.write_text(json.dumps({"status": "ok"}))
    assert load.read(root).cells["maze", "pkpo"].status == "missing"


def test_bad_cells_are_listed_with_reasons_and_not_used(built):
    cells = pd.read_csv(built / "results" / "tables" / "cells.csv").set_index(["task", "estimator"])
    assert cells.loc[("maze", "rloo"), "status"] == "missing"
    assert cells.loc[("maze", "pkpo"), "status"] == "failed" and cells.loc[("maze", "pkpo"), "reason"] == EVIL
    assert cells.loc[("frozenlake", "rloo"), "status"] == "diverged" and cells.loc[("frozenlake", "rloo"), "max@K"] > 0
    assert "seed 2: left out" in cells.loc[("frozenlake", "pkpo"), "reason"] and cells.loc[("frozenlake", "pkpo"), "num_seeds"] == 9
    assert cells.loc[("frozenlake", "passk_training"), "status"] == "failed"
    assert cells.loc[("bandit", "passk_training"), "status"] == "not_applicable"
    text = (built / "results" / "report.md").read_text()
    state = text[text.index("## State of the cells") :]
    for needed in ("no metrics.json", "loss is NaN at step 12", "left out", "rewards must be 0 or 1"):
        assert needed in state


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
    figure, caption = figures.signal_to_noise(table, results)
    assert "not shown: maze 1" in caption and "same 256 groups" in caption and "at 1 policy" in caption
    bars = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len(bars) == len(table) - 1 and min(bar.min() for bar in bars) > 0
    assert build(root) == 0
    assert "No usable results/variance/&lt;task&gt;.csv: bandit" in (root / "results" / "report.md").read_text()


def test_what_is_no_longer_declared_disappears(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    (root / "results" / "figures").mkdir()
    (root / "results" / "figures" / "study_old.svg").write_bytes(b"")
    build(root)
    assert not (root / "results" / "figures" / "study_old.svg").exists()


def test_equal_seeds_render_without_an_interval(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    for estimator in ("pkpo", "maxpo"):
        synthetic.edit(root, "maze", estimator, lambda m: m["final"].update({"max@K": [0.5] * 10}))
    assert build(root) == 0
    row = pd.read_csv(root / "results" / "tables" / "cells.csv").set_index("estimator").loc["maxpo"]
    assert row["max@K"] == 0.5 and math.isnan(row["max@K low"])
    gaps = pd.read_csv(root / "results" / "tables" / "claims_by_task.csv").query("measure == 'max@K'")
    assert gaps["low"].isna().all() and gaps["reason"].str.contains("no spread").all()
