"""One tabular cell, pinned bit for bit: a refactor that changes no number changes nothing here.

When a number is meant to change, write the file anew and say why in CHANGELOG.md:
    python tests/pipeline/test_golden.py > tests/pipeline/golden/maze-maxpo.json
"""

import csv
import gzip
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from maxpo_bench.machine.numerics import unsupported

GOLDEN = Path(__file__).resolve().parent / "golden" / "maze-maxpo.json"

TASK = """
version: 1
kind: tabular
title: Golden maze
env:
  id: maxpo_bench/Maze-v0
  kwargs: {size: 9, layout: 0, decoy: 0.5, guard: 0.6, decoy_distance: 5, num_starts: 8}
  max_episode_steps: 30
k: 4
group_size: 8
groups: 8
steps: 30
seeds: 3
optimiser: {name: adam, lr: 0.05}
evaluation: {every: 10, prompts: 8, samples: 16}
"""


def run_cell():
    """(metrics.json and the rows of curve.csv.gz, the numerics) of the cell, run from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "tasks").mkdir()
        (folder / "params.yaml").write_text("tasks: [maze]\n")
        (folder / "tasks" / "maze.yaml").write_text(TASK)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        stages = "main(['base', 'maze']) or main(['train', 'maze', 'maxpo'])"
        code = f"import sys; from maxpo_bench.cli import main; sys.exit({stages})"
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        cell = folder / "results" / "runs" / "maze" / "maxpo"
        metrics = json.loads((cell / "metrics.json").read_text())
        with gzip.open(cell / "curve.csv.gz", "rt", newline="") as file:
            curve = [" ".join(row) for row in csv.reader(file)]
        numerics = json.loads((cell / "provenance.json").read_text())["numerics"]
    return {"metrics": metrics, "curve": curve}, numerics


def apart(found, pinned, path=""):
    """The largest relative difference of two numbers at the same place; infinite, with the place, where something else differs."""
    if isinstance(pinned, dict) and isinstance(found, dict) and set(pinned) == set(found):
        parts = [apart(found[key], pinned[key], f"{path}.{key}") for key in pinned]
    elif isinstance(pinned, list) and isinstance(found, list) and len(pinned) == len(found):
        parts = [apart(one, other, f"{path}[{i}]") for i, (one, other) in enumerate(zip(found, pinned, strict=True))]
    elif isinstance(pinned, float) and isinstance(found, float):
        return abs(found - pinned) / max(abs(pinned), 1e-3), path
    else:
        return 0.0 if found == pinned else math.inf, path
    return max(parts, default=(0.0, path))


def numbers(text):
    """A row of the curve with its numbers as numbers."""
    return [float(word) if re.fullmatch(r"-?[\d.]+(e-?\d+)?", word) else word for word in text.split()]


def test_the_golden_cell_is_the_same_to_the_last_bit():
    """Under portable numerics to the bit; on a machine that has none to 1e-9, and it says so."""
    (found, numerics), pinned = run_cell(), json.loads(GOLDEN.read_text())
    assert found["metrics"]["status"] == "ok" and len(found["metrics"]["final"]["max@K"]) == 3
    if found == pinned:
        return
    for each in (found, pinned):
        each["curve"] = [numbers(row) for row in each["curve"]]
    difference, where = apart(found, pinned)
    if numerics == "portable":
        raise AssertionError(f"{where} changed by {difference:.3g}, relative ({platform.machine()}, {platform.python_version()})")
    print(f"not the pinned bits: {numerics} numerics ({unsupported() or 'asked for'}); the largest difference is {difference:.3g}")
    assert difference < 1e-9, where


def test_a_difference_is_found_where_it_is():
    pinned = {"a": [1.0, 2.0], "b": {"c": "ok"}}
    assert apart({"a": [1.0, 2.0], "b": {"c": "ok"}}, pinned)[0] == 0
    assert apart({"a": [1.0, 2.5], "b": {"c": "ok"}}, pinned) == (0.25, ".a[1]")
    assert apart({"a": [1.0], "b": {"c": "ok"}}, pinned)[0] == math.inf


if __name__ == "__main__":
    print(json.dumps(run_cell()[0], indent=1, sort_keys=True))
