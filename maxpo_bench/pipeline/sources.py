"""Which files of the package a stage really runs on: what its result hangs on, for DVC and for checkpoints. Imports no torch.

Followed from import to import through the sources themselves, so there is no list to keep. A task's problem is chosen by its
kind, its environment by env.id, and an estimator by its name: those are the starting points. tests/pipeline/test_dependency_gate.py
holds the answer against what each stage is seen to execute.
"""

import ast
import functools
import hashlib
import re
from pathlib import Path

import maxpo_bench

PACKAGE = Path(maxpo_bench.__file__).parent
ENTRY_POINT = re.compile(r"maxpo_bench(\.\w+)+:\w+")  # as gymnasium's registry names a class
REGISTRY = "problems/envs/__init__.py"

# They start the work, deal it out and say how it ended, in words; no number of a result is made in them. So a mend there makes no
# stage stale. Whatever computes, seeds, orders or writes a number does not belong here.
CARRIERS = {
    "cli.py": "reads the command line and turns errors and signals into lines; commands/*.py say what runs",
    "errors.py": "what errors are called",
    "pipeline/jobs.py": "deals seeds out to workers, whose number changes no byte (tests/resilience/test_determinism.py)",
    "pipeline/sources.py": "says what to hash",
}


@functools.cache
def _tree(path):
    return ast.parse((PACKAGE / path).read_text(encoding="utf-8"))


def words_only(path):
    """Whether a file holds no code but its docstring and a version: a change of it must not rerun anything."""
    return all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) or ast.unparse(node).startswith("__version__ = ")
        for node in _tree(path).body
    )


@functools.cache
def _imports(path):
    """The files of the package that one of its files imports anywhere in it, packages' __init__.py included."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "maxpo_bench":
            for alias in node.names:
                found |= _files(f"{node.module}.{alias.name}") or _files(node.module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "maxpo_bench":
                    found |= _files(alias.name)
    return frozenset(found)


def _entry_points(tree):
    """The files of the package that classes named as texts ("maxpo_bench.module:Class") in a piece of code are in."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {path for text in texts if ENTRY_POINT.fullmatch(text) for path in _files(text.partition(":")[0])}


def _of_environment(section):
    """The files of the package behind a task's `env`: its wrappers, and the class that the registry names for its id."""
    found = _entry_points(ast.parse(repr(section)))
    module, _, env_id = section["id"].rpartition(":")
    for node in ast.walk(_tree(REGISTRY)):
        if isinstance(node, ast.Call) and any(isinstance(a, ast.Constant) and a.value == env_id for a in node.args):
            found |= _entry_points(node)
    return sorted(found | (_files(module) if module.startswith("maxpo_bench") else set()))


def _files(module):
    """Files that importing a dotted name runs, relative to the package; empty when it is no module of the package."""
    parts = module.split(".")[1:]
    target = "/".join(parts)
    if (PACKAGE / target).is_dir():
        last = f"{target}/__init__.py" if parts else "__init__.py"
    elif (PACKAGE / f"{target}.py").is_file():
        last = f"{target}.py"
    else:
        return set()
    return {"/".join([*parts[:n], "__init__.py"]) for n in range(len(parts))} | {last}


def closure(*entries):
    """Sorted paths, relative to the package, of everything that the entries (paths) import, and theirs in turn; no CARRIERS."""
    modules = ["maxpo_bench." + entry.removesuffix(".py").replace("/", ".") for entry in entries]
    found, todo = set(), [path for module in modules for path in _files(module)]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imports(path)
    return sorted(path for path in found if path not in CARRIERS and not words_only(path))


def of_kind(task):
    """The entries of a task's kind: the files of its problem and its keys, or what a kind of one's own imports from the package."""
    kind = task.kind
    if ".py:" in kind:
        own = task.path.parent / kind.split(":")[0]  # it may make any environment
        return ["problems/__init__.py", *sorted(_imports(own) | _entry_points(_tree(own)) | _entry_points(_tree(REGISTRY)))]
    if (PACKAGE / "problems" / "prompts" / f"{kind}.py").is_file():
        return [f"settings/kinds/{kind}.py", "problems/language.py", f"problems/prompts/{kind}.py"]
    environment = _of_environment(task.section("env")) if task.section("env") else []
    return [f"settings/kinds/{kind}.py", f"problems/{kind}.py", *environment]


def of_base(task):
    """What a task's base stage runs on."""
    return closure("commands/base.py", "pipeline/base.py", *of_kind(task))


def of_cell(task, estimator=None):
    """What a cell runs on; of the estimators, its own file and what that imports (None: what is common to all)."""
    own = [f"estimators/{estimator}.py"] if estimator else []
    return closure("commands/train.py", "pipeline/cell.py", *own, *of_kind(task))


def of_variance(task):
    """What a variance stage runs on: every estimator."""
    return closure("commands/variance.py", "pipeline/variance.py", *_estimators(), *of_kind(task))


def of_trained(task, study):
    """What a study that trains runs on, on a task: every estimator, of which each training hangs on its own alone."""
    return closure("commands/trained.py", "pipeline/trained.py", f"studies/{study}.py", *_estimators(), *of_kind(task))


def _estimators():
    return [f"estimators/{path.name}" for path in sorted((PACKAGE / "estimators").glob("*.py"))]


def digest(paths):
    """One sha256 of these files of the package."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.encode() + b"\0" + (PACKAGE / path).read_bytes())
    return found.hexdigest()
