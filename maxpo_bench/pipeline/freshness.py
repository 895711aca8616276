"""Whether a result was made from the present task and code, by what dvc.lock recorded of the run. Imports no torch."""

import hashlib
from pathlib import Path

import yaml

from maxpo_bench.estimators import shared_sha256
from maxpo_bench.settings import task_file


def computed_here(folder):
    """Whether this machine computed a cell: its checkpoints folder, which is never committed, is there. It is empty where
    the policies are too large to keep."""
    return (Path(folder) / "checkpoints").is_dir()


def locked(root):
    """{stage: {"params": {file: values}, "deps": {path: md5}, "outs": {path: md5}}} of dvc.lock; {} without a readable one."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        stages = yaml.load((Path(root) / "dvc.lock").read_bytes(), Loader=loader)["stages"]
        return {
            name: {"params": entry.get("params", {})}
            | {kind: {item["path"]: item.get("md5") for item in entry.get(kind, ())} for kind in ("deps", "outs")}
            for name, entry in stages.items()
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}


def variance_changed(root, lock, task, table, policy):
    """What changed since results/variance/<task>.csv was computed, in words; "" when nothing is known to have.

    task: a Task. table: the CSV's rows. policy: the estimator whose checkpoints were measured. Two witnesses: k and
    group_size (or task_sha256) in the CSV, and dvc.lock (when it speaks of these very bytes) on the task file and the checkpoints.
    """
    name = f"tasks/{task.name}.yaml"
    for column in ("k", "group_size"):
        if column in table and (table[column].dropna() != getattr(task, column)).any():
            return f"{name} changed since ({column} was {table[column].dropna().iloc[0]:g})"
    for file, digest in shared_sha256().items():
        column = f"{file.removesuffix('.py')}_sha256"
        if column in table and (table[column] != digest).any():
            return f"estimators/{file} changed since"
    if "task_sha256" in table and (table["task_sha256"] != task.sha256).any():
        return f"{name} changed since"
    entry = _of_these_bytes(root, lock.get(f"variance@{task.name}"), f"results/variance/{task.name}.csv")
    if entry is None:
        return ""
    recorded = entry["params"].get(name)
    if recorded is not None and recorded != yaml.load(task.path.read_bytes(), Loader=task_file.StrictLoader):
        return f"{name} changed since"
    checkpoints = f"results/runs/{task.name}/{policy}/checkpoints"
    made = lock.get(f"train@{task.name}-{policy}", {"outs": {}})["outs"].get(checkpoints)
    if made and entry["deps"].get(checkpoints) not in (None, made):
        return f"{policy} was trained again since"
    return ""


def edited_estimators(table, declared):
    """Rows of a variance table that an older estimator gave: {estimator of the rows: name of the edited file}.

    A table without source_sha256 cannot tell. declared: load.declarations.
    """
    if "source_sha256" not in table:
        return {}
    found = {}
    for row in table[["estimator", "source_sha256"]].drop_duplicates().itertuples(index=False):
        if declared.get(row.estimator, {}).get("sha256", row.source_sha256) != row.source_sha256:
            found[row.estimator] = f"estimators/{row.estimator}.py"
    return found


def study_changed(root, lock, name):
    """What changed since results/studies/<name>.csv was computed, in words; "" when nothing is known to have."""
    source = f"maxpo_bench/studies/{name}.py"
    entry = _of_these_bytes(root, lock.get(f"study@{name}"), f"results/studies/{name}.csv")
    if entry is None or not (Path(root) / source).is_file():
        return ""
    return f"{source} changed since" if entry["deps"].get(source) not in (None, _md5(Path(root) / source)) else ""


def _of_these_bytes(root, entry, out):
    """The lock's entry of a stage when it describes the file that is there, else None."""
    path = Path(root) / out
    return entry if entry and path.is_file() and entry["outs"].get(out) == _md5(path) else None


def _md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()
