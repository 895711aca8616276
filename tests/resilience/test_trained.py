"""A study that trains, stopped at any moment: what was finished is not run again, and the table has the same bytes."""

import json
import shutil
import signal
import time

import pytest

from maxpo_bench.machine import files

PARAMS = "tasks: [maze, countdown3]\nestimators: [rloo, maxpo]\nstudies: []\nvariance_policy: maxpo\n"


@pytest.fixture
def project(from_base):
    def make(task="maze"):
        made = from_base(task)
        (made.folder / "params.yaml").write_text(PARAMS)
        return made

    return make


def table(project, study, task="maze"):
    return (project.folder / "results" / "trained" / study / f"{task}.csv").read_bytes()


def entries(project, study, task="maze"):
    return json.loads((project.folder / "results" / "trained" / study / f"{task}.json").read_text())["trainings"]


def trained(command):
    """The labels of what a command trained."""
    return [line.partition(": ")[2].partition(",")[0] for line in command.output.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("task", ["maze", "countdown3"])
def test_killed_anywhere_it_goes_on_and_loses_at_most_one_training(task, project):
    undisturbed = project(task)
    done = undisturbed.run("trained", "off_policy", task)
    assert done.code == 0 and len(trained(done)) == 6, done.output
    killed, started = project(task), []
    for stop_after in (3, 2):
        command = killed.start("trained", "off_policy", task)
        deadline = time.monotonic() + 60
        while len(trained(command)) < stop_after and time.monotonic() < deadline:
            time.sleep(0.005)
        command.send(signal.SIGKILL, group=True)
        assert command.wait(5) is not None
        assert not (killed.folder / "results" / "trained").exists()
        started += [trained(command)]
    last = killed.run("trained", "off_policy", task)
    assert last.code == 0, last.output
    runs = [label for part in (*started, trained(last)) for label in part]
    assert set(runs) == set(trained(done)) and table(killed, "off_policy", task) == table(undisturbed, "off_policy", task)
    again = [line for line in last.output.splitlines() if " seeds x " in line]
    assert len(again) <= 6 - 3, "what was finished before the kills ran again"
    assert {path.name for path in (killed.folder / ".resume").iterdir()} == {"locks"}


def test_a_finished_study_trains_nothing_again_and_a_new_estimator_alone(project):
    made = project()
    assert made.run("trained", "learning_rate", "maze").code == 0
    before = table(made, "learning_rate")
    again = made.run("trained", "learning_rate", "maze")
    assert again.code == 0 and trained(again) == [] and table(made, "learning_rate") == before
    (made.folder / "params.yaml").write_text(PARAMS.replace("[rloo, maxpo]", "[rloo, maxpo, pkpo]"))
    more = made.run("trained", "learning_rate", "maze")
    assert more.code == 0 and {label.split()[0] for label in trained(more)} == {"pkpo"}
    assert table(made, "learning_rate").startswith(before)

    # the task file's own rate moved to one of the swept: the same trainings, none anew where the grid has them
    made.add("maze", optimiser="{name: adam, lr: 0.1}")
    assert made.run("base", "maze").code == 0
    moved = made.run("trained", "learning_rate", "maze")
    lrs = {entry["overrides"]["optimiser.lr"] for entry in entries(made, "learning_rate")}
    known = {float(line.split(",")[2]) for line in before.decode().splitlines()[1:]}
    assert moved.code == 0 and {float(label.split("=")[1]) for label in trained(moved)} == lrs - known
    made.add("maze", steps=59)
    assert made.run("base", "maze").code == 0
    assert len(trained(made.run("trained", "learning_rate", "maze"))) >= 15


def test_the_task_s_own_settings_are_the_published_cell_to_the_byte(project):
    made = project()
    made.add("maze", group_size=16)
    for words in (("base", "maze"), ("train", "maze", "rloo"), ("train", "maze", "maxpo")):
        assert made.run(*words).code == 0
    done = made.run("trained", "k_trained", "maze")
    assert done.code == 0, done.output
    assert "maze-maxpo" in done.output and "k=4" in done.output
    metrics, rows = made.metrics("maze"), [line.split(",") for line in table(made, "k_trained").decode().splitlines()]
    own = [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if row[1] == "maxpo" and row[3] == "4"]
    assert [float(row["max_at_k"]) for row in own] == metrics["final"]["max@K"]
    assert {row["max_at_8"] for row in own} == {""}  # of 8 samples the ladder has 1, 2, 4, and what was trained for
    assert [float(row["max_at_2"]) for row in own] == metrics["final"]["ladder"]["2"]
    assert [float(row["pass_at_2"]) for row in own] == metrics["final"]["pass_ladder"]["2"]
    # the same without a published cell to take them from
    alone = project()
    alone.add("maze", group_size=16)
    assert alone.run("base", "maze").code == 0 and alone.run("trained", "k_trained", "maze").code == 0
    assert table(alone, "k_trained") == table(made, "k_trained")


def test_own_best_writes_cells_that_the_report_reads(project):
    from maxpo_bench.report import load

    made = project()
    assert made.run("train", "maze", "maxpo").code == 0
    early = made.run("trained", "own_best", "maze")
    assert early.code == 2 and "run `maxpo-bench trained learning_rate maze` first" in early.output
    assert made.run("trained", "learning_rate", "maze").code == 0
    sweep = made.folder / "results" / "trained" / "learning_rate" / "maze.csv"
    done = made.run("trained", "own_best", "maze")
    assert done.code == 0, done.output
    for estimator in ("rloo", "maxpo"):
        cell = load.read_cell(made.folder, "maze", estimator, "own_best")
        assert cell.status == "ok" and list(cell.values("max@K")) == [0, 1, 2, 3], cell.reason
        about = json.loads((made.folder / "results" / "own_best" / "maze" / estimator / "provenance.json").read_text())
        assert set(about["overrides"]) == {"optimiser.lr"}
    # of each cell the summary alone, also where an earlier version kept more
    cells = made.folder / "results" / "own_best" / "maze"
    (cells / "rloo" / "curve.csv.gz").write_bytes(b"old")
    assert made.run("trained", "own_best", "maze").code == 0
    assert {path.name for path in cells.glob("*/*")} == {"metrics.json", "provenance.json", "timing.json"}
    # the published cell, where the shared rate is its best
    lines = sweep.read_text().splitlines()
    shared = [line for line in lines[1:] if line.split(",")[2] == "0.05"]
    high = {line: ",".join([*line.split(",")[:11], "99.0", *line.split(",")[12:]]) for line in shared}
    sweep.write_text("\n".join(high.get(line, line) for line in lines) + "\n")
    again = made.run("trained", "own_best", "maze")
    assert again.code == 0, again.output
    own = made.folder / "results" / "own_best" / "maze" / "maxpo" / "metrics.json"
    assert own.read_bytes() == made.bytes("maze")["metrics.json"]
    index = (made.folder / "results" / "trained.csv").read_text()
    path = made.folder / "results" / "own_best" / "maze" / "rloo" / "metrics.json"
    assert f"own_best/maze/rloo/metrics.json,{files.sha256(path)}" in index and "trained/own_best/maze.csv" in index


def test_a_training_that_fails_leaves_no_table(project):
    made = project()
    shutil.rmtree(made.folder / "results" / "base")
    failed = made.run("trained", "off_policy", "maze")
    assert failed.code == 2 and "run `maxpo-bench base maze`" in failed.output
    assert not (made.folder / "results" / "trained").exists()
