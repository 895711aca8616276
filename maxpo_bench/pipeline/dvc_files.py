"""The pipeline as DVC reads it: one dvc.yaml per task, written here, beside the root's own. Imports no torch.

    results/pipeline/<task>/dvc.yaml              base, train, variance: what plain `dvc repro` runs
    results/pipeline/<task>/studies/dvc.yaml      trained-<study>: what trains for hours, `maxpo-bench run --studies`
    results/pipeline/<task>/estimators/dvc.yaml   train@<estimator>: estimators besides the default ones, `run --estimators`

DVC rewrites a whole lock file for every stage that it records, so one file for all stages costs time that grows with their
number; a file per task does not, and a new cell touches its own task's lock alone. Nothing that the report depends on is written by
the last two, so it waits for neither; results/trained.csv tells it that one of them wrote something. `maxpo-bench plan` and
`new-task` write these files; a test holds the committed ones to what is written here.
"""

from pathlib import Path

import yaml

from maxpo_bench.estimators import SHARED_SOURCES
from maxpo_bench.machine import files
from maxpo_bench.pipeline import index, sources
from maxpo_bench.settings import params, task_file
from maxpo_bench.studies import trainings

HEAD = "# Written by `maxpo-bench plan` for tasks/{name}.yaml: what its stages run on. Not edited by hand.\n"
PACKAGE = "maxpo_bench"
CELL_FILES = ("metrics.json", "curve.csv.gz", "ladder.csv.gz", "provenance.json", "timing.json")
SUMMARY_FILES = tuple(name for name in CELL_FILES if name.endswith(".json"))  # what is kept of a cell beside the default ones


def path_of(root, task_name, part=""):
    """The dvc.yaml of a task, or of a part of it ("studies", "estimators"); its dvc.lock lies beside it."""
    return Path(root) / "results" / "pipeline" / task_name / part / "dvc.yaml"


def texts_of(task, declared):
    """{part: its dvc.yaml} of a task, of params as settings.params.read gives them; "" for a part that has no stages."""
    name = task.name
    studies = [study for study, on in params.trained_studies(declared) if on == name]
    more = [estimator for on, estimator in params.trained_cells(declared) if on == name]
    return {
        "": _text(task, _stages(task, name in declared["long_tasks"]), ""),
        "studies": _text(task, {f"trained-{study}": _trained(task, study) for study in studies}, "studies"),
        "estimators": _text(task, {"train": _train_more(task, more)} if more else {}, "estimators"),
    }


def _text(task, stages, part):
    if not stages:
        return ""
    up = "../" * (4 if part else 3)
    for key, stage in stages.items():
        own = [{"params.yaml": ["variance_policy"]}] if key == "variance" else []
        own += [{"params.yaml": ["estimators"]}] if key.startswith("trained-") else []
        stage |= {"wdir": up.rstrip("/"), "params": [{f"tasks/{task.name}.yaml": None}, *own]}
    text = yaml.safe_dump({"vars": [f"{up}params.yaml"], "stages": stages}, sort_keys=False, width=200)
    return HEAD.format(name=task.name) + text.replace(f"{task.name}.yaml: null", f"{task.name}.yaml:")


def _train(task, folder, command, kept):
    """The train stage of a task, its matrix excepted: one per estimator."""
    any_estimator = sources.closure("estimators/__init__.py", *(f"estimators/{file}" for file in SHARED_SOURCES))
    code = sorted({*sources.of_cell(task), *any_estimator})
    own = f"{PACKAGE}/estimators/${{item.estimator}}.py"
    return {
        "cmd": f"maxpo-bench train {task.name} ${{item.estimator}}{command}",
        "deps": [f"results/base/{task.name}/base.json", own, *_deps(code)],
        "outs": _outs(f"results/{folder}/{task.name}/${{item.estimator}}", *kept),
    }


