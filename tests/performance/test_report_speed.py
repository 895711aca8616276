"""The report stage: seconds for the default list, minutes and a gigabyte for 500 cells of 20 seeds."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHILD = """
import json, resource, sys, time
start = time.perf_counter()
from maxpo_bench.report import build
build(sys.argv[1])
times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
processor = sum(t.ru_utime + t.ru_stime for t in times)
print(json.dumps({"seconds": time.perf_counter() - start, "processor_seconds": processor}))
"""


def measure(root):
    """{seconds, processor_seconds, megabytes} of one report in a fresh process; megabytes: most held by it and its workers."""
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    most = 0.0
    while process.poll() is None:
        most = max(most, sum(held(pid) for pid in family(process.pid)))
        time.sleep(0.2)
    assert process.returncode == 0
    return {**json.loads(process.stdout.read().splitlines()[-1]), "megabytes": most}


def family(pid):
    """A process and its children."""
    try:
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []


def held(pid):
    """Megabytes of a process, memory shared with others counted by its share (Pss)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):
        return 0.0


def synthetic():
    sys.path.insert(0, str(ROOT / "tests" / "report"))
    import synthetic

    return synthetic


@pytest.mark.performance
def test_default_list_takes_at_most_30_seconds(tmp_path):
    found = measure(synthetic().write(tmp_path))
    print(found)
    assert min(found["seconds"], found["processor_seconds"]) <= 30  # on a busy machine the second is the fair one


@pytest.mark.performance
@pytest.mark.slow
def test_500_cells_of_20_seeds_take_3_minutes_and_a_gigabyte(tmp_path):
    made = synthetic()
    tasks = [f"task_{i:02d}" for i in range(50)]
    root = made.write(tmp_path, tasks, (*made.ESTIMATORS, "reinforce"), seeds=20, steps=tuple(range(0, 65, 4)))
    found = measure(root)
    print(found)
    assert min(found["seconds"], found["processor_seconds"]) <= 180
    assert found["megabytes"] <= 1000
    assert (root / "results" / "report.html").stat().st_size < 8_000_000
