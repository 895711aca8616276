"""`maxpo-bench repro` and `maxpo-bench run`: compute again and compare, or compute what is published. Imports no torch.

repro never touches results/: it works below .repro/, a small project of its own, on the first seeds of each task (a seed's
bytes do not depend on its neighbours). run is plain DVC.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from maxpo_bench.errors import Fault, InputError, did_you_mean
from maxpo_bench.machine import files
from maxpo_bench.pipeline import dvc_files
from maxpo_bench.pipeline.plan import check_root_file, declared, dvc_target, estimator_stages, forecast, stage_names, study_stages
from maxpo_bench.settings import task_file

DEFAULT_TASKS = ("bandit", "maze", "countdown3")
CELL_SECONDS = 12  # what a recomputed cell may take, by the committed times: as many seeds as fit, at least two


def chosen_tasks(root, params, tasks, long=()):
    """The tasks to work on, each checked; InputError for one that is not declared. long: further legal names."""
    for task in tasks:
        if task not in [*params["tasks"], *long]:
            known = task in task_file.names(root / "tasks")
            hint = "; add it to params.yaml" if known else did_you_mean(task, params["tasks"])
            raise InputError(f"task {task!r} is not in params.yaml{hint}")
    return [task_file.load(root / "tasks" / f"{task}.yaml") for task in tasks]


def repro(tasks, root=None):
    """Recompute the first seeds of some tasks below .repro/, report there, and compare with what is published.

    Returns the exit code of the comparison, or 1 when a stage failed.
    """
    root = Path(root or task_file.root())
    params = declared(root)
    tasks = chosen_tasks(root, params, list(tasks) or [name for name in DEFAULT_TASKS if name in params["tasks"]])
    _check_git(root)
    start, scratch = time.perf_counter(), root / ".repro"
    estimators = params["estimators"]
    _lay_out(root, scratch, params, tasks)
    total = sum(1 + len(estimators) + 1 for _ in tasks)
    names = ", ".join(task.name for task in tasks)
    print(f"recomputing {names} below .repro/ ({total} stages); results/ stays as it is", flush=True)
    failed, done = 0, 0
    for task in tasks:
        seeds = _seeds(root, task, estimators)
        stages = [("base", task.name), *(("train", task.name, name) for name in estimators), ("variance", task.name)]
        for stage in stages:
            done += 1
            if stage[0] == "variance":
                failed += _variance(scratch, task, params["variance_policy"], f"[{done}/{total}]") != 0
            elif not _is_done(scratch, task, stage, seeds):
                print(f"[{done}/{total}] {' '.join(stage)}, seeds 0 to {seeds - 1}", flush=True)
                failed += _call(scratch, *stage, "--results", "results", "--seeds", f"0:{seeds}") != 0
    failed += _call(scratch, "report") != 0
    print(f"\nReport of what was recomputed: {scratch / 'results' / 'report.html'}, after {time.perf_counter() - start:.0f} s")
    from maxpo_bench.pipeline.compare import as_markdown, compare

    comparison = compare(root, "HEAD", scratch / "results")
    print(as_markdown(comparison, "HEAD", False))
    return 1 if comparison.failures or failed else 0


def _lay_out(root, scratch, params, tasks):
    """A project below .repro/ of these tasks, with the published studies. What was recomputed before stays."""
    import yaml

    shutil.rmtree(scratch / "tasks", ignore_errors=True)
    shutil.copytree(root / "tasks", scratch / "tasks")
    files.write_bytes(scratch / "claims.yaml", (root / "claims.yaml").read_bytes())
    own = {**params, "tasks": [task.name for task in tasks], "task_studies": {}, "trained_estimators": {}}
    files.write_bytes(scratch / "params.yaml", yaml.safe_dump(own).encode())
    shutil.rmtree(scratch / "results" / "studies", ignore_errors=True)
    if (root / "results" / "studies").is_dir():
        shutil.copytree(root / "results" / "studies", scratch / "results" / "studies")


def _seeds(root, task, estimators):
    """How many of a task's seeds fit into CELL_SECONDS, by the committed times of its slowest cell."""
    times = []
    for name in estimators:
        path = root / "results" / "runs" / task.name / name / "timing.json"
        if path.is_file():
            times.append(files.read_json(path).get("wall_s") or 0.0)
    if not any(times):
        return task.seeds
    return min(task.seeds, max(2, int(task.seeds * CELL_SECONDS / max(times))))


