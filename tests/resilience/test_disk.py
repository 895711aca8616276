"""A full disk, folders closed to writing, files edited by hand, two runs at once: nothing lost, nothing mixed."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from maxpo_bench.machine import files


def one_line(command, *words):
    """The command said one line, with these words, and no traceback."""
    assert command.output.strip().count("\n") == 0, command.output
    for word in words:
        assert word in command.output, command.output


def refused_before_training(project):
    """Start maze-maxpo, which has hours to train, and see it end before its first checkpoint."""
    command = project.start("train", "maze", "maxpo")
    project.wait_for_checkpoints(command)
    running = command.wait(0) is None
    command.send(9, group=True)
    assert not running and command.code == 1, f"it trained: {command.output}"
    return command


def test_a_full_disk_loses_nothing(finished, from_base):
    """Writes beyond 6 kB fail as on a full disk: the old results stay, the cell goes on when there is room again."""
    project = from_base("maze")
    shutil.copytree(finished("maze").cell("maze"), project.cell("maze"))
    before = {path.name: path.read_bytes() for path in project.cell("maze").iterdir() if path.is_file()}
    command = project.run("train", "maze", "maxpo", file_limit=6000)
    assert command.code == 1
    one_line(command, "cannot write", "File too large")
    assert {path.name: path.read_bytes() for path in project.cell("maze").iterdir() if path.is_file()} == before
    assert not list(project.folder.rglob("*.tmp-*")) and not list(project.cell("maze").glob(".*"))
    assert project.run("train", "maze", "maxpo").code == 0
    assert project.bytes("maze") == finished("maze").bytes("maze")


def test_a_disk_that_fills_up_in_training_keeps_the_checkpoint_before(finished, from_base):
    """Room for checkpoints, none for the results: the next run has only the results left to write."""
    project = from_base("bandit")
    project.add("bandit", seeds=24, evaluation="{every: 1, prompts: 4, samples: 8}")  # a long curve
    project.run("base", "bandit")
    command = project.run("train", "bandit", "maxpo", file_limit=50000, MAXPO_BENCH_WORKERS="24")
    assert command.code == 1
    one_line(command, "cannot write", "curve.csv.gz")
    steps = [files.load_tensors(path)[1]["step"] for path in project.checkpoints()]
    assert steps.count(100) == 24 and not project.cell("bandit").joinpath("curve.csv.gz").exists()
    assert project.run("train", "bandit", "maxpo", MAXPO_BENCH_WORKERS="24").code == 0


@pytest.mark.slow
def test_a_small_file_system_that_is_full(finished, from_base, tmp_path):
    """The same on a real one, where that can be mounted."""
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small]).returncode:
        pytest.skip("needs the right to mount")
    try:
        project = from_base("maze")
        (project.folder / ".resume").symlink_to(small)
        command = project.run("train", "maze", "maxpo")
        assert command.code == 1
        one_line(command, "No space left on device")
        assert not list(small.rglob("*.tmp-*"))
    finally:
        subprocess.run(["umount", small], check=True)
    (project.folder / ".resume").unlink()
    assert project.run("train", "maze", "maxpo").code == 0
    assert project.bytes("maze") == finished("maze").bytes("maze")


def test_results_that_cannot_be_written_are_told_before_the_training(finished, from_base):
    """A file stands where the folder should be: works for root as well, whom no permission stops."""
    project = from_base("maze")
    project.add("maze", steps=1000000)  # would take hours
    project.run("base", "maze")
    (project.folder / "results" / "runs").write_text("in the way")
    one_line(refused_before_training(project), "results/runs")


def test_a_read_only_results_folder_is_told_before_the_training(from_base):
    """Closed by its permissions; for root, whom they do not stop, by a read-only mount or without root's privileges."""
    project = from_base("maze")
    project.add("maze", steps=1000000)
    project.run("base", "maze")
    results = project.folder / "results"
    if os.geteuid() == 0:
        if subprocess.run(["mount", "--bind", results, results], capture_output=True).returncode:
            return unprivileged_root(project, results)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", results], check=True)
            command = refused_before_training(project)
        finally:
            subprocess.run(["umount", results], check=True)
    else:
        results.chmod(0o555)
        try:
            command = refused_before_training(project)
        finally:
            results.chmod(0o755)
    one_line(command, "Read-only file system" if os.geteuid() == 0 else "Permission denied", "results")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="the test above does it by permissions")
def test_results_closed_to_a_root_without_privileges(from_base):
    project = from_base("maze")
    project.add("maze", steps=1000000)
    project.run("base", "maze")
    unprivileged_root(project, project.folder / "results")


