"""results/trained.csv: the hash of every table and cell beyond the default ones.

The report depends on this file, which no stage owns, and not on what it lists: DVC would have it wait for hours of training.
Whatever trains such a table or cell writes it anew at its end. Imports no torch.
"""

from maxpo_bench.machine import files

NAME = "trained.csv"
LISTED = ("trained/*/*.csv", "own_best/*/*/metrics.json", "estimators/*/*/metrics.json")


def write_index(results):
    """Write <results>/trained.csv, from what lies there."""
    paths = sorted(path for pattern in LISTED for path in results.glob(pattern))
    lines = ["path,sha256", *(f"{path.relative_to(results).as_posix()},{files.sha256(path)}" for path in paths)]
    files.write_bytes(results / NAME, "".join(f"{line}\n" for line in lines).encode())
