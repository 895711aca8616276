"""The variance stage of a task: the checkpoints of one cell, measured under every estimator (measure/variance.py)."""

import math
import os
import shutil
import time
from pathlib import Path

from maxpo_bench import problems
from maxpo_bench.errors import InputError
from maxpo_bench.machine import files, workers
from maxpo_bench.pipeline import cell
from maxpo_bench.pipeline.base import run_base
from maxpo_bench.pipeline.jobs import prepare
from maxpo_bench.settings.task_file import load, root

CHECKPOINTS = ("initial", "middle", "final")


def run_variance(name):
    """The variance stage of one task: results/variance/<task>.csv. Returns the exit code."""
    out = root() / "results" / "variance" / f"{name}.csv"
    start = time.perf_counter()
    with files.lock(root() / ".resume" / "locks" / f"variance-{name}", f"variance of {name}"):
        run(name, out)
    print(f"variance {name}: {time.perf_counter() - start:.1f} s")
    return 0


def run(task_name, out_csv, results=None):
    """Measures the checkpoints of the `variance_policy` cell and writes out_csv.

    One row per policy and estimator of the registry, see measure.variance.measure. Policies: checkpoints (initial, middle, final)
    of the first seed; of a language model, whose seeds differ from their warm start on, of the first three. Checkpoints are not
    published: where they are missing, the first seeds of the cell run again. InputError when the cell itself is not there.
    """
    from maxpo_bench.measure import variance

    task, policy_of = load(task_name), _variance_policy()
    results = Path(results or root() / "results")
    path = checkpoints_of(task, policy_of, results)
    num_batches = math.ceil(task.variance["groups"] / task.groups)
    row_wise, max_workers = prepare(task, results / "base" / task.name)
    seeds = _first_seeds(task, path.parent)[: cell.KEPT_SEEDS if row_wise else 1]

    def work(job, tick):
        seed, when = job
        problem = problems.build(task, (seed,), results / "base" / task.name)
        # The weights come from the checkpoints: a language model need not be warm-started first.
        policy = problem.untrained_policy() if hasattr(problem, "untrained_policy") else problem.initial_policy()
        state = files.load_states(path, [seed])[seed]
        own = f"{when}/"
        problem.load_states(policy, [{key[len(own) :]: tensor for key, tensor in state.items() if key.startswith(own)}])
        rows = variance.measure(problem, policy, task.k, num_batches, purpose=when)
        tick(1)
        return [{"checkpoint": when, "seed": seed, **row} for row in rows]

    jobs = [(seed, when) for when in CHECKPOINTS for seed in seeds]
    parts = workers.run(jobs, work, f"variance {task.name}", 1, max_workers)
    files.write_csv(out_csv, [_rounded(row) for part in parts for row in part])


def checkpoints_of(task, estimator, results):
    """The checkpoints file of a cell (its first seeds). Where this machine has none, those seeds are trained again, in scratch.

    InputError when the cell was not trained, or when the seeds do not end as published.
    """
    folder = results / "runs" / task.name / estimator
    if not (folder / "metrics.json").is_file():
        raise InputError(f"{folder}/metrics.json is missing; run `maxpo-bench train {task.name} {estimator}` first")
    if (folder / cell.CHECKPOINTS).is_file():
        return folder / cell.CHECKPOINTS
    scratch = root() / ".resume" / f"checkpoints-{task.name}-{estimator}"
    seeds = _first_seeds(task, folder)
    name = str(task.path)
    print(f"{task.name}, {estimator}: no checkpoints on this machine, training its first {len(seeds)} seeds again", flush=True)
    for code in (run_base(name, scratch, seeds), cell.run_cell(name, estimator, scratch, seeds)):
        if code:
            raise InputError(f"{task.name}, {estimator}: its first seeds could not be trained again, see above")
    again = scratch / "runs" / task.name / estimator
    published, here = (files.read_json(where / "metrics.json")["final"]["max@K"] for where in (folder, again))
    if published[: len(here)] != here:
        raise InputError(
            f"{folder}: this machine or these versions train its first seeds to another end; "
            f"run `maxpo-bench train {task.name} {estimator}`"
        )
    os.replace(again / cell.CHECKPOINTS, folder / cell.CHECKPOINTS)
    shutil.rmtree(scratch)
    return folder / cell.CHECKPOINTS


def _first_seeds(task, folder):
    """The seeds of a cell whose checkpoints are kept: fewer where it ran with fewer, as `repro` does."""
    return (files.read_json(folder / "metrics.json").get("seeds") or task.reported_seeds)[: cell.KEPT_SEEDS]


def _variance_policy():
    """The estimator whose checkpoints are measured: variance_policy of params.yaml; maxpo without that file."""
    from maxpo_bench.settings import params

    return params.read(root())["variance_policy"] if (root() / "params.yaml").is_file() else "maxpo"


def _rounded(row):
    """Floats to 10 significant digits; infinite and missing values empty."""
    return {key: (float(f"{x:.10g}") if math.isfinite(x) else "") if isinstance(x, float) else x for key, x in row.items()}
