"""The plan of the house: rooms side by side, imports one way. A newcomer finds things by it, so it is held."""

import ast
import re
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


def test_the_plan_names_every_room():
    """CONTRIBUTING's table of folders is the plan of the house."""
    plan = (PACKAGE.parent / "CONTRIBUTING.md").read_text().partition("How it is laid out")[2].partition("##")[0]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {room for room in rooms if f"{room}/`" not in plan} == set()


@pytest.mark.parametrize(
    "path, text",
    [
        ("estimators/grpo.py", "def grpo("),  # the GRPO formula
        ("problems/envs/maze.py", "class Maze("),
        ("measure/bootstrap.py", "def bounds("),
        ("cli.py", "SIGINT"),  # Ctrl-C
        ("report/verdicts.py", "contradicted"),
        ("training/optimisers.py", "warmup_steps"),
    ],
)
def test_what_a_newcomer_looks_for_lies_where_the_plan_says(path, text):
    files = [PACKAGE / path] if path.endswith(".py") else (PACKAGE / path).glob("*.py")
    assert any(text in file.read_text() for file in files)


def test_ci_runs_every_part_of_its_budget():
    root = PACKAGE.parent
    table = (root / "CONTRIBUTING.md").read_text().split("## What CI spends")[1].split("| together |")[0]
    minutes = [int(number) for number in re.findall(r"\| (\d+) \|$", table, flags=re.MULTILINE)]
    parts = re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE)
    lines = [line.split("#")[0].split("||")[0].strip() for line in (root / ".ci" / "run").read_text().splitlines()]
    assert ".ci/peers" in parts and [part for part in parts if part not in lines] == []
    assert sum(minutes) <= 90
