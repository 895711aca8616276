"""What was made from an older version of a task, a study or a policy is shown as stale and not used."""

import hashlib
import shutil

import pandas as pd
import pytest
import synthetic
import yaml

from maxpo_bench.estimators import shared_sha256
from maxpo_bench.report import build, claims, load

TASKS, ESTIMATORS = ("maze", "frozenlake"), ("pkpo", "maxpo")


@pytest.fixture
def project(tmp_path):
    """A project whose dvc.lock agrees with everything in it."""
    root = synthetic.write(tmp_path, TASKS, ESTIMATORS)
    (root / "maxpo_bench" / "studies").mkdir(parents=True)
    (root / "maxpo_bench" / "studies" / "cost.py").write_text("def run(): pass\n")
    lock(root)
    return root


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def lock(root, checkpoints="one.dir", trained="one.dir"):
    """dvc.lock as DVC would write it for the files that are there."""
    stages = {}
    for task in TASKS:
        kept = f"results/runs/{task}/maxpo/checkpoints"
        out, text = f"results/variance/{task}.csv", (root / "tasks" / f"{task}.yaml").read_text()
        stages[f"variance@{task}"] = {
            "params": {f"tasks/{task}.yaml": yaml.safe_load(text)},
            "deps": [{"path": kept, "md5": checkpoints}],
            "outs": [{"path": out, "md5": md5(root / out)}],
        }
        stages[f"train@{task}-maxpo"] = {"outs": [{"path": kept, "md5": trained}]}
    study, source = "results/studies/cost.csv", "maxpo_bench/studies/cost.py"
    stages["study@cost"] = {
        "deps": [{"path": source, "md5": md5(root / source)}],
        "outs": [{"path": study, "md5": md5(root / study)}],
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def rewrite(root, task, old, new):
    """Change a task's file as if its cells had been run again since, but not its variance."""
    path = root / "tasks" / f"{task}.yaml"
    path.write_text(path.read_text().replace(old, new))
    sha256 = load.load_task(str(path)).sha256
    for estimator in ESTIMATORS:
        synthetic.edit(root, task, estimator, lambda m: m.update(task_sha256=sha256))


def test_nothing_is_stale_when_the_lock_agrees(project):
    results = load.read(project)
    assert results.stale == {} and set(results.variance["task"]) == set(TASKS) and "cost" in results.studies


@pytest.mark.parametrize("broken", ["", "stages: [", "stages: 3", None])
def test_without_a_readable_lock_results_are_used(project, broken):
    if broken is None:
        (project / "dvc.lock").unlink()
    else:
        (project / "dvc.lock").write_text(broken)
    assert load.read(project).stale == {}


def test_variance_of_an_older_task_is_stale(project):
    rewrite(project, "maze", "groups: 64", "groups: 32")
    results = load.read(project)
    assert results.cells["maze", "maxpo"].usable
    assert results.stale == {"results/variance/maze.csv": "tasks/maze.yaml changed since"}
    assert set(results.variance["task"]) == {"frozenlake"}
    found = next(c for c in claims.judge(results) if c.id == "variance_by_task")
    assert found.verdict != "supported"
    assert any(f.where == "maze" and "tasks/maze.yaml changed since" in f.reason for f in found.findings)
    assert build(project) == 0
    text = (project / "results" / "report.md").read_text()
    assert "Stale rows, not used, in 1 variance or study table." in text.split("## The answer")[0]
    assert "| results/variance/maze.csv | stale | tasks/maze.yaml changed since; not used |" in text
    assert "maze (tasks/maze.yaml changed since)" in text


def test_other_sizes_are_seen_without_a_lock(project):
    (project / "dvc.lock").unlink()
    rewrite(project, "maze", "group_size: 16", "group_size: 8")
    assert load.read(project).stale == {"results/variance/maze.csv": "tasks/maze.yaml changed since (group_size was 16)"}


def test_variance_of_a_policy_that_was_trained_again_is_stale(project):
    lock(project, trained="two.dir")
    assert load.read(project).stale["results/variance/maze.csv"] == "maxpo was trained again since"


def test_variance_of_a_stale_policy_is_stale(project):
    """Also a task's own code, which the lock does not hold."""
    synthetic.edit(project, "maze", "maxpo", lambda m: m.update(task_sha256="of older code"))
    assert "tasks/maze.yaml changed" in load.read(project).stale["results/variance/maze.csv"]


def test_the_lock_speaks_only_of_the_bytes_it_saw(project):
    rewrite(project, "maze", "groups: 64", "groups: 32")
    path = project / "results" / "variance" / "maze.csv"  # computed again by hand, outside DVC
    pd.read_csv(path).assign(num_groups=99).to_csv(path, index=False)
    assert load.read(project).stale == {}


def test_study_of_older_code_is_stale(project):
    (project / "maxpo_bench" / "studies" / "cost.py").write_text("def run(): return 1\n")
    results = load.read(project)
    assert results.stale == {"results/studies/cost.csv": "maxpo_bench/studies/cost.py changed since"}
    assert "cost" not in results.studies
    found = next(c for c in claims.judge(results) if c.id == "time")
    assert found.verdict == "inconclusive" and "cost.py changed since" in found.reason


def test_a_cell_that_keeps_no_policies_is_not_called_committed(project):
    """A policy too large to keep leaves its checkpoints folder empty; without a folder the cell came with the commit."""
    folder = project / "results" / "runs" / "maze" / "maxpo" / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    assert load.read(project).cells["maze", "maxpo"].status == "committed"
    folder.mkdir()
    assert load.read(project).cells["maze", "maxpo"].status == "ok"


def stamped(root, task, edited=()):
    """The variance table as the stage writes it: with the task's hash and each estimator's, of older code where edited."""
    path, declared = root / "results" / "variance" / f"{task}.csv", load.declarations(root)
    table = pd.read_csv(path)
    sha256 = load.load_task(str(root / "tasks" / f"{task}.yaml")).sha256
    sources = ["older" if e in edited else declared[e]["sha256"] for e in table["estimator"]]
    table.assign(task_sha256=sha256, source_sha256=sources).to_csv(path, index=False)


def test_rows_that_the_present_estimators_gave_are_used(project):
    stamped(project, "maze")
    assert load.read(project).stale == {}


def test_rows_of_an_edited_estimator_are_stale_and_not_used(project):
    stamped(project, "maze", edited=["pkpo"])
    results = load.read(project)
    assert results.stale == {"results/variance/maze.csv: pkpo": "estimators/pkpo.py changed since"}
    seen = results.variance.groupby("task")["estimator"].agg(set)
    assert seen["maze"] == {"maxpo"} and seen["frozenlake"] == {"maxpo", "pkpo"}
    findings = next(c for c in claims.judge(results) if c.id == "variance_by_task").findings
    assert [f.reason for f in findings if f.where == "maze"] == ["stale: estimators/pkpo.py changed since"]
    assert build(project) == 0
    text = (project / "results" / "report.md").read_text()
    assert "Stale rows, not used, in 1 variance or study table." in text.split("## The answer")[0]
    assert "| results/variance/maze.csv: pkpo | stale | estimators/pkpo.py changed since; not used |" in text


def test_a_claim_is_not_supported_by_what_is_left_when_rows_are_stale(project):
    """Also when the only alternative's rows are stale on every task."""
    for task in TASKS:
        stamped(project, task, edited=["pkpo"])
    found = next(c for c in claims.judge(load.read(project)) if c.id == "variance_by_task")
    assert found.verdict == "inconclusive" and {f.where for f in found.findings} == set(TASKS)


def test_no_ratio_is_used_when_maxpo_was_edited(project):
    stamped(project, "maze", edited=["maxpo"])
    results = load.read(project)
    assert results.stale == {"results/variance/maze.csv": "estimators/maxpo.py changed since"}
    assert set(results.variance["task"]) == {"frozenlake"}


def test_a_variance_table_of_an_older_task_is_seen_without_a_lock(project):
    stamped(project, "maze")
    (project / "dvc.lock").unlink()
    rewrite(project, "maze", "groups: 64", "groups: 32")
    assert load.read(project).stale == {"results/variance/maze.csv": "tasks/maze.yaml changed since"}


def test_variance_of_an_older_shared_source_is_stale(project):
    """contract.py and order_statistics.py are in every estimator's advantages."""
    path = project / "results" / "variance" / "maze.csv"
    columns = {f"{file.removesuffix('.py')}_sha256": digest for file, digest in shared_sha256().items()}
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)
    lock(project)
    assert load.read(project).stale == {}
    pd.read_csv(path).assign(contract_sha256="older").to_csv(path, index=False)
    lock(project)
    assert load.read(project).stale == {"results/variance/maze.csv": "estimators/contract.py changed since"}
