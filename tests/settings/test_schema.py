"""tasks/schema.json, by which editors complete task files: it is what the models give, and every task file names it."""

import json

import pytest

from maxpo_bench.cli import main
from maxpo_bench.settings.task import json_schema, kinds, model_of
from maxpo_bench.settings.task_file import names, root

FIRST_LINE = "# yaml-language-server: $schema=schema.json"


def test_the_committed_schema_is_what_the_models_give():
    """Otherwise: maxpo-bench schema."""
    assert json.loads((root() / "tasks" / "schema.json").read_text()) == json_schema()


def test_the_command_writes_it_into_the_project_one_stands_in(tmp_path, monkeypatch, capsys):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "params.yaml").write_text("tasks: []\n")
    monkeypatch.chdir(tmp_path / "tasks")
    assert main(["schema"]) == 0 and "schema.json" in capsys.readouterr().out
    assert json.loads((tmp_path / "tasks" / "schema.json").read_text()) == json_schema()


@pytest.mark.parametrize("name", names())
def test_every_task_file_names_the_schema(name):
    assert (root() / "tasks" / f"{name}.yaml").read_text().split("\n")[0] == FIRST_LINE


def test_every_key_of_every_kind_is_documented():
    schema = json_schema()
    assert {ref["$ref"].rpartition("/")[2] for ref in schema["anyOf"]} == {model_of(kind).__name__ for kind in kinds()} | {"Custom"}
    bare = [
        f"{name}.{key}"
        for name, model in schema["$defs"].items()
        for key, about in model["properties"].items()
        if not ("description" in about or "$ref" in about or key == "kind")
    ]
    assert bare == []
    assert all(model["additionalProperties"] is False for model in schema["$defs"].values())
