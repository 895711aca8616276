"""The variance stage of a task: the checkpoints of one cell, measured under every estimator (measure/variance.py)."""

import math

from maxpo_bench import problems
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, shared_sha256
from maxpo_bench.machine import files, workers
from maxpo_bench.settings.task_file import load, root

CHECKPOINTS = ("initial", "middle", "final")


def run(task_name, out_csv, results=None):
    """Measures the checkpoints of the `variance_policy` cell and writes out_csv.

    One row per checkpoint (initial, middle, final of seed 0) and estimator of the registry, see measure.variance.measure, with
    the sha256 of the task, of the estimator's file and of the files all estimators share. InputError when a checkpoint is
    missing.
    """
    from maxpo_bench.measure import variance

    task = load(task_name)
    results = results or root() / "results"
    folder = results / "runs" / task.name / _variance_policy() / "checkpoints"
    paths = {when: folder / f"{when}-seed0.safetensors" for when in CHECKPOINTS}
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"{path} is missing; run `maxpo-bench train {task.name} {_variance_policy()}` first")
    num_batches = math.ceil(task.variance["groups"] / task.groups)

    def work(when, tick):
        problem = problems.build(task, (0,), results / "base" / task.name)
        # The weights come from the checkpoints: a language model need not be warm-started first.
        policy = problem.untrained_policy() if hasattr(problem, "untrained_policy") else problem.initial_policy()
        problem.load_states(policy, [files.load_tensors(paths[when])[0]])
        rows = variance.measure(problem, policy, task.k, num_batches, purpose=when)
        tick(1)
        shared = {f"{file.removesuffix('.py')}_sha256": digest for file, digest in shared_sha256().items()}
        return [
            {
                "checkpoint": when,
                **row,
                "task_sha256": task.sha256,
                "source_sha256": files.sha256(get(row["estimator"]).path),
                **shared,
            }
            for row in rows
        ]

    parts = workers.run(list(CHECKPOINTS), work, f"variance {task.name}", 1)
    files.write_csv(out_csv, [_rounded(row) for part in parts for row in part])


def _variance_policy():
    """The estimator whose checkpoints are measured: variance_policy of params.yaml; maxpo without that file."""
    import yaml

    path = root() / "params.yaml"
    return yaml.safe_load(path.read_bytes())["variance_policy"] if path.is_file() else "maxpo"


def _rounded(row):
    """Floats to 10 significant digits; infinite and missing values empty."""
    return {key: (float(f"{x:.10g}") if math.isfinite(x) else "") if isinstance(x, float) else x for key, x in row.items()}
