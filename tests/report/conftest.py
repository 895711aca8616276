"""The generator of made-up results and the helpers beside it are imported by name; one project that many tests look at."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Three tasks with one cell of each bad kind, built once."""
    import synthetic
    from pages import ESTIMATORS, EVIL, TASKS

    from maxpo_bench.report import build

    root = synthetic.write(tmp_path_factory.mktemp("report"), TASKS, ESTIMATORS)
    runs = root / "results" / "runs"
    (runs / "maze" / "rloo" / "metrics.json").unlink()
    synthetic.edit(root, "maze", "pkpo", lambda m: (m.update(status="failed", reason=EVIL), m.pop("final")))
    synthetic.edit(root, "frozenlake", "rloo", lambda m: m.update(status="diverged", reason="seed 1: loss is NaN at step 12"))
    synthetic.edit(root, "frozenlake", "pkpo", lambda m: m["final"]["max@K"].__setitem__(2, math.nan))
    (runs / "frozenlake" / "passk_training" / "metrics.json").write_text('{"task": "froz')
    assert build(root) == 0
    return root
