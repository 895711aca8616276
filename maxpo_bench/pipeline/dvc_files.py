"""The pipeline as DVC reads it: one dvc.yaml per task, written here, beside the root's own. Imports no torch.

DVC rewrites a whole lock file for every stage that it records, so one file for all stages costs time that grows with their
number; a file per task does not, and a new cell touches its own task's lock alone. `maxpo-bench plan` and `new-task` write
these files; a test holds the committed ones to what is written here.
"""

from pathlib import Path

import yaml

from maxpo_bench.estimators import SHARED_SOURCES
from maxpo_bench.machine import files
from maxpo_bench.pipeline import sources
from maxpo_bench.settings import task_file

HEAD = "# Written by `maxpo-bench plan` for tasks/{name}.yaml: what its stages run on. Not edited by hand.\n"
PACKAGE = "maxpo_bench"


def path_of(root, task_name):
    """The dvc.yaml of a task; its dvc.lock lies beside it."""
    return Path(root) / "results" / "pipeline" / task_name / "dvc.yaml"


def text_of(task, long=False):
    """The dvc.yaml of a task: its base stage, one train stage per estimator of params.yaml, its variance stage.

    long: one of long_tasks, with estimators of its own. A pretrained model trained as a whole is not kept: no variance stage.
    """
    name, here = task.name, f"results/runs/{task.name}/${{item.estimator}}"
    params = [{f"tasks/{name}.yaml": None}]
    any_estimator = sources.closure("estimators/__init__.py", *(f"estimators/{file}" for file in SHARED_SOURCES))
    train = sorted({*sources.of_cell(task), *any_estimator})
    stages = {
        "base": {
            "cmd": f"maxpo-bench base {name}",
            "deps": _deps(sources.of_base(task)),
            "outs": _outs(f"results/base/{name}", "base.json", "provenance.json"),
        },
        "train": {
            "matrix": {"estimator": "${long_estimators}" if long else "${estimators}"},
            "cmd": f"maxpo-bench train {name} ${{item.estimator}}",
            "deps": [f"results/base/{name}/base.json", f"{PACKAGE}/estimators/${{item.estimator}}.py", *_deps(train)],
            "outs": _outs(here, "metrics.json", "curve.csv.gz", "ladder.csv.gz", "provenance.json", "timing.json"),
        },
        "variance": {
            "cmd": f"maxpo-bench variance {name}",
            "deps": [f"results/runs/{name}/${{variance_policy}}/metrics.json", *_deps(sources.of_variance(task))],
            "outs": [{f"results/variance/{name}.csv": {"cache": False}}],
        },
    }
    if task.section("model").get("name") and not task.section("lora").get("rank"):
        del stages["variance"]
    for key, stage in stages.items():
        stage["wdir"] = "../../.."
        stage["params"] = [dict(entry) for entry in params] + ([{"params.yaml": ["variance_policy"]}] if key == "variance" else [])
    head = {"vars": ["../../../params.yaml"], "stages": stages}
    text = yaml.safe_dump(head, sort_keys=False, width=200).replace(f"{name}.yaml: null", f"{name}.yaml:")
    return HEAD.format(name=name) + text


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


def write(root, names, long=()):
    """Write the dvc.yaml of each task, and of each long one, whose file is missing or old. Returns the names of those written.

    One that was looked at after the last edit of the package and of its task is not worked out again: its time is its witness.
    InputError for a task file that is broken; then nothing is written.
    """
    edited, texts, changed = max(path.stat().st_mtime for path in sources.PACKAGE.rglob("*.py")), {}, []
    for name in [*names, *long]:
        path, task = path_of(root, name), Path(root) / "tasks" / f"{name}.yaml"
        if not (path.is_file() and task.is_file() and path.stat().st_mtime > max(edited, task.stat().st_mtime)):
            texts[name] = text_of(task_file.load(task), name in long)
    for name, text in texts.items():
        path = path_of(root, name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            files.write_bytes(path, text.encode())
            changed.append(name)
        else:
            path.touch()
    return changed
