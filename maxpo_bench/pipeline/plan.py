"""`maxpo-bench plan`: what is declared and what of it is up to date on this machine. Imports no torch.

DVC runs the stages; this file reads params.yaml and the dvc.lock files.
"""

import functools
import hashlib
import json
from pathlib import Path

import yaml

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.machine import files
from maxpo_bench.pipeline import dvc_files
from maxpo_bench.settings import task_file
from maxpo_bench.settings.loader import read as read_yaml

UNSEEN = {"__pycache__", ".gitignore", ".new", "weights.safetensors", "checkpoints.safetensors"}  # by .dvcignore


def declared(root=None):
    """params.yaml as settings.params.read gives it, and every name is that of a task, an estimator, a study."""
    from maxpo_bench import estimators, studies
    from maxpo_bench.settings import params

    root = Path(root or task_file.root())
    found = params.read(root)
    legal = {"tasks": task_file.names(root / "tasks"), "estimators": estimators.names(), "studies": studies.names()}
    named = [(key, key, found[key]) for key in legal]
    named += [(f"trained_estimators.{key}", key, found["trained_estimators"][key]) for key in ("estimators", "tasks")]
    named += [("long_tasks", "tasks", found["long_tasks"])]
    named += [("long_estimators", "estimators", found["long_estimators"])]
    for key, kind, names in named:
        if not names and key == kind:
            raise InputError(f"params.yaml: {key}: must be a list with at least one name")
        for name in names:
            if name not in legal[kind]:
                raise InputError(f"params.yaml: {key}: unknown name {name!r}{did_you_mean(name, legal[kind])}")
    return found


# ---------------------------------------------------------------------------------------------------------------- plan


def stage_names(params):
    """Names of every stage, in the order they run."""
    names = [f"base@{task}" for task in params["tasks"]]
    names += [f"train@{task}-{estimator}" for task in params["tasks"] for estimator in params["estimators"]]
    names += [f"variance@{task}" for task in params["tasks"]] + [f"summary@{task}" for task in params["tasks"]]
    return names + [f"study@{study}" for study in params["studies"]] + ["report"]


def dvc_target(stage):
    """What DVC calls a stage: a task's own stages stand in its own dvc.yaml, see dvc_files.py."""
    kind, _, rest = stage.partition("@")
    task, _, estimator = rest.partition("-")
    if kind == "train":
        return f"results/pipeline/{task}/dvc.yaml:train@{estimator}"
    return f"results/pipeline/{task}/dvc.yaml:{kind}" if kind in ("base", "variance") else stage


def print_plan(root=None):
    """One line per stage: its state and how long it takes; then the sum of what a plain `dvc repro` would run.

    Writes the dvc.yaml of tasks that have none yet, or an old one.
    """
    root = Path(root or task_file.root())
    params = declared(root)
    for task in dvc_files.write(root, params["tasks"], params["long_tasks"]):
        print(f"wrote {dvc_files.path_of('', task)}")
    states, seconds = all_states(root, params), _seconds(root, params)
    width = max(map(len, states))
    for stage, (state, reason) in states.items():
        known = seconds.get(stage)
        about = f"{known:7.1f} s" if known is not None else "      ?  "
        print(f"{stage:<{width}}  {about}  {state}{f' ({reason})' if reason else ''}")
    to_run = [stage for stage, (state, _) in states.items() if state != "up to date"]
    total = sum(seconds.get(stage) or 0.0 for stage in to_run)
    guess = ", some of unknown length" if any(seconds.get(stage) is None for stage in to_run) else ""
    print(f"{len(states)} stages, {len(to_run)} to run: about {total / 60:.1f} min{guess}")
    if params["long_tasks"]:
        print(f"besides, by `make repro-long` alone, hours each: {', '.join(params['long_tasks'])}")
    return 0


def all_states(root, params):
    """{stage: ("up to date" | "stale" | "missing" | "never run", reason)} of every stage, as DVC itself would judge."""
    locks = {"": _lock(root / "dvc.lock")} | {
        task: _lock(dvc_files.path_of(root, task).with_name("dvc.lock")) for task in params["tasks"]
    }
    hashes, states, read = {}, {}, functools.cache(lambda path: read_yaml(root / path, path))
    for stage in stage_names(params):
        target = dvc_target(stage)
        path, _, name = target.rpartition(":")
        states[stage] = _state(root, locks[Path(path).parent.name if path else ""].get(name), hashes, read)
    return states


def _lock(path):
    if not path.is_file():
        return {}
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        stages = dict(yaml.load(path.read_bytes(), Loader=loader)["stages"])
        for entry in stages.values():
            [item["path"] + "" for kind in ("deps", "outs") for item in entry.get(kind, ())]
            [values.items() for values in entry.get("params", {}).values()]
        return stages
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise InputError(f"{path}: not a lock file of DVC; restore it with `git checkout {path.name}` in its folder") from None


def _seconds(root, params):
    """What each stage took when it last ran, from the committed timings."""
    found = {}
    for task in params["tasks"]:
        for estimator in params["estimators"]:
            path = root / "results" / "runs" / task / estimator / "timing.json"
            if path.is_file():
                timing = files.read_json(path)
                seconds = timing.get("wall_s") if isinstance(timing, dict) else None
                if isinstance(seconds, int | float):
                    found[f"train@{task}-{estimator}"] = seconds + 2.0  # the start of a process
    return found


def _state(root, entry, hashes, read):
    """('up to date' | 'stale' | 'missing' | 'never run', reason) by the hashes in dvc.lock, as DVC itself would judge."""
    if entry is None:
        return "never run", ""
    for out in entry.get("outs", ()):
        if not (root / out["path"]).exists():
            return "missing", f"{out['path']} is not on this machine"
    for path, values in entry.get("params", {}).items():
        if not (root / path).is_file():
            return "stale", f"{path} is gone"
        now = read(path)
        if any(now.get(key) != value for key, value in values.items()) or (path != "params.yaml" and len(now) != len(values)):
            return "stale", f"{path} changed"
    for kind in ("deps", "outs"):
        for item in entry.get(kind, ()):
            if _md5(root / item["path"], hashes) != item.get("md5"):
                return "stale", f"{item['path']} changed"
    return "up to date", ""


def _md5(path, hashes):
    """MD5 of a file, or of a folder's listing, the way dvc.lock records them. hashes: what is known already."""
    if path not in hashes:
        if path.is_dir():
            listing = [
                {"md5": _md5(file, hashes), "relpath": file.relative_to(path).as_posix()}
                for file in path.rglob("*")
                if file.is_file() and not UNSEEN & {*file.parts, file.name}
            ]
            listing.sort(key=lambda item: item["relpath"])
            hashes[path] = hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"
        elif path.is_file():
            hashes[path] = hashlib.md5(path.read_bytes()).hexdigest()
        else:
            hashes[path] = None
    return hashes[path]
