"""One tabular cell, pinned bit for bit: a refactor that changes no number changes nothing here.

When a number is meant to change, write the file anew and say why in CHANGELOG.md:
    python tests/test_golden.py > tests/golden/maze-maxpo.json
"""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden" / "maze-maxpo.json"
CHANGING = ("versions", "source_sha256", "shared_sha256", "task_sha256")  # what may change without a number changing

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
    """metrics.json, less what may change, and the rows of curve.csv of the cell, run from nothing."""
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
        with open(cell / "curve.csv", newline="") as file:
            curve = [" ".join(row) for row in csv.reader(file)]
    return {"metrics": {key: value for key, value in metrics.items() if key not in CHANGING}, "curve": curve}


def test_the_golden_cell_is_the_same_to_the_last_bit():
    found, pinned = run_cell(), json.loads(GOLDEN.read_text())
    assert found["metrics"]["status"] == "ok" and len(found["metrics"]["final"]["max@K"]) == 3
    if found == pinned:
        return
    with_versions = f"on {platform.machine()}, python {platform.python_version()}"
    for key, value in pinned["metrics"].items():
        assert found["metrics"].get(key) == value, f"{key} changed ({with_versions})"
    assert found["curve"] == pinned["curve"], f"curve.csv changed ({with_versions})"
    assert found == pinned


if __name__ == "__main__":
    print(json.dumps(run_cell(), indent=1, sort_keys=True))
