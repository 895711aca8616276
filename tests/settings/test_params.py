"""params.yaml: what is legal, and that `plan` refuses what no later command takes."""

import pytest
import yaml

from maxpo_bench.cli import main
from maxpo_bench.errors import InputError
from maxpo_bench.pipeline.plan import declared
from maxpo_bench.settings import params
from maxpo_bench.settings.task_file import root

GOOD = {"tasks": ["bandit"], "estimators": ["rloo", "maxpo"], "studies": ["centring"], "variance_policy": "maxpo"}


def write(folder, values):
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_the_project_s_own_file_and_its_defaults(tmp_path):
    written = yaml.safe_load((root() / "params.yaml").read_text())
    assert {key: declared()[key] for key in written} == written
    found = params.read(write(tmp_path, GOOD))
    more = {"estimators": [], "binary_only": [], "tasks": [], "binary_tasks": [], "seeds": 100}
    rest = {"studies_of_tasks": [], "task_studies": {}, "trained_estimators": more, "long_tasks": [], "long_estimators": []}
    assert found == {**GOOD, **rest}
    assert params.read(write(tmp_path, found)) == found  # as `repro` writes it into its own project


@pytest.mark.parametrize(
    "change, words",
    [
        ({"task": ["a"]}, ["task: unknown key", "did you mean 'tasks'"]),
        ({"tasks": "bandit"}, ["tasks: must be a list", "'bandit'"]),
        ({"tasks": None}, ["tasks: must be a list", "None"]),
        ({"tasks": [1]}, ["tasks[0]: must be a text", "got 1"]),
        ({"tasks": ["my-task"]}, ["tasks: 'my-task'", "letters, digits and _ only"]),
        ({"tasks": ["my.task"]}, ["tasks: 'my.task'", "letters, digits and _ only"]),
        ({"tasks": ["../bandit"]}, ["tasks: '../bandit'", "letters, digits and _ only"]),
        ({"tasks": ["ä"]}, ["tasks: 'ä'", "letters, digits and _ only"]),
        ({"tasks": ["bandit", "bandit"]}, ["tasks: 'bandit' is listed twice"]),
        ({"variance_policy": "grpo"}, ["variance_policy: must be one of the estimators", "'grpo'"]),
        ({"variance_policy": ["maxpo"]}, ["variance_policy: must be a text"]),
        ({"long_tasks": ["bandit"]}, ["long_estimators: must have at least one name"]),
        ({"long_tasks": ["a b"]}, ["long_tasks: 'a b'", "letters"]),
        ({"trained_estimators": ["a"]}, ["trained_estimators: must be a section with keys estimators, binary_only"]),
        ({"task_studies": ["a"]}, ["task_studies: must be a mapping"]),
        ({"task_studies": {"own_best": "maze"}}, ["task_studies.own_best: must be a list"]),
        ({"task_studies": {"own_best": ["a", "a"]}}, ["task_studies", "'a' is listed twice"]),
        ({"trained_estimators": {"tasks": ["a", "a"]}}, ["trained_estimators.tasks: 'a' is listed twice"]),
        ({"trained_estimators": {"task": ["a"]}}, ["trained_estimators.task: unknown key", "'trained_estimators.tasks'"]),
    ],
)
def test_bad_lists_are_one_line(tmp_path, change, words):
    with pytest.raises(InputError) as caught:
        params.read(write(tmp_path, {**GOOD, **change}))
    message = str(caught.value)
    assert message.startswith("params.yaml: ") and "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize("key", GOOD)
def test_a_key_that_is_missing(tmp_path, key):
    with pytest.raises(InputError, match=f"params.yaml: {key}: missing"):
        params.read(write(tmp_path, {name: value for name, value in GOOD.items() if name != key}))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"tasks": ["bandti"]}, ["tasks: unknown name 'bandti'", "did you mean 'bandit'"]),
        ({"tasks": []}, ["tasks: must be a list with at least one name"]),
        ({"studies": ["centrin"]}, ["studies: unknown name 'centrin'", "did you mean 'centring'"]),
        ({"trained_estimators": {"estimators": ["grpoo"]}}, ["trained_estimators.estimators: unknown name 'grpoo'", "'grpo'"]),
        ({"long_tasks": ["bandti"], "long_estimators": ["rloo"]}, ["long_tasks: unknown name 'bandti'", "'bandit'"]),
        ({"studies_of_tasks": ["powre"]}, ["studies_of_tasks: unknown name 'powre'", "'power'"]),
        ({"task_studies": {"own_bet": ["bandit"]}}, ["task_studies: unknown name 'own_bet'", "'own_best'"]),
        ({"task_studies": {"own_best": ["bandti"]}}, ["task_studies.own_best: unknown name 'bandti'", "'bandit'"]),
        ({"task_studies": {"own_best": ["countdown3"]}}, ["own_best: task 'countdown3' is not among tasks"]),
    ],
)
def test_names_of_nothing_are_refused_by_plan(project, change, words):
    with pytest.raises(InputError) as caught:
        declared(write(project, {**GOOD, **change}))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("name", ["my-task", "my.task", "x" * 101])
def test_plan_refuses_the_task_names_that_repro_refuses(project, monkeypatch, capsys, name):
    (project / "tasks" / "bandit.yaml").rename(project / "tasks" / f"{name}.yaml")
    write(project, {**GOOD, "tasks": [name]})
    monkeypatch.chdir(project)
    said = []
    for command in (["plan"], ["repro", name], ["run", name]):
        assert main(command) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] == said[2] and "letters, digits and _ only" in said[0] and said[0].count("\n") == 1
