"""compare: what is identical, reproduced or different, and when it fails."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
import synthetic  # noqa: E402

from maxpo_bench.errors import InputError  # noqa: E402
from maxpo_bench.measure import statistics
from maxpo_bench.pipeline import compare  # noqa: E402

TASKS, ESTIMATORS = ("maze", "frozenlake", "countdown3"), ("rloo", "pkpo", "maxpo")


@pytest.fixture
def project(tmp_path):
    """A committed project whose every cell counts as recomputed here."""
    root = synthetic.write(tmp_path / "project", TASKS, ESTIMATORS, studies=False)
    for folder in (root / "results" / "runs").glob("*/*"):
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "final-seed0.safetensors").write_bytes(b"")
    (root / ".gitignore").write_text("checkpoints\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "base"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def shift(amount, seeds=None, noise=0.0):
    def change(metrics):
        values = metrics["final"]["max@K"]
        for i in range(len(values)):
            if seeds is None or i in seeds:
                values[i] += amount + noise * ((-1) ** i)

    return change


def verdicts(rows, what, metric="max@K"):
    return [row.verdict for row in rows if row.what == what and row.metric in ("", metric)]


def test_untouched_results_are_identical_and_pass(project, monkeypatch, capsys):
    rows, failures = compare.compare(project)
    assert {row.verdict for row in rows} == {"identical", "identical file"} and not failures
    monkeypatch.chdir(project)
    assert compare.main(argparse.Namespace(against="HEAD")) == 0
    assert "No loss found" in capsys.readouterr().out


def test_committed_results_are_not_called_reproduced(project):
    for path in (project / "results" / "runs").glob("*/*/checkpoints"):
        shutil.rmtree(path)
    rows, failures = compare.compare(project)
    assert {row.verdict for row in rows} == {"not recomputed", "identical file"}
    assert "Nothing to compare" in compare.as_markdown(*compare.compare(project), "HEAD")


def test_a_cell_that_keeps_no_policies_counts_as_recomputed(project):
    for path in (project / "results" / "runs").glob("*/*/checkpoints/*"):
        path.unlink()
    assert {row.verdict for row in compare.compare(project)[0]} == {"identical", "identical file"}


def test_noise_is_reproduced_and_a_gain_is_no_failure(project):
    synthetic.edit(project, "maze", "pkpo", shift(0.0, noise=0.01))
    synthetic.edit(project, "maze", "maxpo", shift(0.2, noise=0.01))
    rows, failures = compare.compare(project)
    assert verdicts(rows, "maze, pkpo") == ["reproduced"]
    assert verdicts(rows, "maze, maxpo") == ["differs"]
    assert not failures
    assert "| maze, maxpo | max@K |" in compare.as_markdown(rows, failures, "HEAD")


def test_a_drop_fails_and_names_the_cell(project, monkeypatch, capsys):
    synthetic.edit(project, "maze", "maxpo", shift(-0.1, noise=0.01))
    monkeypatch.chdir(project)
    assert compare.main(argparse.Namespace(against="HEAD")) == 1
    out = capsys.readouterr().out
    assert "- maze, maxpo: max@K dropped by 0.1 [" in out and "**Worse.**" in out


def test_a_drop_too_small_on_each_task_is_seen_over_all(project):
    for task in TASKS:
        synthetic.edit(project, task, "maxpo", shift(-0.01, noise=0.016))
    rows, failures = compare.compare(project)
    assert [f.split(":")[0] for f in failures] == ["maxpo over 3 tasks"]


def test_pooled_tasks_of_four_seeds_raise_no_false_alarm():
    """t statistics of 4 seeds have variance 3: added up as if it were 1 they alarm in 4% of draws, not in 0.2%."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(500):
        rows = [compare.Row("", "", "", gap=statistics.mean_interval(rng.normal(size=4))) for _ in range(10)]
        alarms += any("over 10 tasks" in line for line in compare._worse({(t, "maxpo"): row for t, row in enumerate(rows)}))
    assert alarms <= 6


def test_times_of_the_cost_study_are_not_compared(project):
    old = b"estimator,group_size,time_us_per_group,peak_memory_per_input\nmaxpo,16,1.5,4\n"
    slower, larger = old.replace(b"1.5", b"3.5"), old.replace(b",4\n", b",9\n")
    path = "results/studies/cost.csv"
    row = compare._compare_file(path, old, slower)
    assert row.verdict == "reproduced" and "time_us_per_group not compared" in row.note
    assert compare._compare_file(path, old, larger).verdict == "differs"
    assert compare._compare_file("results/studies/other.csv", old, slower).verdict == "differs"


def test_the_same_drop_on_every_seed_fails(project):
    synthetic.edit(project, "maze", "maxpo", shift(-0.05))
    assert "dropped by 0.05 on every seed" in compare.compare(project)[1][0]


def test_other_advantages_on_the_probe_fail(project):
    """An off-by-one in k that learning hides is still seen."""
    synthetic.edit(project, "maze", "maxpo", lambda m: m["probe"].update(advantages=[0.5, -1.0, -1.0, 1.0]))
    assert "other advantages on the fixed probe (sample 0: 1, now 0.5)" in compare.compare(project)[1][0]


def test_a_cell_that_broke_fails(project):
    synthetic.edit(project, "maze", "pkpo", lambda m: (m.update(status="failed", reason="the env raised"), m.pop("final")))
    assert compare.compare(project)[1] == ["maze, pkpo: was ok, now failed: the env raised"]


def test_too_few_seeds_get_no_interval(project):
    def two_seeds(metrics):
        metrics["seeds"] = [0, 1]
        metrics["final"]["max@K"] = [0.1, 0.9]

    synthetic.edit(project, "maze", "pkpo", two_seeds)
    row = next(r for r in compare.compare(project)[0] if r.what == "maze, pkpo" and r.metric == "max@K")
    assert row.gap.low is None and "2 of the 3 seeds" in row.note


def test_another_task_is_not_compared(project):
    synthetic.edit(project, "maze", "pkpo", lambda m: m.update(task_sha256="other"))
    assert verdicts(compare.compare(project)[0], "maze, pkpo") == ["another task"]


def test_broken_and_absent_files_are_said(project):
    folder = project / "results" / "runs" / "maze"
    (folder / "pkpo" / "metrics.json").write_text('{"half')
    (folder / "rloo" / "metrics.json").unlink()
    rows, failures = compare.compare(project)
    assert verdicts(rows, "maze, pkpo") == ["not valid JSON here"] and "not valid JSON" in failures[0]
    assert verdicts(rows, "maze, rloo") == ["missing here"]


@pytest.mark.parametrize("revision", ["nowhere", "--help", "HEAD:params.yaml"])
def test_unknown_revision_is_one_line(project, revision):
    with pytest.raises(InputError, match="git knows no such revision"):
        compare.compare(project, revision)
