"""How long the core, `plan` and `--help` take to start: what somebody waits for each time."""

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = """
import time, torch
start = time.perf_counter(), time.process_time()
from maxpo_bench.estimators import get
get("maxpo")
print(min(time.perf_counter() - start[0], time.process_time() - start[1]))
"""


def seconds(*words):
    """Seconds of one fresh process: by the clock or of the processor, whichever is less; on a busy machine that is the fair one."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return min(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@pytest.mark.performance
def test_the_core_takes_a_tenth_of_a_second_beyond_torch():
    run = [sys.executable, "-c", CORE]
    found = [float(subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    print(found)
    assert statistics.median(found) <= 0.1


@pytest.mark.performance
@pytest.mark.parametrize("word, limit", [("--help", 0.1), ("plan", 0.5)])
def test_the_command_line_starts_at_once(word, limit):
    found = [seconds("-m", "maxpo_bench.cli", word) for _ in range(5)]
    print(found)
    assert statistics.median(found) <= limit