def _train_more(task, estimators):
    train = _train(task, "estimators", " --beside ${trained_estimators.seeds}", SUMMARY_FILES)
    return {"matrix": {"estimator": estimators}} | train


def _trained(task, study):
    """The stage of a study that trains; what it wrote before stays while it runs, for what of that is still right."""
    name, module = task.name, trainings.get(study)
    outs = [f"results/trained/{study}/{name}{ending}" for ending in (".csv", ".json", ".timing.json")]
    outs += [f"results/{study}/{name}"] if getattr(module, "CELLS", False) else []
    deps = [f"results/base/{name}/base.json", *(f"results/trained/{other}/{name}.csv" for other in getattr(module, "NEEDS", ()))]
    return {
        "cmd": f"maxpo-bench trained {study} {name}",
        "deps": deps + _deps(sources.of_trained(task, study)),
        "outs": [{path: {"cache": False, "persist": True}} for path in outs],
    }


def _stages(task, long=False):
    """The base stage of a task, one train stage per estimator of params.yaml, its variance stage.

    long: one of long_tasks, with estimators of its own. A pretrained model trained as a whole is not kept: no variance stage.
    """
    name = task.name
    stages = {
        "base": {
            "cmd": f"maxpo-bench base {name}",
            "deps": _deps(sources.of_base(task)),
            "outs": _outs(f"results/base/{name}", "base.json", "provenance.json"),
        },
        "train": {
            "matrix": {"estimator": "${long_estimators}" if long else "${estimators}"},
            **_train(task, "runs", "", CELL_FILES),
        },
        "variance": {
            "cmd": f"maxpo-bench variance {name}",
            "deps": [f"results/runs/{name}/${{variance_policy}}/metrics.json", *_deps(sources.of_variance(task))],
            "outs": [{f"results/variance/{name}.csv": {"cache": False}}],
        },
    }
    if task.section("model").get("name") and not task.section("lora").get("rank"):
        del stages["variance"]
    return stages


def _outs(folder, *names):
    return [{f"{folder}/{name}": {"cache": False}} for name in names]


def _deps(paths):
    """Paths of the package for DVC; a folder all of whose modules are among them stands for them."""
    covered = set()
    for folder in sorted({str(Path(path).parent) for path in paths} - {"."}):
        modules = [path.relative_to(sources.PACKAGE).as_posix() for path in (sources.PACKAGE / folder).rglob("*.py")]
        modules = {path for path in modules if not sources.words_only(path)}
        if modules <= set(paths) and not any(Path(folder).is_relative_to(other) for other in covered):
            covered.add(folder)
    single = [path for path in paths if not any(Path(path).is_relative_to(folder) for folder in covered)]
    return [f"{PACKAGE}/{path}" for path in sorted([*covered, *single])]


def write(root, names, declared=None):
    """Write the dvc.yaml of each task whose file is missing or old. Returns the files that were written, relative to the root.

    declared: params.yaml, where it was read.
    One that was looked at after the last edit of the package, of params.yaml and of its task is not worked out again: its time is
    its witness. InputError for a task file that is broken; then nothing is written.
    """
    root = Path(root)
    edited, texts, changed = max(path.stat().st_mtime for path in (*sources.PACKAGE.rglob("*.py"), root / "params.yaml")), {}, []
    declared = declared or params.read(root)
    for name in names:
        path, task = path_of(root, name), root / "tasks" / f"{name}.yaml"
        if not (path.is_file() and task.is_file() and path.stat().st_mtime > max(edited, task.stat().st_mtime)):
            texts |= {path_of(root, name, part): text for part, text in texts_of(task_file.load(task), declared).items()}
    if not (root / "results" / index.NAME).is_file():
        index.write_index(root / "results")
    for path, text in reversed(texts.items()):  # the witness last
        if not text:
            for gone in (path, path.with_name("dvc.lock")):
                gone.unlink(missing_ok=True)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            files.write_bytes(path, text.encode())
            changed.append(path.relative_to(root))
        else:
            path.touch()
    return changed