def unprivileged_root(project, results):
    """Root that may no longer override permissions, in a process of its own."""
    words = ["setpriv", "--bounding-set=-all"]
    if not shutil.which("setpriv") or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount, or setpriv")
    results.chmod(0o555)
    command = [*words, sys.executable, "-m", "maxpo_bench.cli", "train", "maze", "maxpo"]
    try:
        done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=60)
    finally:
        results.chmod(0o755)
    assert done.returncode == 1 and "Permission denied" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def edited(text):
    value = json.loads(text)
    value["rows"] = value["rows"][:1]
    return json.dumps(value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: text[: len(text) // 2], ["not valid JSON", "base.json"]),
        (lambda text: "", ["not valid JSON"]),
        (lambda text: "\x00" * len(text), ["not valid JSON"]),
        (lambda text: "[]", ["results/base/maze", "run `maxpo-bench base maze`"]),
        (lambda text: "7", ["run `maxpo-bench base maze`"]),
        (lambda text: text.replace('"rows"', '"rwos"'), ["edited or cut short", "run `maxpo-bench base maze`"]),
        (lambda text: text.replace('"seed"', '"sede"'), ["edited or cut short"]),
        (edited, ["edited or cut short"]),
    ],
)
def test_a_base_file_cut_short_or_edited_is_one_clear_line(change, words, from_base):
    project = from_base("maze")
    path = project.folder / "results" / "base" / "maze" / "base.json"
    path.write_text(change(path.read_text()))
    command = project.run("train", "maze", "maxpo")
    assert command.code == 2
    one_line(command, *words)
    assert not (project.cell("maze") / "metrics.json").exists()


@pytest.mark.parametrize("what", ["cut short", "gone", "lacks a seed"])
@pytest.mark.parametrize("task", ["maze", "countdown3"])
def test_base_weights_that_are_not_there_are_made_again(task, what, finished, from_base):
    """They are not published: a clone has none, and its cells come out the same."""
    project = from_base(task)
    path = project.folder / "results" / "base" / task / "weights.safetensors"
    whole = path.read_bytes()
    if what == "gone":
        path.unlink()
    elif what == "cut short":
        path.write_bytes(whole[:100])
    else:
        files.save_states(path, files.load_states(path, [1]))
    command = project.run("train", task, "maxpo")
    assert command.code == 0, command.output
    assert project.bytes(task) == finished(task).bytes(task) and path.read_bytes() == whole


def test_base_weights_that_cannot_be_made_again_are_one_clear_line(from_base):
    project = from_base("cartpole")
    folder = project.folder / "results" / "base" / "cartpole"
    base = json.loads((folder / "base.json").read_text())
    base["weights_sha256"][1] = "0" * 64
    (folder / "base.json").write_text(json.dumps(base))
    (folder / "weights.safetensors").unlink()
    command = project.run("train", "cartpole", "maxpo")
    assert command.code == 2
    one_line(command, "seed 1 another base policy", "run `maxpo-bench base cartpole`")
    assert not (folder / "weights.safetensors").exists()


def test_results_of_a_cell_cut_short_are_replaced_whole(finished, from_base):
    project = from_base("maze")
    shutil.copytree(finished("maze").cell("maze"), project.cell("maze"))
    for name in ("metrics.json", "curve.csv.gz"):
        path = project.cell("maze") / name
        path.write_bytes(path.read_bytes()[:50])
    (project.cell("maze") / "checkpoints.safetensors").write_bytes(b"of another run")
    assert project.run("train", "maze", "maxpo").code == 0
    assert project.bytes("maze") == finished("maze").bytes("maze")
    kept = [one.cell("maze") / "checkpoints.safetensors" for one in (project, finished("maze"))]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def test_a_base_stage_that_is_killed_leaves_no_base_that_looks_whole(from_base):
    """The base is made anew: from its start until its end there is no base.json, so old and new weights never mix."""
    project = from_base("countdown3")
    project.add("countdown3", warm_start="{steps: 100000, batch_size: 16}")
    command = project.start("base", "countdown3")
    base = project.folder / "results" / "base" / "countdown3" / "base.json"
    deadline = time.monotonic() + 60
    while base.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    command.send(9)
    assert command.wait(5) == -9 and not base.exists()
    train = project.run("train", "countdown3", "maxpo")
    assert train.code == 2
    one_line(train, "run `maxpo-bench base countdown3` first")


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("cartpole", {"env": "{id: NoSuchPole-v1}"}, "unknown environment 'NoSuchPole-v1'"),
        ("cartpole", {"env": "{id: CartPole-v1, backend: envpool}"}, "envpool"),
        ("cartpole", {"env": "{id: Blackjack-v1}", "score": "{success: 1}"}, "has no time limit of its own"),
        ("countdown3", {"evaluation": "{prompts: 100000, samples: 4}"}, "100000 prompts wanted"),
        ("countdown3", {"sampling": "{max_new_tokens: 1000}"}, "more than the model's context of 512"),
    ],
)
def test_a_base_that_bad_input_refuses_leaves_the_old_one(name, changes, words, from_base):
    project = from_base(name)
    folder = project.folder / "results" / "base" / name
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    project.add(name, **changes)
    command = project.run("base", name)
    assert command.code == 2
    one_line(command, words)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_two_runs_of_one_cell_at_once(from_base):
    """The second is told who runs, at once; the first does not notice."""
    project = from_base("maze")
    project.add("maze", steps=2000)
    project.run("base", "maze")
    first = project.start("train", "maze", "maxpo")
    project.wait_for_checkpoints(first)
    second = project.run("train", "maze", "maxpo")
    assert second.code == 2
    one_line(second, "maze-maxpo", f"process {first.pid}")
    assert first.wait(0) is None, "the first was disturbed"
    first.send(9)
    first.wait(5)
    with files.lock(project.folder / ".resume" / "locks" / "maze-maxpo", "cell"):
        pass  # the lock died with its holder


def test_two_cells_of_one_task_at_once(finished, from_base):
    project = from_base("maze")
    both = [project.start("train", "maze", name) for name in ("maxpo", "rloo")]
    assert [command.wait() for command in both] == [0, 0]
    assert project.bytes("maze") == finished("maze").bytes("maze")
