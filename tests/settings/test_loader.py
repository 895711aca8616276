"""The one loader of YAML: what it takes, and that what it refuses is one line with its place."""

import pytest

from maxpo_bench.cli import main
from maxpo_bench.errors import InputError
from maxpo_bench.settings import loader


def test_what_a_file_may_hold(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 3e-3\nb: [1, -2, 0, 0.5, .inf, ü]\nc: {d: true, e: null}\nf: '010'\ng: 123456789012345\n", encoding="utf-8")
    assert loader.read(path) == {
        "a": 3e-3, "b": [1, -2, 0, 0.5, float("inf"), "ü"], "c": {"d": True, "e": None}, "f": "010", "g": 123456789012345
    }  # fmt: skip
    path.write_text("# nothing\n")
    assert loader.read(path) == {}


@pytest.mark.parametrize(
    "data, words",
    [
        (b"a: 1\nb: caf\xe9\n", ["line 2", "0xe9", "UTF-8"]),
        ("a: 1\n".encode("utf-16"), ["line 1", "UTF-8"]),
        (b"a: 1\nb: 2\na: 3\n", ["line 3", "'a' is written twice"]),
        (b"a: {b: 1, b: 2}\n", ["line 1", "'b' is written twice"]),
        (b"a: " + b"9" * 400, ["line 1", "400 digits", "at most 15"]),
        (b"a: -" + b"9" * 5000, ["line 1", "5000 digits"]),
        (b"a: [1, 1234567890123456]", ["16 digits"]),
        (b"a: 010", ["line 1", "010", "decimal"]),
        (b"a: 1_000", ["1_000", "decimal"]),
        (b"a: 0x10", ["0x10", "decimal"]),
        (b"a: 12:30", ["12:30", "quotes"]),
        (b"a: 1_0.5", ["1_0.5", "decimal"]),
        (b"a: 2026-02-03", ["a: '2026-02-03'", "a date", "quotes"]),
        (b"a: {b: [x, 2026-02-03]}", ["a.b[1]: '2026-02-03'", "a date"]),
        (b"a: !!binary aGVsbG8=", ["a: ", "binary"]),
        (b"a: !!set {b}", ["a: ", "a set"]),
        (b"1: a", ["line 1", "'1' is not a word"]),
        (b"- a\n- b\n", ["a mapping of keys to values", "list"]),
        (b"a: [1\nb: 2", ["not valid YAML", "line 2"]),
        (b"a: \x00", ["not valid YAML"]),
        (b"[" * 5000, ["nested too deeply"]),
    ],
)
def test_what_is_refused_is_one_line(tmp_path, data, words):
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        loader.read(path, "folder/x.yaml")
    message = str(caught.value)
    assert message.startswith("folder/x.yaml: ") and "\n" not in message and len(message) < 300
    assert all(word in message for word in words), message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="none.yaml: not found"):
        loader.read(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        loader.read(tmp_path)


@pytest.mark.parametrize("name", ["params.yaml", "claims.yaml", "tasks/bandit.yaml"])
@pytest.mark.parametrize("data", [b"k: [a]\nk: [b]\n", b"tasks: \xff\n", b"tasks: [", b"steps: " + b"9" * 400, b"- 1\n", b""])
@pytest.mark.parametrize("command", ["plan", "report", "repro"])
def test_damaged_files_of_a_project_are_one_line(project, monkeypatch, capsys, command, name, data):
    if command == "plan" and name == "claims.yaml" or command == "report" and name.startswith("tasks"):
        pytest.skip("plan reads no claims, and a broken task is a note of the report")
    monkeypatch.chdir(project)
    (project / name).write_bytes(data)
    if command == "repro" and name == "claims.yaml":  # copied, and read by the report alone
        pytest.skip("the report's own")
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and name in error and "Traceback" not in error
