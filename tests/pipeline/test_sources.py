"""What a stage depends on is what its kind imports: an edit of language code reruns no gym cell, nor the other way round."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from maxpo_bench.pipeline import dvc_files, sources
from maxpo_bench.settings import params, task_file

ROOT = Path(__file__).resolve().parents[2]
GYM, TABLES, LANGUAGE = ("cartpole", "cliffwalking"), ("maze", "frozenlake"), ("countdown3", "text_maze", "subset_sum")
SPEECH = (
    "settings/language",
    "policies/causal_lm",
    "policies/reading",
    "policies/self_check",
    "problems/language",
    "problems/prompts",
)
ENVIRONMENTS = ("problems/envs", "problems/gymnasium", "problems/tabular", "settings/environment")
CHILD = """
import json, sys
from maxpo_bench.estimators import get
from maxpo_bench.pipeline import cell, sources
from maxpo_bench.settings import task_file
found = {}
for name in task_file.names():
    task = task_file.load(name)
    found[name] = [sources.digest(sources.of_base(task)), sources.digest(sources.of_variance(task))]
    found[name] += [cell.resume_key(task, get(estimator), "results") for estimator in ("maxpo", "pkpo")]
print(json.dumps(found))
"""


def declared():
    return params.read(ROOT)["tasks"]


def long():
    return params.read(ROOT)["long_tasks"]


def of(name):
    """The closures of a task's base, cell and variance stage."""
    task = task_file.load(ROOT / "tasks" / f"{name}.yaml")
    return sources.of_base(task), sources.of_cell(task, "maxpo"), sources.of_variance(task)


def test_the_committed_files_are_what_is_written():
    for name in [*declared(), *long()]:
        texts = dvc_files.texts_of(task_file.load(ROOT / "tasks" / f"{name}.yaml"), params.read(ROOT))
        for part, text in texts.items():
            path = dvc_files.path_of(ROOT, name, part)
            assert (path.read_text() if path.is_file() else "") == text, f"{path} is old: run `maxpo-bench plan` and commit it"


def test_no_task_that_is_gone_left_a_folder():
    assert {path.name for path in (ROOT / "results" / "pipeline").iterdir()} == {*declared(), *long()}


def test_every_dependency_exists():
    for name in declared():
        stages = yaml.safe_load(dvc_files.path_of(ROOT, name).read_text())["stages"]
        paths = {path for stage in stages.values() for path in stage["deps"] if path.startswith("maxpo_bench") and "$" not in path}
        assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("name", GYM + TABLES + ("bandit", "local_optimum"))
def test_no_language_in_what_a_gym_or_bandit_stage_runs_on(name):
    for closure in of(name):
        assert not [path for path in closure if path.startswith(SPEECH)]


@pytest.mark.parametrize("name", LANGUAGE)
def test_no_gym_in_what_a_language_stage_runs_on(name):
    for closure in of(name):
        assert "policies/causal_lm.py" in closure
        assert not [path for path in closure if path.startswith((*ENVIRONMENTS, "problems/bandit"))]


@pytest.mark.parametrize("name", ["bandit", "local_optimum"])
def test_no_environment_in_what_a_bandit_runs_on(name):
    for closure in of(name):
        assert f"problems/{task_file.load(ROOT / 'tasks' / f'{name}.yaml').kind}.py" in closure
        assert not [path for path in closure if path.startswith(ENVIRONMENTS)]


@pytest.mark.parametrize("name", declared())
def test_of_the_kinds_keys_a_stage_depends_on_its_own_alone(name):
    kind = task_file.load(ROOT / "tasks" / f"{name}.yaml").kind
    for closure in of(name):
        assert [path for path in closure if path.startswith("settings/kinds/")] == [f"settings/kinds/{kind}.py"]


def test_of_the_environments_a_task_depends_on_its_own_alone(tmp_path):
    assert all("problems/envs/maze.py" in closure for closure in of("maze"))
    assert not any("problems/envs/maze.py" in closure for name in (*GYM, "frozenlake") for closure in of(name))
    text = (ROOT / "tasks" / "cartpole.yaml").read_text()
    path = tmp_path / "wrapped.yaml"
    path.write_text(text.replace("id: CartPole-v1", "id: CartPole-v1\n  wrappers: ['maxpo_bench.problems.envs.maze:Maze']"))
    assert path.read_text() != text and "problems/envs/maze.py" in sources.of_base(task_file.load(path))


def test_a_cell_runs_on_its_own_estimator_alone():
    cell = of("bandit")[1]
    assert "estimators/maxpo.py" in cell and not {"estimators/rloo.py", "estimators/tailrl.py"} & set(cell)


def keys(folder):
    """{task: [digest of its base, of its variance stage, resume keys of two cells]} by the folder's own copy of the code."""
    environment = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_an_edit_of_one_kind_drops_no_checkpoint_of_another(project):
    for name in (*GYM, "maze", "local_optimum"):
        (project / "tasks" / f"{name}.yaml").write_bytes((ROOT / "tasks" / f"{name}.yaml").read_bytes())
    before = keys(project)
    assert set(before) == {"bandit", "countdown3", "cartpole", "cliffwalking", "maze", "local_optimum"}
    for edited, concerned in (
        ("policies/causal_lm.py", {"countdown3"}),
        ("problems/prompts/countdown.py", {"countdown3"}),
        ("settings/language.py", {"countdown3"}),
        ("settings/kinds/countdown.py", {"countdown3"}),
        ("settings/kinds/text_maze.py", set()),
        ("settings/kinds/gymnasium.py", {"cartpole"}),
        ("settings/environment.py", {"maze", "cartpole", "cliffwalking"}),
        ("problems/envs/maze.py", {"maze"}),
        ("cli.py", set()),
        ("problems/gymnasium.py", {"cartpole"}),
        ("problems/bandit.py", {"bandit", "local_optimum"}),
        ("report/tables.py", set()),
        ("training/loop.py", set(before)),
    ):
        path = project / "maxpo_bench" / edited
        text = path.read_text()
        path.write_text(text + "# a remark\n")
        now = keys(project)
        path.write_text(text)
        assert {name for name in before if now[name] != before[name]} == concerned, edited
        assert all(now[name][i] != before[name][i] for name in concerned for i in range(4)), edited
