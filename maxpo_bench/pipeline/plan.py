"""`maxpo-bench plan`: what is declared and what of it is up to date on this machine. Imports no torch.

DVC runs the stages; this file reads params.yaml and the dvc.lock files.
"""

import functools
import hashlib
import json
import statistics
from pathlib import Path

import yaml

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.machine import files
from maxpo_bench.pipeline import dvc_files, locks
from maxpo_bench.settings import claims, task_file
from maxpo_bench.settings import params as params_file
from maxpo_bench.settings.loader import StrictLoader
from maxpo_bench.settings.loader import read as read_yaml

START_S = 2.0  # of a process
UNSEEN = {"__pycache__", ".gitignore", ".new", "weights.safetensors", "checkpoints.safetensors"}  # by .dvcignore


def declared(root=None):
    """params.yaml as settings.params.read gives it, and every name is that of a task, an estimator, a study."""
    from maxpo_bench import estimators, studies
    from maxpo_bench.studies import trainings

    root = Path(root or task_file.root())
    found = params_file.read(root)
    legal = {"tasks": task_file.names(root / "tasks"), "estimators": estimators.names(), "studies": studies.names()}
    more, train = found["trained_estimators"], found["task_studies"]
    named = [(key, key, found[key]) for key in legal]
    named += [("studies_of_tasks", "studies", found["studies_of_tasks"])]
    named += [("long_tasks", "tasks", found["long_tasks"]), ("long_estimators", "estimators", found["long_estimators"])]
    named += [(f"trained_estimators.{key}", "estimators", more[key]) for key in ("estimators", "binary_only")]
    named += [(f"trained_estimators.{key}", "tasks", more[key]) for key in ("tasks", "binary_tasks")]
    named += [("task_studies", "trainings", list(train)), *((f"task_studies.{study}", "tasks", on) for study, on in train.items())]
    legal["trainings"] = trainings.names()
    for key, kind, names in named:
        if not names and key == kind:
            raise InputError(f"params.yaml: {key}: must be a list with at least one name")
        for name in names:
            if name not in legal[kind]:
                raise InputError(f"params.yaml: {key}: unknown name {name!r}{did_you_mean(name, legal[kind])}")
            if kind == "tasks" and key.partition(".")[0] in ("task_studies", "trained_estimators") and name not in found["tasks"]:
                raise InputError(f"params.yaml: {key}: task {name!r} is not among tasks; add it there")
    return found


# ---------------------------------------------------------------------------------------------------------------- plan


def stage_names(params):
    """Names of every stage, in the order they run."""
    names = [f"base@{task}" for task in params["tasks"]]
    names += [f"train@{task}-{estimator}" for task in params["tasks"] for estimator in params["estimators"]]
    names += [f"variance@{task}" for task in params["tasks"]] + [f"summary@{task}" for task in params["tasks"]]
    names += [f"study@{study}" for study in params["studies"]]
    return names + [f"study_of_tasks@{study}" for study in params["studies_of_tasks"]] + ["report"]


def study_stages(params):
    """Names of the stages that train for studies, which `maxpo-bench run --studies` runs."""
    return [f"trained@{task}-{study}" for study, task in params_file.trained_studies(params)]


def estimator_stages(params):
    """Names of the cells of estimators besides the default ones, which `maxpo-bench run --estimators` runs."""
    return [f"beside@{task}-{estimator}" for task, estimator in params_file.trained_cells(params)]


def dvc_target(stage):
    """What DVC calls a stage: a task's own stages stand in its own dvc.yaml, see dvc_files.py."""
    kind, _, rest = stage.partition("@")
    task, _, estimator = rest.partition("-")
    if kind == "train":
        return f"results/pipeline/{task}/dvc.yaml:train@{estimator}"
    if kind == "trained":
        return f"results/pipeline/{task}/studies/dvc.yaml:trained-{estimator}"
    if kind == "beside":
        return f"results/pipeline/{task}/estimators/dvc.yaml:train@{estimator}"
    return f"results/pipeline/{task}/dvc.yaml:{kind}" if kind in ("base", "variance") else stage


def print_plan(root=None):
    """One line per stage: its state and how long it takes; then the sum of what a plain `dvc repro` would run. Then the same of
    the studies that train, and of the estimators besides the default ones (a line per task), which have commands of their own.

    Writes the dvc.yaml of tasks that have none yet, or an old one.
    """
    root = Path(root or task_file.root())
    params = declared(root)
    check_root_file(root)
    if (root / "claims.yaml").is_file():  # the report's; what it refuses is said before hours are spent
        claims.read(root / "claims.yaml")
    for path in dvc_files.write(root, [*params["tasks"], *params["long_tasks"]], params):
        print(f"wrote {path}")
    seconds = _seconds(root, params)
    _print_stages(all_states(root, params), seconds)
    studies, beside = study_stages(params), estimator_stages(params)
    if studies:
        print("\nstudies that train, `maxpo-bench run --studies`:")
        _print_stages(all_states(root, params, studies), seconds)
    if beside:
        print("\nestimators besides the default ones, `maxpo-bench run --estimators`:")
        states = all_states(root, params, beside)
        for task in dict.fromkeys(stage.partition("-")[0] for stage in beside):
            print(said({stage: state for stage, state in states.items() if stage.partition("-")[0] == task}, seconds, task))
        print(said(states, seconds))
    if params["long_tasks"]:
        print(f"\nhours each, `maxpo-bench run --long`: {', '.join(params['long_tasks'])}")
    return 0


