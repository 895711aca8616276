"""What the same bytes cost: processor time of a cell under portable numerics over that under native ones."""

import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from maxpo_bench.machine import numerics

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {  # the default tasks, shortened
    "countdown3": {"steps": "12", "seeds": "1", "evaluation": "{prompts: 32, samples: 16}"},
    "maze": {"steps": "60", "seeds": "20", "evaluation": "{prompts: 8, samples: 16}"},
}
LIMITS = {"countdown3": 1.5, "maze": 1.1}  # tabular: nothing, as well as it can be measured


def seconds(folder, *words):
    """Processor time of a command and its workers."""
    environment = {name: value for name, value in os.environ.items() if name not in numerics.SETTINGS}
    environment |= {"PYTHONPATH": str(ROOT), "MAXPO_BENCH_WORKERS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "maxpo_bench.cli", *words], cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.performance
@pytest.mark.skipif(bool(numerics.unsupported()), reason=f"no portable numerics: {numerics.unsupported()}")
@pytest.mark.parametrize("task", CHANGES)
def test_portable_numerics_over_native(task, tmp_path, record_property):
    text = (ROOT / "tasks" / f"{task}.yaml").read_text()
    for key, value in CHANGES[task].items():
        text = re.sub(rf"^{key}:.*$", f"{key}: {value}", text, flags=re.MULTILINE)
    for mode in numerics.MODES:
        (tmp_path / mode / "tasks").mkdir(parents=True)
        (tmp_path / mode / "params.yaml").write_text("tasks: []\n")
        (tmp_path / mode / "tasks" / f"{task}.yaml").write_text(f"{text}\nnumerics: {mode}\n")
        seconds(tmp_path / mode, "base", task)
    taken = {mode: [] for mode in numerics.MODES}
    for _ in range(3):
        for mode in numerics.MODES:
            shutil.rmtree(tmp_path / mode / "results" / "runs", ignore_errors=True)
            taken[mode].append(seconds(tmp_path / mode, "train", task, "maxpo"))
    portable, native = (statistics.median(taken[mode]) for mode in numerics.MODES)
    record_property("portable_over_native", portable / native)
    print(f"{task}: portable {portable:.2f} s, native {native:.2f} s of processor time, {portable / native:.2f} x")
    assert portable <= LIMITS[task] * native
