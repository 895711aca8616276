"""A tiny project whose pipeline ran and was committed, once per session, and clones of it: what only git carries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_tasks

# Seeds and steps enough that a training which goes the wrong way shows as worse.
BANDIT = """
version: 1
kind: bandit
title: Tiny bandit
arms: {count: 4, rewards: linear}
k: 2
group_size: 4
groups: 4
steps: 40
seeds: 8
optimiser: {name: adam, lr: 0.1}
evaluation: {every: 20, prompts: 4, samples: 8}
variance: {groups: 32}
"""


@pytest.fixture(scope="session")
def dvc():
    """dvc(folder, *words) -> CompletedProcess of that DVC command, whose stages run the folder's own copy of the code."""

    def run(folder, *words):
        environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "DVC_NO_ANALYTICS": "1",
        }
        return subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def published(tmp_path_factory, make_project, run_cli):
    """A project of two tasks with committed results. For reading and cloning alone."""
    folder = make_project(tmp_path_factory.mktemp("published") / "a project", bandit=BANDIT, maze=tiny_tasks.MAZE)
    done = run_cli(folder, "run", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["git", "-C", folder, "add", "-A"], check=True)
    subprocess.run(["git", "-C", folder, "commit", "-qm", "results"], check=True)
    return folder


@pytest.fixture
def clone(published, tmp_path):
    """What somebody has who cloned it: no weights, no checkpoints, nothing of DVC's cache."""
    folder = tmp_path / "a clone"
    subprocess.run(["git", "clone", "-q", published, folder], check=True)
    for key, value in (("user.name", "t"), ("user.email", "t@example.org")):
        subprocess.run(["git", "-C", folder, "config", key, value], check=True)
    return folder


@pytest.fixture(scope="session")
def git():
    """git(folder, *words) -> what it prints; it must succeed."""

    def run(folder, *words):
        return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture(scope="session")
def states(run_cli):
    """states(folder) -> {stage: its state, as `maxpo-bench plan` prints it}."""

    def read(folder):
        done = run_cli(folder, "plan")
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        kinds = ("base@", "train@", "variance@", "summary@", "study@")
        return {
            words[0]: " ".join(words[2 + (words[1] != "?") :]).partition(" (")[0]
            for words in lines
            if words and (words[0].startswith(kinds) or words[0] == "report")
        }

    return read
