"""Task files written on the spot."""

import sys
from pathlib import Path

import pytest
import yaml

from maxpo_bench.settings import task_file

sys.path.insert(0, str(Path(__file__).parent))  # tiny_models.py

BASE = {
    "version": 1,
    "title": "test",
    "k": 2,
    "group_size": 8,
    "groups": 3,
    "steps": 3,
    "optimiser": {"name": "adam", "lr": 0.05},
    "evaluation": {"prompts": 2, "samples": 8},
    "score": {"success": 1.0},
}


@pytest.fixture
def make_task(tmp_path):
    """make_task(kind, **keys) -> Task, its YAML in a temporary folder."""

    def make(kind, **keys):
        path = tmp_path / f"{keys.pop('name', 'test')}.yaml"
        path.write_text(yaml.safe_dump({**BASE, "kind": kind, **keys}))
        return task_file.load(str(path))

    return make
