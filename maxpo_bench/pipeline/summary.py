"""The summary stage: results/summary/<task>.csv, what became of each cell of a task in one line. Imports no torch.

A reader (or `git diff`) sees a task's results here; and since each line has the hashes of its cell's files, who depends on
this table depends on all of them.
"""

import math
import statistics

from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.settings import params, task_file

MEASURES = ("max@K", "pass@K", "pass@1", "mean_reward")
HASHED = ("metrics.json", "curve.csv.gz", "ladder.csv.gz", "timing.json")


def run_summary(name):
    """Write results/summary/<name>.csv: a row per estimator of params.yaml. Returns the exit code."""
    root = task_file.root()
    rows = [row(root / "results" / "runs" / name / estimator, estimator) for estimator in params.read(root)["estimators"]]
    files.write_csv(root / "results" / "summary" / f"{name}.csv", rows)
    return 0


def row(folder, estimator):
    """One cell: estimator, status, seeds, mean and standard error over seeds of each measure, hashes of its files."""
    found = {"estimator": estimator, "status": "missing", "seeds": 0}
    found |= {f"{measure}{what}": "" for measure in MEASURES for what in ("", " standard error")}
    try:
        metrics = files.read_json(folder / "metrics.json")
        found["status"] = metrics["status"]
        for measure, values in metrics.get("final", {}).items():
            numbers = [value for value in values if isinstance(value, float | int)] if measure in MEASURES else []
            if numbers:
                found["seeds"] = len(numbers)
                found[measure] = statistics.fmean(numbers)
            if len(numbers) > 1:
                found[f"{measure} standard error"] = statistics.stdev(numbers) / math.sqrt(len(numbers))
    except (OSError, InputError, KeyError, TypeError, AttributeError):
        found["status"] = "missing"
    return found | {f"sha256 of {name}": files.sha256(folder / name) if (folder / name).is_file() else "" for name in HASHED}
