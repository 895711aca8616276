"""`dvc repro` that is stopped in the middle of a cell carries on where the cell was."""

import os
import random
import shutil
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
def test_dvc_repro_after_a_kill_carries_on(number, project, dvc, change_policy):
    target, folder = "results/pipeline/bandit/dvc.yaml:train@maxpo", project / "results" / "runs" / "bandit" / "maxpo"
    assert dvc("repro", target).wait() == 0, (project / "output.txt").read_text()
    names = ("metrics.json", "curve.csv.gz")
    undisturbed = {name: (folder / name).read_bytes() for name in names}

    first = dvc("repro", "--force", "--single-item", target)
    wait_for(lambda: len(list((project / ".resume").glob("*/*/*.safetensors"))) or first.poll() is not None)
    time.sleep(random.Random(int(number)).uniform(0, 0.3))
    os.killpg(first.pid, number)
    assert first.wait(20) != 0, "it had ended before it was stopped"
    assert list((project / ".resume").glob("*/*/*.safetensors"))
    shutil.copytree(project / ".resume", project / "kept")

    again = dvc("repro", "--single-item", target)
    assert again.wait() == 0, (project / "output.txt").read_text()
    assert {name: (folder / name).read_bytes() for name in names} == undisturbed
    output = (project / "output.txt").read_text()
    assert "Traceback" not in output, output

    # It went on and did not start anew: another policy in the same checkpoints shows in the results.
    shutil.rmtree(project / ".resume")
    shutil.move(project / "kept", project / ".resume")
    for path in (project / ".resume").glob("*/*/*.safetensors"):
        change_policy(path)
    assert dvc("repro", "--force", "--single-item", target).wait() == 0, (project / "output.txt").read_text()
    assert (folder / "curve.csv.gz").read_bytes() != undisturbed["curve.csv.gz"]
