"""One thread per process in the tests, as in the cells; and a tiny project to run whole pipelines in."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from maxpo_bench.machine import numerics  # noqa: E402

numerics.ask()  # before numpy and torch are imported: one thread, and the bits of every machine
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell: what we start would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402

from tests import tiny_tasks  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

TINY_BANDIT = """
version: 1
kind: bandit
title: Tiny bandit
arms: {count: 4, rewards: linear}
k: 2
group_size: 4
groups: 2
steps: 6
seeds: 3
optimiser: {name: adam, lr: 0.1}
evaluation: {every: 2, prompts: 4, samples: 8}
variance: {groups: 32}
"""


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_project():
    """make_project(folder, **texts of task files) -> the folder, new: the pipeline's files and no results, under git and DVC."""

    def make(folder, **tasks):
        folder.mkdir()
        for name in ("dvc.yaml", ".dvcignore", ".gitignore", "claims.yaml"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
        shutil.copytree(ROOT / "maxpo_bench", folder / "maxpo_bench", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "tasks").mkdir()
        for name, text in tasks.items():
            (folder / "tasks" / f"{name}.yaml").write_text(text)
        (folder / "params.yaml").write_text(
            f"tasks: [{', '.join(tasks)}]\nestimators: [rloo, pkpo, maxpo]\n"
            "studies: [centring]\nstudies_of_tasks: []\nvariance_policy: maxpo\n"
        )
        from maxpo_bench.pipeline import dvc_files

        dvc_files.write(folder, list(tasks))
        subprocess.run(["git", "init", "-q", folder], check=True)
        for key, value in (("user.name", "t"), ("user.email", "t@example.org")):
            subprocess.run(["git", "-C", folder, "config", key, value], check=True)
        subprocess.run(["git", "-C", folder, "add", "-A"], check=True)
        subprocess.run(["git", "-C", folder, "commit", "-qm", "start"], check=True)
        return folder

    return make


@pytest.fixture
def project(tmp_path, make_project):
    """A folder with the pipeline's files, tiny tasks and no results, under git and DVC. Runs no stage."""
    return make_project(tmp_path / "a project", bandit=TINY_BANDIT, countdown3=tiny_tasks.COUNTDOWN)


@pytest.fixture(scope="session")
def run_cli():
    """run_cli(folder, *words, **env) -> CompletedProcess of `maxpo-bench words` in that folder, with its own copy of the code."""

    def run(folder, *words, **env):
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **env}
        command = [sys.executable, "-m", "maxpo_bench.cli", *words]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run
