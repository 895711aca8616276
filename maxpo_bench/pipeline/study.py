"""One study as a pipeline stage: results/studies/<name>.csv, whole or not at all."""

import time

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.machine import files
from maxpo_bench.settings.task_file import root


def run_study(name):
    """One study: results/studies/<name>.csv. Returns the exit code."""
    from maxpo_bench import studies

    if name not in studies.names():
        raise InputError(f"unknown study {name!r}{did_you_mean(name, studies.names())}; studies: {', '.join(studies.names())}")
    out = root() / "results" / "studies" / f"{name}.csv"
    start = time.perf_counter()
    with files.lock(root() / ".resume" / "locks" / f"study-{name}", f"study {name}"):
        studies.run_study(name, out)
    print(f"study {name}: {time.perf_counter() - start:.1f} s")
    return 0
