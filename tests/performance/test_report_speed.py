"""The report stage: seconds for the default list, minutes and a gigabyte for 500 cells of 20 seeds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHILD = """
import json, resource, sys, time
start = time.perf_counter()
from maxpo_bench.report import build
build(sys.argv[1])
used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"seconds": time.perf_counter() - start, "megabytes": used / 1024}))
"""


def measure(root):
    """{seconds, megabytes} of one report in a fresh process; megabytes of the largest process."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(root)], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def synthetic():
    sys.path.insert(0, str(ROOT / "tests" / "report"))
    import synthetic

    return synthetic


@pytest.mark.performance
def test_default_list_takes_at_most_30_seconds(tmp_path):
    found = measure(synthetic().write(tmp_path))
    print(found)
    assert found["seconds"] <= 30


@pytest.mark.performance
@pytest.mark.slow
def test_500_cells_of_20_seeds_take_3_minutes_and_a_gigabyte(tmp_path):
    made = synthetic()
    tasks = [f"task_{i:02d}" for i in range(50)]
    root = made.write(tmp_path, tasks, (*made.ESTIMATORS, "reinforce"), seeds=20, steps=tuple(range(0, 65, 4)))
    found = measure(root)
    print(found)
    assert found["seconds"] <= 180
    assert found["megabytes"] <= 1000 / 3  # three processes: this one and two that draw
    assert (root / "results" / "report.html").stat().st_size < 8_000_000
