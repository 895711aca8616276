"""Whole cells in folders of their own, to be killed, starved and contradicted."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maxpo_bench.machine import files

MAZE = """
version: 1
kind: tabular
title: Small maze
env:
  id: maxpo_bench/Maze-v0
  kwargs: {size: 9, layout: 0, decoy: 0.5, guard: 0.6, decoy_distance: 5, num_starts: 8}
  max_episode_steps: 20
k: 4
group_size: 8
groups: 4
steps: 60
seeds: 4
optimiser: {name: adam, lr: 0.05}
evaluation: {every: 15, prompts: 4, samples: 8}
"""

BANDIT = """
version: 1
kind: bandit
title: Small bandit
arms: {count: 4, rewards: linear}
k: 2
group_size: 4
groups: 2
steps: 100
seeds: 4
optimiser: {name: adam, lr: 0.1}
evaluation: {every: 25, prompts: 4, samples: 8}
"""

CARTPOLE = """
version: 1
kind: gymnasium
title: Short cartpole
env: {id: CartPole-v1, max_episode_steps: 20}
policy: {hidden: [8]}
outcome: {type: normalised, low: 0, high: 20}
k: 2
group_size: 4
groups: 2
steps: 40
seeds: 3
optimiser: {name: adam, lr: 0.01}
evaluation: {every: 10, prompts: 2, samples: 4}
"""

COUNTDOWN = """
version: 1
kind: countdown
title: Small countdown
data: {digits: 3}
model: {hidden_size: 16, layers: 1, heads: 2, mlp_size: 16}
warm_start: {steps: 20, batch_size: 16}
sampling: {max_new_tokens: 6}
k: 2
group_size: 4
groups: 4
steps: 25
seeds: 2
optimiser: {lr: 1e-3}
evaluation: {every: 5, prompts: 4, samples: 4}
"""

TASKS = {"maze": MAZE, "bandit": BANDIT, "cartpole": CARTPOLE, "countdown3": COUNTDOWN}
REPEATABLE = ("metrics.json", "curve.csv.gz", "ladder.csv.gz")


def session_of(pid):
    try:
        return os.getsid(int(pid))
    except ProcessLookupError:
        return None


class Command:
    """One `maxpo-bench` command that is running or has ended."""

    def __init__(self, ask, pid, output):
        self.ask, self.pid, self.file, self.code = ask, pid, output, None

    def wait(self, seconds=120):
        """The exit code; None when it still runs after so many seconds. A negative one is the signal that killed it."""
        if self.code is None:
            self.code = self.ask(wait=self.pid, seconds=seconds)
        return self.code

    def send(self, number, group=False):
        """group: to the workers too, as a terminal's Ctrl-C does."""
        if self.wait(0) is None:
            (os.killpg if group else os.kill)(self.pid, number)

    def workers_end(self, seconds=30):
        """Workers of a killed command end at their next step: wait until no process of its session is left."""
        deadline = time.monotonic() + seconds
        while any(session_of(path.name) == self.pid for path in Path("/proc").glob("[0-9]*")):
            assert time.monotonic() < deadline, "a worker outlives the command"
            time.sleep(0.02)

    @property
    def output(self):
        return self.file.read_text()


class Project:
    """A folder with tasks and results, and commands run in it."""

    def __init__(self, folder, ask):
        self.folder, self.ask, self.count = folder, ask, 0
        (folder / "tasks").mkdir(parents=True)
        (folder / "params.yaml").write_text("tasks: []\n")

    def add(self, name, text=None, **changes):
        """Write tasks/<name>.yaml; changes: replacements of top-level one-line keys."""
        lines = (text or TASKS[name]).strip().splitlines()
        for key, value in changes.items():
            lines = [line for line in lines if not line.startswith(f"{key}:")] + [f"{key}: {value}"]
        (self.folder / "tasks" / f"{name}.yaml").write_text("\n".join(lines) + "\n")

    def start(self, *argv, cwd=None, file_limit=0, **env):
        self.count += 1
        output = self.folder / f"output-{self.count}.txt"
        output.touch()
        env = {"MAXPO_BENCH_WORKERS": "2", "MAXPO_BENCH_CHECKPOINT_SECONDS": "0.02", **env}
        pid = self.ask(argv=argv, cwd=str(cwd or self.folder), env=env, output=str(output), file_limit=file_limit)
        return Command(self.ask, pid, output)

    def run(self, *argv, **options):
        command = self.start(*argv, **options)
        if command.wait() is None:
            command.send(signal.SIGKILL, group=True)
            raise AssertionError(f"{argv} did not end: {command.output}")
        return command

    def cell(self, task, estimator="maxpo"):
        return self.folder / "results" / "runs" / task / estimator

    def metrics(self, task, estimator="maxpo"):
        return json.loads((self.cell(task, estimator) / "metrics.json").read_text())

    def bytes(self, task, estimator="maxpo"):
        """What must repeat byte for byte."""
        return {name: (self.cell(task, estimator) / name).read_bytes() for name in REPEATABLE}

    def curve(self, task, estimator="maxpo"):
        """The lines of curve.csv.gz."""
        return gzip.decompress((self.cell(task, estimator) / "curve.csv.gz").read_bytes()).decode().splitlines()

    def wait_for_checkpoints(self, command, count=1):
        """Until so many are there; a command that writes none fails the test instead of keeping it."""
        deadline = time.monotonic() + 60
        while len(self.checkpoints()) < count and command.wait(0) is None:
            assert time.monotonic() < deadline, f"no {count} checkpoints after 60 s: {command.output}"
            time.sleep(0.005)

    def checkpoints(self):
        return sorted((self.folder / ".resume").glob("*/*/*.safetensors"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="session")
def spawner():
    """ask(**request): one process that forks all the commands of the session."""
    command = [sys.executable, str(Path(__file__).with_name("spawner.py"))]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )

    def ask(**request):
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    process.stdin.write(json.dumps([MAZE, BANDIT, COUNTDOWN]) + "\n")
    yield ask
    process.stdin.close()
    process.wait(300)  # a busy machine takes its time


@pytest.fixture
def new_project(spawner, tmp_path_factory):
    return lambda: Project(tmp_path_factory.mktemp("project"), spawner)


@pytest.fixture(scope="session")
def finished(spawner, tmp_path_factory):
    """finished(task) -> a Project whose base and whose cell task-maxpo ran undisturbed; made once per task."""
    made = {}

    def get(task):
        if task not in made:
            project = Project(tmp_path_factory.mktemp(f"finished-{task}"), spawner)
            project.add(task)
            for argv in (("base", task), ("train", task, "maxpo")):
                start = time.monotonic()
                command = project.run(*argv)
                assert command.code == 0, command.output
            project.seconds = time.monotonic() - start  # of the cell
            made[task] = project
        return made[task]

    return get


@pytest.fixture
def from_base(new_project, finished):
    """from_base(task) -> a fresh Project whose base stage is done (copied from the finished one)."""

    def make(task):
        project = new_project()
        project.add(task)
        shutil.copytree(finished(task).folder / "results" / "base", project.folder / "results" / "base")
        return project

    return make


@pytest.fixture(scope="session")
def change_policy():
    """change_policy(path): rewrite a checkpoint with another policy in it: whole, but telling."""
    import torch

    def change(path):
        tensors, about = files.load_tensors(path)
        for name, tensor in tensors.items():
            if name.startswith("policy/"):
                tensors[name] = tensor + torch.linspace(-2, 2, tensor.numel(), dtype=tensor.dtype).reshape(tensor.shape)
        files.save_tensors(path, tensors, about)

    return change
