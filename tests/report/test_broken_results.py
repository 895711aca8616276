"""The report from results that are missing, broken or edited: each is told with its reason, none is a crash."""

import json
import shutil

import pytest
import synthetic

from maxpo_bench.report import build, load

EVIL = '<script>alert("x")</script> | **b** & [l](http://x)'


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
