"""The whole pipeline at tiny size, in a folder with a space in its name: runs, repeats, and knows what is up to date."""

import json
import shutil
import subprocess
import sys

import pytest


def dvc(folder, *words):
    return subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_repro_from_nothing_then_nothing_to_do_then_only_what_changed(project, run_cli):
    first = run_cli(project, "repro", "--all")
    assert first.returncode == 0, first.stdout + first.stderr
    for path in ("report.md", "report.html", "claims.json", "metrics.json", "variance/bandit.csv", "studies/centring.csv"):
        assert (project / "results" / path).stat().st_size > 0, path
    metrics = json.loads((project / "results" / "runs" / "countdown3" / "maxpo" / "metrics.json").read_text())
    assert metrics["status"] == "ok" and len(metrics["final"]["max@K"]) == 2
    plan = run_cli(project, "plan").stdout
    assert "12 stages, 0 to run" in plan, plan
    assert "Running stage" not in dvc(project, "repro").stdout

    # a second call finds everything done
    second = run_cli(project, "repro", "--all")
    assert second.returncode == 0 and "Running stage 'train" not in second.stdout

    # a comment in a task file reruns no cell (only the report, which shows the files); a value that task's cells alone
    task = project / "tasks" / "bandit.yaml"
    task.write_text(task.read_text() + "# a remark\n")
    assert "12 stages, 1 to run" in run_cli(project, "plan").stdout
    task.write_text(task.read_text().replace("steps: 6", "steps: 7"))
    plan = run_cli(project, "plan").stdout
    states = {line.split()[0]: line for line in plan.splitlines() if "@" in line}
    assert "stale" in states["train@bandit-maxpo"] and "up to date" in states["train@countdown3-maxpo"]

    # an estimator's file reruns its own cells
    task.write_text(task.read_text().replace("steps: 7", "steps: 6"))
    source = project / "maxpo_bench" / "estimators" / "pkpo.py"
    source.write_text(source.read_text() + "# a remark\n")
    stale = [line.split()[0] for line in run_cli(project, "plan").stdout.splitlines() if line.split()[3:4] == ["stale"]]
    assert {name for name in stale if name.startswith("train")} == {"train@bandit-pkpo", "train@countdown3-pkpo"}


@pytest.mark.slow
def test_a_clone_recomputes_what_was_only_committed(project, run_cli, tmp_path):
    assert run_cli(project, "repro", "--all").returncode == 0
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "add", "-A"], cwd=project, check=True)
    subprocess.run([*git, "commit", "-qm", "results"], cwd=project, check=True)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", project, clone], check=True)
    before = (clone / "results" / "runs" / "bandit" / "maxpo" / "metrics.json").read_bytes()
    shutil.rmtree(clone / "results" / "runs" / "bandit" / "pkpo")
    result = run_cli(clone, "repro", "bandit")
    assert result.returncode == 0, result.stdout + result.stderr
    for stage in ("base@bandit", "train@bandit-maxpo", "variance@bandit", "report"):
        assert f"Running stage '{stage}'" in result.stdout, stage
    assert "Running stage 'train@countdown3" not in result.stdout
    assert (clone / "results" / "runs" / "bandit" / "maxpo" / "metrics.json").read_bytes() == before


def test_the_plan_hashes_folders_as_dvc_does(project):
    """plan judges without importing DVC; its folder hash must be DVC's own."""
    from maxpo_bench.pipeline import _md5

    (project / "dvc.yaml").write_text(
        "stages:\n  s:\n    cmd: 'true'\n    deps: [maxpo_bench/problems, tasks]\n    outs: []\n"
    )
    assert dvc(project, "repro").returncode == 0
    lock = (project / "dvc.lock").read_text()
    for name in ("maxpo_bench/problems", "tasks"):
        assert _md5(project / name, {}) in lock
