"""The plan of the house: rooms side by side, imports one way. A newcomer finds things by it, so it is held."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "maxpo_bench"
# Each room may import those before it, at any place of a file. Whoever needs it the other way round is in the wrong room.
ORDER = (
    "errors", "machine", "estimators", "settings", "training", "measure", "check", "adapters", "policies", "problems", "studies",
    "pipeline", "cluster", "report", "commands", "cli",
)  # fmt: skip


def room(module):
    return module.split(".")[1] if "." in module else ""


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "maxpo_bench":
            yield from ([node.module] if "." in node.module else [f"maxpo_bench.{alias.name}" for alias in node.names])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("maxpo_bench."))


def sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text())


def test_every_room_has_a_place_in_the_order():
    entries = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    rooms = {path.stem for path in entries}
    assert rooms - {"__init__"} == set(ORDER)


def test_imports_run_one_way():
    place = {name: number for number, name in enumerate(ORDER)}
    wrong = []
    for path, tree in sources():
        own = path.parts[0].removesuffix(".py")
        wrong += [
            f"{path} imports {name}"
            for name in imported(tree)
            if own != "__init__" and room(name) != own and place[room(name)] > place[own]
        ]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in ORDER if (PACKAGE / name).is_dir()])
def test_a_room_says_what_belongs_in_it(name):
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert text and len(text.splitlines()[0]) > 40
