"""What both stages share: a task's seeds dealt into jobs, what is done before the workers are forked, what a result hangs on."""

import os
import platform
from contextlib import contextmanager
from importlib import metadata

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import numerics, workers
from maxpo_bench.pipeline import sources

VERSIONS = ("maxpo-bench", "torch", "numpy", "gymnasium", "transformers")


def jobs_of(seeds, problem_is_row_wise):
    """Seeds split into jobs: one each for language models, an even share per worker for the rest."""
    seeds = list(seeds)
    if problem_is_row_wise:
        return [(seed,) for seed in seeds]
    count = min(workers.num_workers(), len(seeds))
    return [tuple(seeds[i * len(seeds) // count : (i + 1) * len(seeds) // count]) for i in range(count)]


def versions():
    """Versions of what a result depends on."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version()}


def provenance(task, paths):
    """What a result came from, beside its numbers: the task, the code (files of the package), versions and numerics."""
    return {
        "task": task.name,
        "task_sha256": task.sha256,
        **({"overrides": task.overrides} if task.overrides else {}),
        **({"date": date} if (date := task.section("data").get("date")) else {}),  # the day that its chat template saw
        "code_sha256": sources.digest(paths),
        "versions": versions(),
        "numerics": numerics.mode(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def prepare(task, base=None):
    """(whether the problem works row by row, how many workers it may have or None). Imports, before the workers are
    forked, what each would import for itself, and reads the data.

    A problem that cannot be built is a Fault, like one that cannot run.
    """
    from maxpo_bench import problems

    workers.single_thread()
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for a GPU must not open it before the fork
    try:
        problem = problems.build(task, (0,), base)
        problem.prepare()
    except (InputError, Fault):
        raise
    except Exception as error:
        raise Fault(workers.reason(error)) from error
    return problem.row_wise, problem.max_workers


@contextmanager
def counting(problem):
    """A Fault in the block says how many verifier errors there were."""
    try:
        yield
    except Fault as error:
        error.verifier_errors = problem.verifier_errors
        raise
