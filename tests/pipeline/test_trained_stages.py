"""What trains beyond the default cells: stages of their own, which plain `dvc repro` does not run and whose cost is told apart."""

import pytest
import yaml

from maxpo_bench import estimators
from maxpo_bench.pipeline import dvc_files, plan
from maxpo_bench.settings import params, task_file

ROOT = task_file.root()
LISTS = {
    "task_studies": {"learning_rate": ["bandit"], "own_best": ["bandit"], "off_policy": ["bandit"]},
    "trained_estimators": {
        "estimators": ["grpo", "rloo"],
        "binary_only": ["psr"],
        "tasks": ["bandit"],
        "binary_tasks": ["countdown3"],
        "seeds": 2,
    },
}


@pytest.fixture
def extended(project):
    """The tiny project with studies that train and estimators besides the default ones."""
    path = project / "params.yaml"
    path.write_text(path.read_text() + yaml.safe_dump(LISTS))
    return project


def test_they_do_not_touch_the_default_stages(project):
    before = {name: dvc_files.path_of(project, name).read_text() for name in ("bandit", "countdown3")}
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + yaml.safe_dump(LISTS))
    written = dvc_files.write(project, ["bandit", "countdown3"])
    assert {path.parent.relative_to("results/pipeline").as_posix() for path in written} == {
        "bandit/studies", "bandit/estimators", "countdown3/estimators"
    }  # fmt: skip
    assert before == {name: dvc_files.path_of(project, name).read_text() for name in before}
    declared = params.read(project)
    assert params.trained_cells(declared) == [("bandit", "grpo"), ("countdown3", "psr")]  # rloo is a default one
    assert plan.estimator_stages(declared) == ["beside@bandit-grpo", "beside@countdown3-psr"]
    outs = {
        next(iter(out))
        for path in written
        for s in yaml.safe_load((project / path).read_text())["stages"].values()
        for out in s["outs"]
    }
    assert not [
        path for path in outs if path.startswith(("results/studies", "results/runs", "results/summary", "results/variance"))
    ]
    # a list that became shorter takes its files away
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("off_policy:\n  - bandit", "off_policy: []"))
    assert [path.parent.name for path in dvc_files.write(project, ["bandit", "countdown3"])] == ["studies"]


@pytest.mark.slow
def test_run_studies_and_estimators_and_what_plain_repro_leaves(extended, run_cli, dvc):
    first = run_cli(extended, "run", "--all")
    assert first.returncode == 0, first.stdout + first.stderr
    said = run_cli(extended, "plan").stdout
    assert "3 stages, 3 to run" in said and "trained@bandit-own_best" in said and "beside@bandit: 1 stages, 1 to run" in said
    for words, folder, stages in (
        ("--studies", "trained/own_best/bandit.csv", 3),
        ("--estimators", "estimators/bandit/grpo/metrics.json", 2),
    ):
        done = run_cli(extended, "run", words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{stages} stages, {stages} to run: " in done.stdout and (extended / "results" / folder).is_file()
        assert "Running stage 'report'" in done.stdout, "the report has not seen what is new"
        again = run_cli(extended, "run", words)
        assert "Running stage" not in again.stdout and f"{stages} stages, 0 to run" in again.stdout, again.stdout
    kept = {path.name for path in (extended / "results" / "estimators").glob("*/*/*.*")} - {"checkpoints.safetensors"}
    assert kept == {"metrics.json", "provenance.json", "timing.json"}
    assert "Running stage 'results" not in dvc(extended, "repro", "--dry", "--single-item", "report").stdout

    # another task's file leaves them fresh; this task's own makes them stale, and plain repro runs none of them
    countdown, bandit = (extended / "tasks" / f"{name}.yaml" for name in ("countdown3", "bandit"))
    countdown.write_text(countdown.read_text().replace("steps: 3", "steps: 2"))
    states = plan.all_states(extended, params.read(extended), plan.study_stages(params.read(extended)))
    assert {state for state, _ in states.values()} == {"up to date"}
    bandit.write_text(bandit.read_text().replace("steps: 6", "steps: 5"))
    states = plan.all_states(extended, params.read(extended), plan.study_stages(params.read(extended)))
    assert {state for state, _ in states.values()} == {"stale"}
    dry = dvc(extended, "repro", "--dry").stdout
    assert "results/pipeline/bandit/dvc.yaml:base" in dry and "trained-" not in dry and "/estimators/" not in dry


def test_every_listed_estimator_fits_its_tasks():
    declared = params.read(ROOT)
    for task, name in params.trained_cells(declared):
        found, task = estimators.get(name), task_file.load(ROOT / "tasks" / f"{task}.yaml")
        assert task.k in found.valid_k(task.group_size), name
        assert found.rewards != "binary" or "binary" in task.tags, f"{name} on {task.name}"
        assert (name in declared["trained_estimators"]["binary_only"]) == (found.rewards == "binary"), name
