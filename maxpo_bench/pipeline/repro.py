"""`maxpo-bench repro`: recompute through DVC, then the report and the comparison with the published. Imports no torch."""

import os
import subprocess
import sys
import time
from pathlib import Path

from maxpo_bench.errors import Fault, InputError, did_you_mean
from maxpo_bench.pipeline import stages
from maxpo_bench.pipeline.plan import declared
from maxpo_bench.settings import task_file

DEFAULT_TASKS = ("bandit", "maze", "countdown3")


def repro(tasks, everything=False, root=None):
    """Recompute tasks on this machine, then the report, then the comparison with the published results.

    Cells whose checkpoints are not on this machine were never computed here: their committed results do not satisfy
    DVC, so they run. What was computed here and has not changed is not run again. Returns the exit code.
    """
    root = Path(root or task_file.root())
    params = declared(root)
    if everything and tasks:
        raise InputError("give task names or --all, not both")
    tasks = params["tasks"] if everything else list(tasks) or list(DEFAULT_TASKS)
    for task in tasks:
        if task not in params["tasks"]:
            known = task in task_file.names(root / "tasks")
            hint = "; add it to params.yaml" if known else did_you_mean(task, params["tasks"])
            raise InputError(f"task {task!r} is not in params.yaml{hint}")
        task_file.load(root / "tasks" / f"{task}.yaml")
    start = time.perf_counter()
    targets = ["base", "train"]  # by their common names where it is all of them: DVC reads dvc.lock once per target
    if not everything:
        targets = [f"base@{task}" for task in tasks]
        targets += [f"train@{task}-{estimator}" for task in tasks for estimator in params["estimators"]]
    code = _dvc(root, "repro", "--keep-going", *targets)
    outs = {f"variance@{task}": root / "results" / "variance" / f"{task}.csv" for task in tasks}
    if everything:
        outs.update({f"study@{study}": root / "results" / "studies" / f"{study}.csv" for study in params["studies"]})
    mine = [stage for stage, out in outs.items() if stages.computed_here(stage, out)]
    committed = [stage for stage in outs if stage not in mine]
    if committed:
        code |= _dvc(root, "repro", "--keep-going", "--single-item", "--force", *committed)
    if mine:
        code |= _dvc(root, "repro", "--keep-going", "--single-item", *mine)
    code |= _dvc(root, "repro", "--single-item", "report")
    print(f"\nReport: {root / 'results' / 'report.html'} (and report.md), after {time.perf_counter() - start:.0f} s")
    if (root / ".git").exists():
        subprocess.run([sys.executable, "-m", "maxpo_bench.cli", "compare"], cwd=root, check=False)
    return 1 if code else 0


def _dvc(root, *arguments):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment, check=False).returncode
    except FileNotFoundError:
        raise Fault("dvc is not installed in this environment; `make repro` installs it") from None
