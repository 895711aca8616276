"""A cell killed at any moment ends with the same bytes as one that was not."""

import itertools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from maxpo_bench.machine import files
from maxpo_bench.pipeline import cell
from maxpo_bench.report import load

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 130


def truncate(path):
    """What a power loss leaves of a file whose blocks were not yet on the disk."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def stop_midway(project, task, number=signal.SIGKILL):
    """Start task-maxpo and stop it as soon as every job has a checkpoint. Returns the checkpoints, oldest first."""
    command = project.start("train", task, "maxpo")
    project.wait_for_checkpoints(command, 4)
    command.send(number)
    assert command.wait(5) is not None
    command.workers_end()
    assert project.checkpoints(), f"stopped too early or too late: {command.output}"
    return project.checkpoints()


def kill_often(task, num_kills, finished, from_base):
    """Kill the cell at random moments, every third time with its newest checkpoint cut short; check all endings."""
    reference, moments, signals = finished(task), random.Random(task), itertools.cycle(SIGNALS)
    landed = 0
    while landed < num_kills:
        project = from_base(task)
        ended = False
        while not ended:
            command = project.start("train", task, "maxpo")
            if landed < num_kills:
                time.sleep(0.1 + moments.uniform(0, reference.seconds))
                number = next(signals)
                command.send(number, group=number == signal.SIGINT and landed % 2 == 0)
                assert command.wait(5) is not None, f"still running 5 s after {number.name}"
            ended = command.wait() == 0
            if not ended:
                assert command.code in (-signal.SIGKILL, INTERRUPTED), command.output
                assert "Traceback" not in command.output, command.output
                landed += 1
                if landed % 3 == 0 and project.checkpoints():
                    truncate(project.checkpoints()[-1])
        assert project.bytes(task) == reference.bytes(task)
        assert not project.checkpoints(), "checkpoints are left behind"
        assert not list(project.folder.glob("results/**/.*")), "scratch files are left behind"
    return landed


@pytest.mark.parametrize("task", ["maze", "countdown3"])
def test_kills_at_random_moments_leave_no_trace(task, finished, from_base):
    kill_often(task, 3, finished, from_base)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["maze", "cartpole", "countdown3"])
def test_many_kills_at_random_moments_leave_no_trace(task, finished, from_base):
    assert kill_often(task, 9, finished, from_base) == 9


@pytest.mark.parametrize("task", ["maze", "cartpole", "countdown3"])
def test_a_stopped_cell_goes_on_from_its_checkpoint_and_does_not_start_again(task, finished, from_base, change_policy):
    project = from_base(task)
    for path in stop_midway(project, task):
        change_policy(path)
    assert project.run("train", task, "maxpo").code == 0
    assert project.curve(task) != finished(task).curve(task)


def test_with_a_truncated_newest_checkpoint_the_older_one_serves(finished, from_base, change_policy):
    project = from_base("maze")
    paths = stop_midway(project, "maze")
    by_job = {}
    for path in paths:
        by_job.setdefault(path.name.split(".")[0], []).append(path)
    older, newest = next(pair for pair in by_job.values() if len(pair) == 2)
    truncate(newest)
    shutil.copytree(project.folder / ".resume", project.folder / "kept")
    assert project.run("train", "maze", "maxpo").code == 0
    assert project.bytes("maze") == finished("maze").bytes("maze")

    shutil.rmtree(project.folder / ".resume")
    shutil.move(project.folder / "kept", project.folder / ".resume")
    change_policy(older)
    assert project.run("train", "maze", "maxpo").code == 0
    assert project.bytes("maze") != finished("maze").bytes("maze")


def test_wall_s_is_the_sum_over_the_sessions(from_base):
    """Also of the jobs that had ended, or not begun, when the cell was stopped."""
    project = from_base("maze")
    paths = stop_midway(project, "maze")
    for path in paths:
        tensors, about = files.load_tensors(path)
        assert 0 < about["wall_s"] < 60
        files.save_tensors(path, tensors, {**about, "wall_s": 1000.0})
    assert project.run("train", "maze", "maxpo").code == 0
    timing = json.loads((project.cell("maze") / "timing.json").read_text())
    assert 1000 < timing["wall_s"] < 1100


def test_checkpoints_of_another_task_file_are_not_continued(finished, from_base, change_policy):
    project = from_base("maze")
    for path in stop_midway(project, "maze"):
        change_policy(path)
    text = (project.folder / "tasks" / "maze.yaml").read_text()
    project.add("maze", title="Another title")
    assert project.run("base", "maze").code == 0 and project.run("train", "maze", "maxpo").code == 0
    assert project.curve("maze") == finished("maze").curve("maze")
    assert text != (project.folder / "tasks" / "maze.yaml").read_text()


@pytest.mark.parametrize(
    "task, number, group",
    [
        ("maze", signal.SIGINT, True),
        ("maze", signal.SIGINT, False),
        ("maze", signal.SIGTERM, False),
        ("cartpole", signal.SIGINT, True),
        ("countdown3", signal.SIGINT, True),
    ],
)
def test_ctrl_c_ends_within_5_seconds_with_one_line(task, number, group, from_base):
    project = from_base(task)
    project.add(task, steps=100000)  # only the start is run
    assert project.run("base", task).code == 0
    command = project.start("train", task, "maxpo", MAXPO_BENCH_CHECKPOINT_SECONDS="0.02")
    project.wait_for_checkpoints(command)
    start = time.monotonic()
    command.send(number, group)
    assert command.wait(10) == INTERRUPTED and time.monotonic() - start < 5
    assert command.output.strip().count("\n") == 0 and "interrupted" in command.output, command.output
    assert "continues" in command.output
    with pytest.raises(ProcessLookupError):
        os.killpg(command.pid, 0)  # no worker lives on


@pytest.mark.parametrize("task", ["cartpole", "countdown3"])
def test_ctrl_c_during_the_base_stage_is_one_line(task, new_project):
    project = new_project()
    project.add(task, **({"warm_start": "{steps: 100000, batch_size: 16}"} if task == "countdown3" else {"seeds": 5000}))
    command = project.start("base", task)
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    deadline = time.monotonic() + 60
    while children.exists() and not children.read_text() and command.wait(0) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    start = time.monotonic()
    command.send(signal.SIGINT, group=True)
    assert command.wait(10) == INTERRUPTED and time.monotonic() - start < 5
    assert command.output.strip().count("\n") == 0 and "interrupted" in command.output, command.output


def test_workers_do_not_outlive_a_killed_parent(from_base):
    project = from_base("maze")
    project.add("maze", steps=100000)
    project.run("base", "maze")
    command = project.start("train", "maze", "maxpo")
    project.wait_for_checkpoints(command)
    command.send(signal.SIGKILL)
    assert command.wait(5) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(command.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(command.pid, signal.SIGKILL)
    pytest.fail("workers went on for 5 s after their parent was killed")


def test_a_worker_that_is_killed_fails_the_cell_and_nothing_is_lost(finished, from_base):
    project = from_base("maze")
    command = project.start("train", "maze", "maxpo")
    project.wait_for_checkpoints(command)
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    assert command.wait(30) == 1
    metrics = project.metrics("maze")
    assert metrics["status"] == "failed" and "out of memory" in metrics["reason"]
    assert project.checkpoints()
    assert project.run("train", "maze", "maxpo").code == 0
    assert project.bytes("maze") == finished("maze").bytes("maze")


def test_a_kill_while_the_results_are_replaced(finished, from_base):
    """The process ends before its first, second, ... rename, or just after the last: half a set of files is no result."""
    project, reference = from_base("maze"), finished("maze")
    folder, kept = project.cell("maze"), project.folder / "kept"
    (project.folder / "params.yaml").write_text("tasks: [maze]\nestimators: [maxpo]\nstudies: [centring]\nvariance_policy: maxpo\n")
    for num_done in range(7):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(reference.cell("maze"), folder)
        (folder / "metrics.json").write_text(json.dumps({**reference.metrics("maze"), "reason": "of an older run"}))
        pid = os.fork()
        if not pid:
            die_while_replacing(project.folder, folder, num_done)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == DEAD
        if not num_done:  # from now on only the last step, writing the results, is left to do
            shutil.copytree(project.folder / ".resume", kept)
        if num_done < 6:
            assert not (folder / "metrics.json").exists(), num_done
            found = load.read(project.folder).cells["maze", "maxpo"]
            assert found.status == "missing" and not found.usable
        else:
            assert project.bytes("maze") == reference.bytes("maze")
        assert project.run("train", "maze", "maxpo").code == 0
        assert project.bytes("maze") == reference.bytes("maze")
        weights = [(one.cell("maze") / "checkpoints.safetensors").read_bytes() for one in (project, reference)]
        assert weights[0] == weights[1]
        assert not list(folder.glob(".*")) and not project.checkpoints()
        shutil.rmtree(project.folder / ".resume")
        shutil.copytree(kept, project.folder / ".resume")


DEAD = 77


def die_while_replacing(root, folder, num_done):
    """In a forked child: run the cell and end, without any cleaning up, after so many renames into its folder."""
    code, count, replace = 70, 0, os.replace

    def counting(source, target):
        nonlocal count
        mine = Path(target).parent == folder
        if mine and count == num_done:
            os._exit(DEAD)
        replace(source, target)
        count += mine
        if count == 6:
            os._exit(DEAD)

    try:
        os.chdir(root)
        os.replace = counting
        code = cell.run_cell("maze", "maxpo")
    finally:
        os._exit(code)
