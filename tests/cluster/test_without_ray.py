"""The parts of `--on ray` that need no Ray: what is chosen, sent, put back and recorded; processes and folders of a node."""

import os
import subprocess
import sys
import time

import pytest

from maxpo_bench.cluster import estimate, worker
from maxpo_bench.cluster.nodes import Nodes, address_of
from maxpo_bench.cluster.stages import Pipeline, resources
from maxpo_bench.errors import InputError
from maxpo_bench.pipeline.plan import declared
from maxpo_bench.settings import task_file

BANDIT = """
version: 1
kind: bandit
title: Tiny bandit
arms: {count: 4, rewards: linear}
k: 2
group_size: 4
groups: 2
steps: 6
seeds: 3
optimiser: {lr: 0.1}
"""
PARENT = """
import os, sys, time
from pathlib import Path
from maxpo_bench.cluster import worker
process = worker.start_command("sleep 60 & sleep 60", sys.argv[1], dict(os.environ), Path(sys.argv[1]) / "log")
print(process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, make_project):
    tasks = {"bandit": BANDIT + "resources: {cpus: 2, gpus: 0.5, memory: 3 GB}\n", "another": BANDIT}
    return Pipeline(make_project(tmp_path_factory.mktemp("pipeline") / "project", **tasks))


def labels(stages):
    return {stage.label for stage in stages}


@pytest.mark.parametrize("where, address", [("ray", "local"), ("ray:auto", "auto"), ("ray:10.0.0.1:6379", "10.0.0.1:6379")])
def test_addresses(where, address):
    assert address_of(where) == address


@pytest.mark.parametrize("where", ["", "ray:", "slurm", "rays", "ray:ray://10.0.0.1:10001"])
def test_other_addresses_are_refused_in_one_line(where):
    with pytest.raises(InputError, match="^--on .*ray:auto"):
        address_of(where)


def test_without_ray_one_line_says_how_to_install_it(monkeypatch, capsys):
    from maxpo_bench import cli

    monkeypatch.setitem(sys.modules, "ray", None)
    for words in (["repro", "--on", "ray"], ["run", "bandit", "--on", "ray"]):
        assert cli.main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and 'pip install "maxpo-bench[suite,ray]"' in error


class OneNodeLess:
    """What Nodes asks Ray: two nodes of two cores, of which the second is lost."""

    def __init__(self):
        self.lost = False

    def nodes(self):
        about = {"NodeManagerHostname": "host", "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 2.0}}
        return [{**about, "NodeID": name * 16, "Alive": not (self.lost and name == "b")} for name in "ab"]


def test_a_node_that_is_lost_is_said_once_and_its_slots_are_gone():
    ray, lines = OneNodeLess(), []
    nodes = Nodes(ray, lines.append)
    assert nodes.slots == 4 and lines == []
    ray.lost, nodes.next_look = True, 0.0
    nodes.look()
    nodes.next_look = 0.0
    nodes.look()
    assert nodes.slots == 2 and lines == ["node host (10.0.0.1, bbbbbbbb) is lost; what ran there goes on elsewhere"]


def test_what_is_chosen(pipeline):
    params = declared(pipeline.root)
    cells = {f"train {task} {name}" for task in ("bandit", "another") for name in ("rloo", "pkpo", "maxpo")}
    others = {f"{kind} {task}" for kind in ("base", "variance", "summary") for task in ("bandit", "another")}
    assert labels(pipeline.choose(params)) == cells | others | {"study centring", "report"}
    of_one = {label for label in cells | others if "bandit" in label}
    assert labels(pipeline.choose(params, ["bandit"])) == of_one | {"report"}


def test_what_a_stage_waits_for_reads_and_asks_for(pipeline):
    by_label = {stage.label: stage for stage in pipeline.stages.values()}
    assert labels(by_label["variance bandit"].waits) == {"train bandit maxpo"}
    assert labels(by_label["summary bandit"].waits) >= {"train bandit rloo", "variance bandit"}
    assert resources(pipeline.root, by_label["base bandit"]) == (2, 0.5, 3 * 10**9)
    assert resources(pipeline.root, by_label["study centring"]) == (1, 0, 0)
    for name in ("base/bandit/weights.safetensors", "base/bandit/base.json", "runs/bandit/maxpo/metrics.json"):
        (pipeline.root / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (pipeline.root / "results" / name).write_text("{}")
    pipeline.freeze(set(pipeline.stages.values()))
    sent, paths = pipeline.read_by(by_label["variance bandit"])
    assert paths == ("results/base/bandit", "results/runs/bandit/maxpo")
    assert sent["maxpo_bench/measure/variance.py"] and "params.yaml variance_policy" in sent
    back = pipeline.returned(by_label["base bandit"])
    assert back[0] == "results/base/bandit/base.json" and "results/base/bandit/weights.safetensors" in back


def test_uncommitted_edits_travel_and_results_do_not(pipeline, tmp_path):
    (pipeline.root / "tasks" / "new.py").write_text("new = 1\n")
    worker.unpack(pipeline.freeze(()), tmp_path)
    assert (tmp_path / "tasks" / "new.py").read_text() == "new = 1\n"
    assert (tmp_path / "maxpo_bench" / "cli.py").is_file() and not (tmp_path / "results").exists()


def test_what_comes_back_is_recorded_once_and_only_when_it_is_what_was_sent(pipeline, tmp_path):
    stages = {stage.label: stage for stage in pipeline.stages.values()}
    base, cell = stages["base bandit"], stages["train bandit rloo"]
    pipeline.freeze({base, cell})
    for stage in (base, cell):
        for out in stage.outs:
            (tmp_path / out).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / out).write_text(f"{stage.label}\n")
        assert pipeline.changed(stage)
        sent, _ = pipeline.read_by(stage)
        pipeline.put(stage, worker.pack(tmp_path, pipeline.returned(stage)))
        pipeline.note(stage, sent)
    edited = pipeline.root / "maxpo_bench" / "estimators" / "rloo.py"
    before = edited.read_bytes()
    edited.write_bytes(before + b"# edited\n")
    left = Pipeline(pipeline.root).record()  # another driver, after this one was killed
    assert left == {"train bandit rloo": "maxpo_bench/estimators/rloo.py changed while it ran"}
    edited.write_bytes(before)
    again = Pipeline(pipeline.root)
    assert again.record() == {}
    changed = {stage.label: again.changed(stage) for stage in again.stages.values()}
    assert not changed["base bandit"] and changed["train bandit rloo"]


def test_a_stage_without_its_outputs_is_none_that_ended_well(pipeline):
    from maxpo_bench.errors import Fault

    (stage,) = (stage for stage in pipeline.stages.values() if stage.label == "train another pkpo")
    with pytest.raises(Fault, match="metrics.json was not written"):
        pipeline.note(stage, {})


def test_times_come_from_the_committed_ones(tmp_path):
    class Stage:
        def __init__(self, key, *waits):
            self.key, self.command, self.waits = key, f"maxpo-bench {key}", set(waits)

    base = Stage("base t")
    cells = [Stage(f"train t e{i}", base) for i in range(4)]
    for i in range(4):
        folder = tmp_path / "results" / "runs" / "t" / f"e{i}"
        folder.mkdir(parents=True)
        (folder / "timing.json").write_text('{"wall_s": 9, "num_workers": 2}')
    stages = {base, *cells}
    known = {stage: estimate.seconds(tmp_path, stage) for stage in stages}
    assert known[base] is None and known[cells[0]] == 20  # on one core, with the start of a process
    after = estimate.followers(stages)
    rank = estimate.ranks(after, known)
    assert max(rank, key=rank.get) is base and rank[base] == 22
    ones = dict.fromkeys(stages, 1)
    assert estimate.left(stages, known, ones, rank, 2) == 41 and estimate.left(stages, known, ones, rank, 50) == 22


def test_a_node_says_what_is_other_than_wanted():
    here = worker.about(["numpy", "nowhere"])
    assert here["nowhere"] == "not installed" and worker.unfit(here) == ""
    assert worker.unfit({**here, "numpy": "0.0.1"}) == f"numpy is {here['numpy']} there, 0.0.1 here"


def test_a_command_does_not_outlive_whoever_started_it(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(task_file.root())}
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    group = int(parent.stdout.readline())
    os.killpg(group, 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        running = subprocess.run(["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True).stdout.split()
        if all(state.startswith("Z") for state in running):
            return
        time.sleep(0.05)
    raise AssertionError(running)


def test_scratch_folders_of_dead_stages_are_swept_and_those_in_use_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))
    parent = tmp_path / f"maxpo-bench-{os.getuid()}"
    (parent / "dead").mkdir(parents=True)
    (parent / "dead.lock").touch()
    with worker.scratch("one") as (one, _):
        (one / "file").touch()
        with worker.scratch("two") as (two, _):
            assert (one / "file").is_file() and two.is_dir() and not (parent / "dead").exists()
            monkeypatch.setattr(worker, "LOCK_S", 0.2)
            with pytest.raises(RuntimeError, match="still runs"), worker.scratch("one"):
                pass
    assert list(parent.iterdir()) == []


def test_checkpoints_go_to_the_keeper_and_back(tmp_path, monkeypatch):
    class Remote:  # as an actor handle, at once
        def __init__(self, method):
            self.remote = method

    class Handle:
        def __init__(self, keeper):
            self.save = Remote(keeper.save)

    class Ray:
        get = staticmethod(lambda value: value)

    monkeypatch.setitem(sys.modules, "ray", Ray)
    keeper, folder = worker.Keeper(tmp_path / "kept"), tmp_path / ".resume"
    relay = worker.Relay(Handle(keeper), "stage", folder)
    for name in ("cell/key/a.safetensors", "cell/key/b.safetensors", "locks/cell"):
        worker.write(folder / name, name.encode())
    relay.send()
    assert set(keeper.load("stage")) == {"cell/key/a.safetensors", "cell/key/b.safetensors"}
    (folder / "cell/key/a.safetensors").unlink()
    worker.write(folder / "cell/key/b.safetensors", b"newer")
    relay.send()
    assert keeper.load("stage") == {"cell/key/b.safetensors": b"newer"} and keeper.load("another") == {}


def test_plan_says_how_long_it_takes_on_how_many_slots(project, run_cli):
    done = run_cli(project, "plan", "--on", "ray", MAXPO_BENCH_WORKERS="4")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("on Ray, this machine: 14 stages, 14 to run: at least ") and "on 4 slots" in last
