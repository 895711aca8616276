"""The report from results that are missing, broken, edited or stale: each is told with its reason, none is a crash."""

import json
import shutil

import pytest
import synthetic

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import shared_sha256
from maxpo_bench.report import build, load

EVIL = '<script>alert("x")</script> | **b** & [l](http://x)'


def test_no_results_at_all(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    shutil.rmtree(root / "results")
    assert build(root) == 0
    text = (root / "results" / "report.md").read_text()
    assert "No cell has a finite max@K yet" in text and "no metrics.json" in text


def test_no_finite_value_is_not_called_no_results(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    for estimator in ("pkpo", "maxpo"):
        synthetic.edit(root, "maze", estimator, lambda m: m["final"].update({"max@K": [float("nan")] * 4, "ladder": {}}))
    assert build(root) == 0
    text = (root / "results" / "report.md").read_text()
    assert "No cell has a finite max@K yet" in text and "no finite max@K for seed 0, 1, 2, 3: left out" in text


def test_broken_task_file_is_a_note_not_a_crash(tmp_path):
    root = synthetic.write(tmp_path, ("maze", "bandit"), ("pkpo", "maxpo"), studies=False)
    (root / "tasks" / "maze.yaml").write_text("version: 1\nkind: [")
    assert build(root) == 0
    assert load.read(root).title("maze") == ""
    assert "tasks/maze.yaml" in (root / "results" / "report.md").read_text()


def test_broken_study_is_a_note_not_a_crash(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    (root / "results" / "studies" / "cost.csv").write_text("other,columns\n1,2\n")
    assert build(root) == 0
    assert "its figure could not be drawn" in (root / "results" / "report.md").read_text()


@pytest.mark.parametrize(
    "file, text, words",
    [
        ("metrics.json", '{"status": "ok", "seeds": [0], "final": []}', "final is not a mapping"),
        ("metrics.json", '{"status": "ok", "seeds": [0], "final": {"max@K": 3}}', "max@K is not a list"),
        ("metrics.json", '{"status": "ok", "seeds": [0], "final": {"ladder": [1]}}', "final.ladder is not a mapping"),
        ("metrics.json", "[1, 2]", "is not a whole metrics file"),
    ],
)
def test_an_edited_metrics_file_is_a_failed_cell(tmp_path, file, text, words):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    (root / "results" / "runs" / "maze" / "pkpo" / file).write_text(text)
    cell = load.read(root).cells["maze", "pkpo"]
    assert cell.status == "failed" and words in cell.reason
    assert build(root) == 0 and words in (root / "results" / "report.md").read_text()


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
    (root / "results" / path).write_text(text)
    results = load.read(root)
    assert build(root) == 0 and results.cells["maze", "pkpo"].usable
    assert path.endswith(".json") or any(path in note and "has no column" in note for note in results.notes)


@pytest.mark.parametrize("text", ["tasks: [", "- maze", "tasks: maze"])
def test_a_broken_list_of_cells_is_one_line(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match="params.yaml") as caught:
        load.read(tmp_path)
    assert "\n" not in str(caught.value)


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


def test_cells_of_an_older_shared_source_are_stale(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"))
    synthetic.edit(root, "maze", "pkpo", lambda m: m.update(shared_sha256=shared_sha256()))
    assert load.read(root).cells["maze", "pkpo"].usable
    synthetic.edit(root, "maze", "pkpo", lambda m: m.update(shared_sha256={"contract.py": "older"}))
    cell = load.read(root).cells["maze", "pkpo"]
    assert cell.status == "stale" and "estimators/contract.py changed since the run" in cell.reason