def check_root_file(root):
    """InputError where DVC would refuse the root's dvc.yaml: it is not there, no YAML, or names no stages."""
    stages = read_yaml(root / "dvc.yaml", "dvc.yaml").get("stages")
    if not isinstance(stages, dict) or not {"summary", "report"} <= set(stages):
        raise InputError("dvc.yaml: has no stages summary and report; restore it with `git checkout dvc.yaml`")


def _print_stages(states, seconds):
    width = max(map(len, states))
    for stage, (state, reason) in states.items():
        known = seconds.get(stage)
        about = f"{known:7.1f} s" if known is not None else "      ?  "
        print(f"{stage:<{width}}  {about}  {state}{f' ({reason})' if reason else ''}")
    print(said(states, seconds))


def said(states, seconds, name=""):
    """How many of these stages are to run, and how long that takes, in words."""
    to_run = [stage for stage, (state, _) in states.items() if state != "up to date"]
    total = sum(seconds.get(stage) or 0.0 for stage in to_run)
    unknown = sum(seconds.get(stage) is None for stage in to_run)
    took = f"at least {total / 60:.1f} min ({unknown} of unknown length)" if unknown else f"about {total / 60:.1f} min"
    return f"{name + ': ' if name else ''}{len(states)} stages, {len(to_run)} to run: {took}"


def forecast(root, params, stages):
    """How long a command that runs these stages will take, in words."""
    return said(all_states(root, params, stages), _seconds(root, params))


def all_states(root, params, stages=None):
    """{stage: ("up to date" | "stale" | "missing" | "never run", reason)} of some stages (those of a plain `dvc repro`), as DVC
    itself would judge."""
    lock = functools.cache(lambda path: locks.read((root / path).with_name("dvc.lock")))
    hashes, states, read = {}, {}, _reader(root)
    for stage in stage_names(params) if stages is None else stages:
        path, _, name = dvc_target(stage).rpartition(":")
        states[stage] = _state(root, lock(path or "dvc.yaml").get(name), hashes, read)
    return states


def _reader(root):
    """A function of a path: what that YAML file says. By libyaml, four times as fast; the strict loader says what is wrong."""

    class QuickSafeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        yaml_constructors = StrictLoader.yaml_constructors
        yaml_implicit_resolvers = StrictLoader.yaml_implicit_resolvers

    @functools.cache
    def read(path):
        try:
            return dict(yaml.load((root / path).read_bytes(), Loader=QuickSafeLoader))
        except (OSError, yaml.YAMLError, ValueError, TypeError, RecursionError):
            return read_yaml(root / path, path)

    return read


def _seconds(root, params):
    """What each stage took when it last ran, from the committed timings; of what never ran, a guess from those of the cells."""
    found, pace, load = {}, {}, functools.cache(task_file.load)
    for task in params["tasks"]:
        for estimator in params["estimators"]:
            seconds, num_seeds = _timing(root / "results" / "runs" / task / estimator / "timing.json")
            if seconds is not None:
                found[f"train@{task}-{estimator}"] = seconds + START_S
                pace.setdefault(task, {})[estimator] = (seconds, num_seeds or 1)
    for task, estimator in params_file.trained_cells(params):
        seconds, _ = _timing(root / "results" / "estimators" / task / estimator / "timing.json")
        if seconds is None and task in pace:
            seconds = statistics.fmean(_share(*one, params["trained_estimators"]["seeds"]) for one in pace[task].values())
        if seconds is not None:
            found[f"beside@{task}-{estimator}"] = seconds + START_S
    for study, task in params_file.trained_studies(params):
        seconds, _ = _timing(root / "results" / "trained" / study / f"{task}.timing.json")
        if seconds is None and task in pace:
            seconds = _guess(study, load(root / "tasks" / f"{task}.yaml"), pace[task])
        if seconds is not None:
            found[f"trained@{task}-{study}"] = seconds + START_S
    return found


def _timing(path):
    """(wall_s, num_seeds) of a timing.json; None for what it does not say."""
    timing = files.read_json(path) if path.is_file() else {}
    values = [timing.get(key) if isinstance(timing, dict) else None for key in ("wall_s", "num_seeds")]
    return [value if isinstance(value, int | float) else None for value in values]


def _share(seconds, num_seeds, wanted):
    """Seconds of a cell with another number of seeds; of small policies a part is not the seeds'."""
    return seconds * min(1.0, (0.0 if num_seeds <= 16 else 0.2) + wanted / num_seeds)


def _guess(study, task, pace):
    """Seconds of a study that never ran on a task."""
    from maxpo_bench.studies import trainings

    module, total = trainings.get(study), 0.0
    seeds = len(trainings.tuning_seeds(task)) if getattr(module, "TUNING", False) else task.seeds
    for estimator in getattr(module, "ESTIMATORS", pace):
        if estimator in pace:
            total += module.TRAININGS_EACH * _share(*pace[estimator], seeds)
    return total


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
