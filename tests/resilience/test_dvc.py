"""`dvc repro` that is stopped in the middle of a cell carries on where the cell was."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def dvc(project):
    """dvc(*words) -> Popen of that dvc command in the project, a session of its own."""
    path = project / "tasks" / "bandit.yaml"
    path.write_text(path.read_text().replace("steps: 6", "steps: 3000").replace("every: 2", "every: 500"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(project),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MAXPO_BENCH_CHECKPOINT_SECONDS": "0.1",
        "DVC_NO_ANALYTICS": "1",
    }

    def start(*words):
        with open(project / "output.txt", "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "dvc", *words],
                cwd=project,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    return start


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_dvc_repro_after_a_kill_carries_on(number, project, dvc):
    target, folder = "train@bandit-maxpo", project / "results" / "runs" / "bandit" / "maxpo"
    assert dvc("repro", target).wait() == 0, (project / "output.txt").read_text()
    names = ("metrics.json", "curve.csv")
    undisturbed = {name: (folder / name).read_bytes() for name in names}

    first = dvc("repro", "--force", "--single-item", target)
    wait_for(lambda: len(list((project / ".resume").glob("*/*/*.safetensors"))) or first.poll() is not None)
    time.sleep(random.Random(int(number)).uniform(0, 0.3))
    os.killpg(first.pid, number)
    assert first.wait(20) != 0, "it had ended before it was stopped"
    assert list((project / ".resume").glob("*/*/*.safetensors"))

    again = dvc("repro", "--single-item", target)
    assert again.wait() == 0, (project / "output.txt").read_text()
    assert {name: (folder / name).read_bytes() for name in names} == undisturbed
    output = (project / "output.txt").read_text()
    assert "Traceback" not in output, output