def _is_done(scratch, task, stage, seeds):
    """Whether a stage of before is still what would be computed: the same task, code, versions and seeds."""
    from maxpo_bench.pipeline import sources
    from maxpo_bench.pipeline.jobs import versions

    kind, name, *estimator = stage
    if kind == "base":
        folder, result, code = scratch / "results" / "base" / name, "base.json", sources.of_base(task)
    else:
        folder, result, code = scratch / "results" / "runs" / name / estimator[0], "metrics.json", sources.of_cell(task, *estimator)
    try:
        about = files.read_json(folder / "provenance.json")
        same = (about["task_sha256"], about["code_sha256"], about["versions"], about["seeds"])
        return same == (task.sha256, sources.digest(code), versions(), list(range(seeds))) and (folder / result).is_file()
    except (OSError, InputError, KeyError, TypeError):
        return False


def _variance(scratch, task, policy, place):
    """The variance stage, unless its table is of what is there now: a note beside it says of what. Returns the exit code."""
    from maxpo_bench.pipeline import sources
    from maxpo_bench.pipeline.jobs import versions

    table, note = (scratch / "results" / "variance" / f"{task.name}{ending}" for ending in (".csv", ".of.json"))
    cell = scratch / "results" / "runs" / task.name / policy / "metrics.json"
    of = {"task": task.sha256, "code": sources.digest(sources.of_variance(task)), "versions": versions(), "policy": policy}
    of["cell"] = files.sha256(cell) if cell.is_file() else ""
    try:
        if table.is_file() and files.read_json(note) == of:
            return 0
    except (OSError, InputError):
        pass
    note.unlink(missing_ok=True)
    print(f"{place} variance {task.name}", flush=True)
    code = _call(scratch, "variance", task.name)
    if code == 0:
        files.write_json(note, of)
    return code


def _check_git(root):
    """InputError where git does not read the project: it holds the published results, and DVC works inside of it alone."""
    try:
        done = subprocess.run(["git", "rev-parse", "--git-dir"], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Fault("git is not installed, and the published results are in it") from None
    if done.returncode:
        reason = " ".join(done.stderr.split()).removeprefix("fatal: ")
        raise InputError(f"{root}: git cannot read the project ({reason}); work in a clone of it, or `git init` and commit")


def _call(folder, *words):
    return subprocess.run([sys.executable, "-m", "maxpo_bench.cli", *words], cwd=folder, env=_environment(), check=False).returncode


def check_asked(tasks, part):
    """InputError where neither or both of task names and a part are given."""
    if bool(part) == bool(tasks):
        raise InputError("give task names, or one of --all, --studies, --estimators and --long")


def run(tasks, part="", root=None):
    """Compute into results/ what is not up to date, through DVC; then the report.

    tasks: these tasks' cells; or part: "all" (the default tasks and the studies), "studies" (those that train), "estimators" (those
    besides the default ones), "long" (long_tasks, which can be given by name as well). Says first how long it will take. Returns
    the exit code: 1 when a stage failed (the others have run).
    """
    root = Path(root or task_file.root())
    params = declared(root)
    check_asked(tasks, part)
    check_root_file(root)
    slow = params["long_tasks"]
    chosen = chosen_tasks(root, params, list(tasks) or (slow if part == "long" else params["tasks"]), slow)
    _check_git(root)
    dvc_files.write(root, [*params["tasks"], *slow])
    start, code = time.perf_counter(), 0
    names = [task.name for task in chosen]
    if part in ("studies", "estimators"):
        stages = study_stages(params) if part == "studies" else estimator_stages(params)
        if not stages:
            raise InputError(f"params.yaml declares none: {'task_studies' if part == 'studies' else 'trained_estimators'} is empty")
        print(forecast(root, params, stages), flush=True)
        code = _dvc(root, "repro", "--keep-going", *dict.fromkeys(dvc_target(stage).rpartition(":")[0] for stage in stages))
    else:
        own = [s for s in stage_names(params) if part == "all" or s.partition("@")[2].partition("-")[0] in names and "@" in s]
        if own:
            print(forecast(root, params, own), flush=True)
        code = _dvc(root, "repro", "--keep-going", *(str(dvc_files.path_of("", name)) for name in names))
        if part == "all":
            code |= _dvc(root, "repro", "--keep-going", *(s for s in own if s.startswith("study")))
        if listed := [name for name in names if name not in slow]:
            code |= _dvc(root, "repro", "--keep-going", "--single-item", *(dvc_target(f"summary@{name}") for name in listed))
    code |= _dvc(root, "repro", "--single-item", "report")
    report = root / "results" / "report.html"  # DVC removes the old one before it makes another
    about = f"Report: {report} (and report.md)" if report.is_file() else "No report was written, see above"
    print(f"\n{about}, after {time.perf_counter() - start:.0f} s")
    return 1 if code else 0


def _environment():
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _dvc(root, *arguments):
    try:
        return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=_environment(), check=False).returncode
    except FileNotFoundError:
        raise Fault("dvc is not installed in this environment; `make repro` installs it") from None
