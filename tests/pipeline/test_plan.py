"""The whole pipeline at tiny size, in a folder with a space in its name: runs, repeats, and knows what is up to date."""

import json
import shutil

import pytest


@pytest.mark.slow
def test_run_from_nothing_then_nothing_to_do_then_only_what_changed(project, run_cli, dvc):
    first = run_cli(project, "run", "--all")
    assert first.returncode == 0, first.stdout + first.stderr
    for path in ("report.md", "report.html", "claims.json", "metrics.json", "variance/bandit.csv", "studies/centring.csv"):
        assert (project / "results" / path).stat().st_size > 0, path
    metrics = json.loads((project / "results" / "runs" / "countdown3" / "maxpo" / "metrics.json").read_text())
    assert metrics["status"] == "ok" and len(metrics["final"]["max@K"]) == 2
    plan = run_cli(project, "plan").stdout
    assert "14 stages, 0 to run" in plan, plan
    assert "Running stage" not in dvc(project, "repro").stdout

    # a second call finds everything done
    second = run_cli(project, "run", "--all")
    assert second.returncode == 0 and "Running stage" not in second.stdout

    # a comment in a task file reruns no cell (only the report, which shows the files); a value that task's cells alone
    task = project / "tasks" / "bandit.yaml"
    task.write_text(task.read_text() + "# a remark\n")
    assert "14 stages, 1 to run" in run_cli(project, "plan").stdout
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
def test_a_cell_that_is_gone_runs_again_alone(clone, run_cli, git):
    """Its base policies are not published: they are made again for it, and its bytes are those of before."""
    shutil.rmtree(clone / "results" / "runs" / "bandit" / "pkpo")
    result = run_cli(clone, "run", "bandit")
    assert result.returncode == 0, result.stdout + result.stderr
    running = [line for line in result.stdout.splitlines() if line.startswith("Running stage")]
    assert "train@pkpo'" in running[0] and not [line for line in running if "@rloo" in line or "base" in line or "maze" in line]
    changed = git(clone, "status", "--porcelain", "results/runs").split()
    assert not [path for path in changed if path.endswith((".json", ".gz")) and not path.endswith("timing.json")], changed


BREAK = """

_whole = {name}

def _broken(self, *arguments):
    if __import__("sys").argv[1:] == {argv}:
        {fault}
    return _whole(self, *arguments)

{name} = _broken
"""


@pytest.mark.slow
def test_cells_that_fail_stop_no_other_and_are_in_the_report(project, run_cli):
    """One cell runs out of memory, the verifier of another raises."""
    for path, name, argv, fault in (
        ("bandit.py", "Bandit.reward", ["train", "bandit", "rloo"], "torch.zeros(10**15)"),
        ("prompts/countdown.py", "Source.verify", ["train", "countdown3", "pkpo"], "raise RecursionError('too <deep>')"),
    ):
        with open(project / "maxpo_bench" / "problems" / path, "a") as file:
            file.write(BREAK.format(name=name, argv=argv, fault=fault))
    result = run_cli(project, "run", "--all")
    assert result.returncode == 1, result.stdout + result.stderr
    runs = project / "results" / "runs"
    cells = {path.parent.relative_to(runs).as_posix(): json.loads(path.read_text()) for path in runs.glob("*/*/metrics.json")}
    failed = {name: cell["reason"] for name, cell in cells.items() if cell["status"] != "ok"}
    assert len(cells) == 6 and sorted(failed) == ["bandit/rloo", "countdown3/pkpo"], failed
    assert failed["bandit/rloo"] == "out of memory"
    raised = f"the verifier raised {cells['countdown3/pkpo']['verifier_errors']} times"
    assert cells["countdown3/pkpo"]["verifier_errors"] > 0 and raised in failed["countdown3/pkpo"]
    assert all((project / "results" / "variance" / f"{task}.csv").is_file() for task in ("bandit", "countdown3"))

    assert "4 ok, 2 failed" in result.stdout
    for name in ("report.md", "report.html"):
        report = (project / "results" / name).read_text()
        assert "out of memory" in report and f"countdown3 under pkpo: {raised}" in report, name
        assert "RecursionError: too &lt;deep&gt;" in report and "<deep>" not in report, name


def test_the_plan_hashes_folders_as_dvc_does(project, dvc):
    """plan judges without importing DVC; its folder hash must be DVC's own."""
    from maxpo_bench.pipeline.plan import _md5

    (project / "dvc.yaml").write_text("stages:\n  s:\n    cmd: 'true'\n    deps: [maxpo_bench/problems, tasks]\n    outs: []\n")
    assert dvc(project, "repro").returncode == 0
    lock = (project / "dvc.lock").read_text()
    for name in ("maxpo_bench/problems", "tasks"):
        assert _md5(project / name, {}) in lock
