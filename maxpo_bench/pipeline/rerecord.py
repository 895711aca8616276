"""`maxpo-bench rerecord`: cells whose code changed but not their numbers are recorded again without running them whole.

The proof: their first two seeds run on the code as it is now, and every number of theirs repeats to the byte. Imports no torch.
"""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.pipeline import dvc_files, sources
from maxpo_bench.pipeline.plan import all_states, declared, dvc_target
from maxpo_bench.settings import task_file

PROOF = 2  # seeds


def rerecord(tasks, root=None):
    """Prove and record again the stale base stages and cells of tasks (of all where none is given). Returns the exit code.

    0 when all that were stale are recorded again; 1, with a line each, when some differ: those must run. A task whose file
    changed, and what never ran, is not for this.
    """
    root = Path(root or task_file.root())
    params = declared(root)
    for task in tasks:
        if task not in params["tasks"]:
            raise InputError(f"task {task!r} is not in params.yaml")
    dvc_files.write(root, params["tasks"])
    states = all_states(root, params)
    refused, proved = 0, []
    for name in tasks or params["tasks"]:
        task = task_file.load(root / "tasks" / f"{name}.yaml")
        own = [s for s in (f"base@{name}", *(f"train@{name}-{e}" for e in params["estimators"])) if states[s][0] == "stale"]
        cells = [stage.partition("-")[2] for stage in own if stage.startswith("train")]
        scratch = root / ".resume" / f"rerecord-{name}"
        shutil.rmtree(scratch, ignore_errors=True)
        for stage in own and [f"base@{name}", *(f"train@{name}-{estimator}" for estimator in cells)]:
            reason = _prove(root, scratch, task, stage)
            if reason:
                refused += 1
                print(f"{stage}: not recorded: {reason}", flush=True)
                if stage.startswith("base"):
                    break  # its cells start from another policy
            elif stage in own:
                print(f"{stage}: seeds 0 and 1 repeat to the byte, recorded again", flush=True)
                proved.append(stage)
        shutil.rmtree(scratch, ignore_errors=True)
    if proved:
        _record(root, [dvc_target(stage) for stage in proved])
    print(f"{len(proved)} recorded again, {refused} not")
    return 1 if refused else 0


def _prove(root, scratch, task, stage):
    """Run the first seeds of a stage in scratch. "" when they repeat, and then provenance.json says so; else why not."""
    kind, _, rest = stage.partition("@")
    estimator = rest.partition("-")[2]
    folder = Path("base", task.name) if kind == "base" else Path("runs", task.name, estimator)
    published = root / "results" / folder
    try:
        about = files.read_json(published / "provenance.json")
    except (OSError, InputError):
        return "it never ran"
    if about.get("task_sha256") != task.sha256:
        return f"tasks/{task.name}.yaml changed since"
    words = [kind, str(task.path), *([estimator] if estimator else []), "--results", str(scratch), "--seeds", f"0:{PROOF}"]
    done = subprocess.run([sys.executable, "-m", "maxpo_bench.cli", *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
    where = _first_difference(published, scratch / folder, kind)
    if where:
        return f"{where} of the first seeds is another"
    paths = sources.of_base(task) if kind == "base" else sources.of_cell(task, estimator)
    new = files.read_json(scratch / folder / "provenance.json")
    proof = {"code_sha256": about["code_sha256"], "versions": about["versions"], "seeds": list(range(PROOF))}
    before = [*about.get("rerecorded", []), proof]
    about |= {key: new[key] for key in ("code_sha256", "versions", "source_sha256", "shared_sha256") if key in new}
    assert about["code_sha256"] == sources.digest(paths)
    files.write_json(published / "provenance.json", {**about, "rerecorded": before})
    return ""


def _first_difference(published, here, kind):
    """What of the seeds in `here` is not, to the byte, what is published; "" when all is."""
    name = "base.json" if kind == "base" else "metrics.json"
    old, new = (files.read_json(folder / name) for folder in (published, here))
    if old.get("status") != new.get("status"):
        return "the status"
    if old["status"] not in ("ok", "diverged"):  # not applicable: its reason may name another sample, there is nothing else
        return ""
    if json.dumps(_first(old)) != json.dumps(new):
        return name
    for table in () if kind == "base" else ("curve.csv.gz", "ladder.csv.gz"):
        old, new = (gzip.decompress((folder / table).read_bytes()).decode().splitlines() for folder in (published, here))
        if [line for line in old if line.split(",")[0] in ("seed", *map(str, range(PROOF)))] != new:
            return table
    return ""


def _first(value, key=""):
    """The same JSON with the first PROOF entries of every list per seed."""
    if isinstance(value, dict):
        return {name: _first(each, name) for name, each in value.items()}
    return value[:PROOF] if isinstance(value, list) else value


def _record(root, targets):
    """Record stages as they lie there, one rewrite of a lock file for each task's: what DVC's own commit does, for a list."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo, repo.lock:
        by_file = {}
        for target in targets:
            path, _, name = target.rpartition(":")
            stage = repo.stage.load_one(str(root / path), name)
            stage.save()
            by_file.setdefault(path, []).append(stage)
        for stages in by_file.values():
            stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
