"""`maxpo-bench repro` computes beside what is published and says whether it is the same; `run` computes what is published."""

import json
import shutil

import pytest


@pytest.mark.slow
def test_repro_says_the_same_bytes_and_touches_nothing(clone, run_cli, git):
    done = run_cli(clone, "repro", "bandit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "**The same bytes.**" in done.stdout, done.stdout
    assert git(clone, "status", "--porcelain", "--untracked-files=all") == ""
    made = clone / ".repro" / "results"
    for cell in ("rloo", "pkpo", "maxpo"):
        path = f"runs/bandit/{cell}/metrics.json"
        assert (made / path).read_bytes() == (clone / "results" / path).read_bytes()
    assert not (made / "runs" / "maze").exists() and (made / "report.html").is_file()

    # What is done is not done again.
    stamps = {path: path.stat().st_mtime_ns for path in [*made.glob("runs/**/*"), *made.glob("*/bandit*")] if path.is_file()}
    again = run_cli(clone, "repro", "bandit")
    assert again.returncode == 0 and "**The same bytes.**" in again.stdout
    assert not [line for line in again.stdout.splitlines() if line.startswith("[")], again.stdout
    assert len(stamps) > 15 and {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.slow
def test_repro_finds_a_planted_fault(clone, run_cli, git):
    """A wrong sign in the loss. Afterwards the code is right again: every cell is computed anew, and nothing is left of it."""
    path = clone / "maxpo_bench" / "training" / "loop.py"
    text = path.read_text()
    path.write_text(text.replace("return -advantages * log_probs", "return advantages * log_probs"))
    assert path.read_text() != text
    done = run_cli(clone, "repro", "bandit")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "**Differs: worse.**" in done.stdout, done.stdout
    assert git(clone, "status", "--porcelain", "results") == ""
    path.write_text(text)
    again = run_cli(clone, "repro", "bandit")
    assert again.returncode == 0 and "**The same bytes.**" in again.stdout, again.stdout + again.stderr


@pytest.mark.slow
def test_run_computes_into_results(clone, run_cli, git):
    task = clone / "tasks" / "bandit.yaml"
    task.write_text(task.read_text().replace("steps: 40", "steps: 44"))
    done = run_cli(clone, "run", "bandit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().splitlines()[-1].startswith("Report: ")
    about = json.loads((clone / "results" / "runs" / "bandit" / "maxpo" / "provenance.json").read_text())
    assert about["seeds"] == list(range(8))
    changed = git(clone, "status", "--porcelain", "--untracked-files=all")
    assert "results/runs/bandit/maxpo/metrics.json" in changed and "runs/maze" not in changed
    assert not (clone / ".repro").exists()
    assert "14 stages, 0 to run" in run_cli(clone, "plan").stdout


@pytest.mark.parametrize(
    "words, said",
    [
        (("repro", "bandti"), "'bandti' is not in params.yaml, did you mean 'bandit'?"),
        (("run", "bandti"), "'bandti' is not in params.yaml, did you mean 'bandit'?"),
        (("repro", "spare"), "add it to params.yaml"),
        (("run",), "--all"),
        (("run", "bandit", "--all"), "--all"),
        (("repro", "../bandit"), "not in params.yaml"),
    ],
)
def test_a_wrong_name_is_one_line(words, said, project, run_cli):
    shutil.copy(project / "tasks" / "bandit.yaml", project / "tasks" / "spare.yaml")
    done = run_cli(project, *words)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr, done.stderr
    assert not (project / ".repro").exists() and not (project / "results" / "runs").exists()


@pytest.mark.parametrize("words", [("repro", "bandit"), ("run", "bandit")])
def test_without_git_one_line_and_no_report(words, project, run_cli):
    shutil.rmtree(project / ".git")
    done = run_cli(project, *words, GIT_CEILING_DIRECTORIES=str(project.parent))
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert len(done.stderr.splitlines()) == 1 and "not a git repository" in done.stderr, done.stderr
    assert not (project / ".repro").exists()


def test_plan_needs_no_git(project, run_cli):
    shutil.rmtree(project / ".git")
    done = run_cli(project, "plan", GIT_CEILING_DIRECTORIES=str(project.parent))
    assert done.returncode == 0 and "14 stages, 14 to run" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "text, words", [(None, "not found"), ("stages: []\n", "has no stages"), ("stages: {\n", "line 2: not valid")]
)
def test_plan_refuses_a_root_file_that_dvc_would(text, words, project, run_cli):
    path = project / "dvc.yaml"
    path.unlink()
    if text:
        path.write_text(text)
    done = run_cli(project, "plan")
    assert done.returncode == 2 and f"dvc.yaml: {words}" in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("command", ["plan", "repro", "run"])
@pytest.mark.parametrize("name", ["my-task", "my.task"])
def test_plan_refuses_a_name_as_repro_does(name, command, project, run_cli):
    shutil.copy(project / "tasks" / "bandit.yaml", project / "tasks" / f"{name}.yaml")
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("[bandit,", f"[bandit, {name},"))
    done = run_cli(project, command, *([] if command == "plan" else [name]))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert name in done.stderr and "letters, digits and _ only" in done.stderr


@pytest.mark.parametrize(
    "text, said",
    [
        ("tasks: [bandit]\n{whole}", "written twice"),
        ("{whole}estimators: [rloo]\n", "written twice"),
        ("tasks: [bandit, bandit]\nestimators: [maxpo]\nstudies: [centring]\nvariance_policy: maxpo\n", "listed twice"),
        ("- tasks\n", "params.yaml: must be a mapping"),
        ("tasks: [bandit\n", "not valid YAML"),
    ],
)
def test_a_damaged_params_file_is_one_line(text, said, project, run_cli):
    path = project / "params.yaml"
    path.write_text(text.format(whole=path.read_text()))
    for words in (("plan",), ("repro", "bandit"), ("run", "bandit"), ("rerecord",)):
        done = run_cli(project, *words)
        assert done.returncode == 2 and done.stdout == "", (words, done.stdout)
        assert len(done.stderr.splitlines()) == 1 and "params.yaml" in done.stderr and said in done.stderr, done.stderr


@pytest.mark.parametrize(
    "data",
    [
        b"stages:\n",
        b"stages: {}\nstages: {}\n",
        b"{",
        b"\xff\xfe\x00",
        b"",
        b"<<<<<<< HEAD\nschema: '2.0'\n",
        b"schema: '2.0'\nstages:\n  base: 3\n",
        b"schema: '2.0'\nstages:\n  base:\n    deps: [3]\n",
        b"schema: '2.0'\nstages:\n  base:\n    params: [3]\n",
        b"schema: '2.0'\nstages:\n  base:\n    params: {tasks/bandit.yaml: 3}\n",
        b"schema: '2.0'\nstages:\n  base:\n    outs: [{md5: 3}]\n",
    ],
)
@pytest.mark.parametrize("place", ["dvc.lock", "results/pipeline/bandit/dvc.lock"])
def test_a_damaged_lock_is_one_line(place, data, project, run_cli):
    (project / place).write_bytes(data)
    done = run_cli(project, "plan")
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert len(done.stderr.splitlines()) == 1 and place in done.stderr and "git checkout" in done.stderr, done.stderr


@pytest.mark.parametrize("text, message", [("", "method: missing"), ("method: maxpo\nmethod: rloo\n", "'method' is written twice")])
def test_claims_that_the_report_would_refuse_are_refused_by_plan(text, message, project, run_cli):
    (project / "claims.yaml").write_text(text)
    done = run_cli(project, "plan")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and message in done.stderr, done.stderr
