"""`--on ray` on a real cluster of Ray nodes on this machine: the same bytes, and whatever may happen to nodes and driver."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from maxpo_bench.machine import files
from tests import tiny_tasks

ray = pytest.importorskip("ray", reason="ray is not installed (the extra `ray`)")
pytestmark = pytest.mark.slow

BANDIT = """
version: 1
kind: bandit
title: Small bandit
arms: {{count: 4, rewards: {rewards}}}
k: 2
group_size: 4
groups: 2
steps: {steps}
seeds: 3
optimiser: {{name: adam, lr: 0.1}}
evaluation: {{every: 0, prompts: 4, samples: 8}}
variance: {{groups: 8}}
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
steps: 4
seeds: 3
optimiser: {name: adam, lr: 0.01}
evaluation: {prompts: 2, samples: 4}
variance: {groups: 8}
"""
FAST, LONG = BANDIT.format(rewards="linear", steps=6), BANDIT.format(rewards="linear", steps=3000)
REPEATABLE = ("metrics.json", "curve.csv.gz", "ladder.csv.gz", "provenance.json", "base.json", "variance.csv")
BROKEN = """
import torch
from maxpo_bench.policies.tabular import TabularPolicy
from maxpo_bench.problems import Evaluation, Problem


class Broken(Problem):
    def __init__(self, *args):
        super().__init__(*args)
        if self.task.section("options").get("at_start"):
            self.sample()

    def initial_policy(self):
        return TabularPolicy(torch.zeros(len(self.seeds), 1, 3, dtype=torch.float64))

    def evaluate(self, policy, step, prompts, samples):
        return Evaluation(torch.zeros(len(self.seeds), prompts, samples, dtype=torch.float64).numpy())

    def sample(self, *args, **kwargs):
        print("x" * 5000)
        raise OSError("the simulator is gone")
"""


class Nodes:
    """A cluster on loopback: a head without slots, where drivers run, and nodes with one slot each."""

    def __init__(self, folder):
        from ray.cluster_utils import Cluster

        self.tmp = folder
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address = self.cluster.address

    def add(self, tries=3, **options):
        """Ray gives a node 30 s to start, which is short where much else runs."""
        try:
            return self.cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, **options)
        except Exception:
            if tries == 1:
                raise
            return self.add(tries - 1, **options)

    def remove(self, node):
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def short_tmp(tmp_path_factory):
    """TMPDIR of all processes, short: Ray puts sockets there."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is not to lie in it
    folder, before = Path(tempfile.mkdtemp(prefix="mb", dir="/tmp")), {n: os.environ.get(n) for n in ("TMPDIR", "RAY_AUTH_MODE")}
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    os.environ["RAY_AUTH_MODE"] = "disabled"  # whatever token this machine has
    yield folder
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    tempfile.tempdir = None
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes(short_tmp):
    made = Nodes(short_tmp)
    for _ in range(2):
        made.add()
    made.cluster.wait_for_nodes()
    yield made
    made.cluster.shutdown()


@pytest.fixture
def new_project(make_project, tmp_path):
    """new_project(name, **tasks) -> a project whose report needs no study."""

    def make(name="project", estimators=("maxpo",), **tasks):
        folder = make_project(tmp_path / name, **tasks)
        (folder / "results" / "studies").mkdir(parents=True)
        params = folder / "params.yaml"
        params.write_text(params.read_text().replace("[rloo, pkpo, maxpo]", f"[{', '.join(estimators)}]"))
        return folder

    return make


class Driver:
    """A `maxpo-bench` command that runs in a project."""

    def __init__(self, folder, *words, **env):
        self.folder, self.output = folder, folder.parent / f"output-{time.monotonic_ns()}.txt"
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", **env}
        if words[-1] == "ray":  # one of its own, with a token of its own
            environment.pop("RAY_AUTH_MODE")
        with open(self.output, "wb") as file:
            command = [sys.executable, "-m", "maxpo_bench.cli", *words]
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)

    @property
    def text(self):
        return self.output.read_text()

    def wait(self, code=0):
        assert self.process.wait(600) == code, self.text
        return self.text

    def until(self, happened, seconds=300):
        """What happened() gives, once that is true; fails when the command ends before."""
        deadline = time.monotonic() + seconds
        while not (found := happened()):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)
        return found


@pytest.fixture
def start():
    """start(folder, *words, **env) -> a Driver; none is left behind."""
    made = []

    def begin(*args, **env):
        made.append(Driver(*args, **env))
        return made[-1]

    yield begin
    for driver in made:
        if driver.process.poll() is None:
            driver.process.kill()
            driver.process.wait()


def cells(tmp):
    """Command lines of what runs in a scratch folder below tmp."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd").startswith(f"{tmp}/maxpo-bench-"):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def gone_after(tmp, seconds):
    deadline = time.monotonic() + seconds
    while (left := cells(tmp)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def kept(folder):
    """(path, step) of the newest checkpoint that the driver's machine keeps, or None."""
    found = []
    for path in folder.glob(".resume/ray/checkpoints/train-*/*/*/*.safetensors"):
        try:
            found.append((files.load_about(path)["step"], path))
        except Exception:  # replaced at this moment
            continue
    return max(found, default=None)


def results(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted((folder / "results").rglob("*")) if p.name in REPEATABLE}


def dvc(folder, *words):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
    return subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, env=environment, capture_output=True, text=True)


def pipelines(*tasks):
    return [f"results/pipeline/{task}/dvc.yaml" for task in tasks]


@pytest.mark.parametrize("where", ["ray:127.0.0.1:9", "ray:auto"])
@pytest.mark.parametrize("note", [True, False])
def test_a_cluster_that_is_not_there_is_one_line(where, note, new_project, short_tmp):
    """Also one that was: Ray would wait for the address that `ray start` wrote down. First here: later one of ours runs."""
    folder = new_project(bandit=FAST)
    (short_tmp / "ray").mkdir(exist_ok=True)
    path = short_tmp / "ray" / "ray_current_cluster"
    path.write_text("127.0.0.1:9") if note else path.unlink(missing_ok=True)
    driver = Driver(folder, "run", "bandit", "--on", where)
    text = driver.wait(code=2)
    there = note or where != "ray:auto"
    assert text.count("\n") == 1 and ("no cluster answers at 127.0.0.1:9" if there else "no cluster runs on this machine") in text


def test_sixteen_cells_have_the_bytes_of_dvc_repro(nodes, new_project, start):
    tasks = {"bandit": FAST, "maze": tiny_tasks.MAZE, "cartpole": CARTPOLE, "countdown3": tiny_tasks.COUNTDOWN}
    folders = [new_project(name, ("rloo", "pkpo", "maxpo", "grpo"), **tasks) for name in ("on ray", "plain")]
    driver = start(folders[0], "repro", *tasks, "--on", f"ray:{nodes.address}")
    text = driver.wait()
    assert "29 ran" in text  # 4 bases, 16 cells, 4 variances, 4 summaries, the report
    assert dvc(folders[0], "status", *pipelines(*tasks)).stdout.strip().endswith("up to date.")
    assert start(folders[0], "repro", *tasks, "--on", f"ray:{nodes.address}").wait().endswith("29 stages, all up to date\n")
    done = dvc(folders[1], "repro", *pipelines(*tasks))
    assert done.returncode == 0, done.stdout + done.stderr
    plain = results(folders[1])
    assert sum(path.name == "metrics.json" for path in plain) == 16
    mine = results(folders[0])
    assert mine.keys() - plain.keys() == {Path("results/metrics.json"), Path("results/tables/variance.csv")}  # of the report
    assert [path for path in plain if mine[path] != plain[path]] == []


def test_a_lost_node_loses_no_more_than_since_the_last_checkpoint(nodes, new_project, start):
    undisturbed = new_project("undisturbed", bandit=LONG)
    assert start(undisturbed, "base", "bandit").wait() and start(undisturbed, "train", "bandit", "maxpo").wait()
    folder = new_project("disturbed", bandit=LONG)
    extra = nodes.add(resources={"extra": 1})
    driver = start(folder, "run", "bandit", "--on", f"ray:{nodes.address}", MAXPO_BENCH_CHECKPOINT_SECONDS="0.2")
    raylets = {}

    def where():
        """The node of the running cell, by its raylet: an ancestor of its process."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if b"train\0bandit" not in (path / "cmdline").read_bytes() or b"guard" in (path / "cmdline").read_bytes():
                    continue
                pid = int(path.name)
                while pid > 1 and pid not in raylets:
                    pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
                return raylets.get(pid)
            except (OSError, ValueError):
                continue
        return None

    raylets |= {node.all_processes["raylet"][0].process.pid: node for node in nodes.cluster.worker_nodes}
    driver.until(lambda: (kept(folder) or (0,))[0] > 200)
    node, before = driver.until(where), kept(folder)[0]
    nodes.remove(node)
    steps = []
    while driver.process.poll() is None:
        steps += [found[0] for found in [kept(folder)] if found]
        time.sleep(0.05)
    driver.wait()  # that a node is lost it says where Ray knows it before all is done: test_without_ray.py
    assert min(steps) >= before and max(steps) > before, (before, steps[:20])
    for name in REPEATABLE[:4]:
        ours, theirs = (each / "results/runs/bandit/maxpo" / name for each in (folder, undisturbed))
        assert ours.read_bytes() == theirs.read_bytes(), name
    nodes.add()
    if node is not extra:
        nodes.remove(extra)
    assert not list(folder.glob(".resume/ray/checkpoints/*"))


@pytest.mark.parametrize("number, where", [("SIGKILL", "cluster"), ("SIGKILL", "here"), ("SIGINT", "cluster"), ("SIGINT", "here")])
def test_a_driver_that_ends_leaves_no_cell(number, where, nodes, short_tmp, new_project, start):
    folder = new_project(bandit=LONG)
    words = ("run", "bandit", "--on", f"ray:{nodes.address}" if where == "cluster" else "ray")
    driver = start(folder, *words, MAXPO_BENCH_CHECKPOINT_SECONDS="0.2", MAXPO_BENCH_WORKERS="2")
    driver.until(lambda: kept(folder) and len(cells(short_tmp)) > 1)
    driver.process.send_signal(getattr(signal, number))
    sent = time.monotonic()
    driver.process.wait(20)
    took = time.monotonic() - sent
    assert gone_after(short_tmp, 5 - took) == [], driver.text
    if number == "SIGINT":
        assert driver.process.returncode == 130 and took < 5
        assert driver.text.count("\n") == 3 and driver.text.endswith("continues from its last checkpoint\n"), driver.text
    assert kept(folder)[0] > 0
    steps = kept(folder)[0]
    again = start(folder, *words, MAXPO_BENCH_CHECKPOINT_SECONDS="0.2", MAXPO_BENCH_WORKERS="2")
    again.until(lambda: kept(folder)[0] > steps)
    assert "base" not in again.text
    again.wait()
    assert not list(short_tmp.glob("maxpo-bench-*/*"))  # scratch folders are swept


def test_a_node_of_other_versions_is_refused_by_name(nodes, short_tmp, new_project, start):
    fake = short_tmp / "fake" / "numpy-0.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    wrong = nodes.add(env_vars={"PYTHONPATH": f"{fake.parent}:{os.environ.get('PYTHONPATH', '')}"})
    folder = new_project(bandit=FAST)
    try:
        text = start(folder, "run", "bandit", "--on", f"ray:{nodes.address}").wait()
        refused = [line for line in text.splitlines() if "is left out" in line]
        assert len(refused) == 1 and "numpy is 0.0.1 there" in refused[0] and wrong.node_id[:8] in refused[0], text
    finally:
        nodes.remove(wrong)


@pytest.mark.parametrize("at_start", [False, True])
def test_a_stage_that_breaks_is_a_result(nodes, new_project, start, at_start):
    """What needs it is skipped, also where that is the one that reads everything."""
    folder = new_project(bandit=FAST)
    (folder / "tasks" / "broken.py").write_text(BROKEN)
    text = "".join(line for line in FAST.splitlines(keepends=True) if not line.startswith("arms"))
    own = f"kind: broken.py:Broken\noptions: {{at_start: {at_start}}}"
    (folder / "tasks" / "bandit.yaml").write_text(text.replace("kind: bandit", own))
    driver = start(folder, "run", "bandit", "--on", f"ray:{nodes.address}")
    text = driver.wait(code=1)
    assert sum(" failed (exit code 1): " in line for line in text.splitlines()) == 1 and "is missing" not in text, text
    assert ("1 failed, 4 skipped" if at_start else "1 ran, 1 failed, 3 skipped") in text, text
    (log,) = folder.glob(".resume/failed/*.txt")
    assert "the simulator is gone" in log.read_text() and log.stat().st_size <= 2100


def test_what_was_edited_meanwhile_stays_stale(nodes, new_project, start):
    folder = new_project(estimators=("pkpo", "maxpo"), bandit=FAST)
    driver = start(folder, "run", "bandit", "--on", f"ray:{nodes.address}")
    driver.until(lambda: "base bandit: ran" in driver.text)
    path = folder / "maxpo_bench" / "estimators" / "pkpo.py"
    path.write_text(path.read_text() + "# edited\n")
    text = driver.wait(code=1)
    assert "left stale: train bandit pkpo: maxpo_bench/estimators/pkpo.py changed while it ran" in text, text
    assert "left stale: train bandit maxpo" not in text
    text = start(folder, "run", "bandit", "--on", f"ray:{nodes.address}").wait()
    assert "train bandit pkpo: ran" in text and "train bandit maxpo" not in text, text


NO_OP = """  s{n}:
    cmd: mkdir -p results/no_ops && echo {n} > results/no_ops/{n}.txt
    wdir: ../..
    deps: [read.txt]
    outs: [results/no_ops/{n}.txt: {{cache: false}}]
"""
SCALE = """
import json, resource, sys, time
from maxpo_bench.cluster import driver

record, seconds = driver.Pipeline.record, []

def timed(self):
    start = time.perf_counter()
    found = record(self)
    seconds.append(time.perf_counter() - start)
    return found

driver.Pipeline.record = timed
loop, spent = driver.Driver.loop, []

def measured(self):
    start, own = time.perf_counter(), time.process_time()
    loop(self)
    spent.append((time.perf_counter() - start, time.process_time() - own))

driver.Driver.loop = measured
code = driver.compute(".", lambda pipeline: set(pipeline.stages.values()), sys.argv[1])
print(json.dumps([code, seconds, spent[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def test_a_thousand_cells(nodes, tmp_path):
    """The driver's own time, and recording: 100 dvc.yaml of ten stages that do nothing."""
    folder = tmp_path / "project"
    for i in range(100):
        (folder / "stages" / str(i)).mkdir(parents=True)
        text = "stages:\n" + "".join(NO_OP.format(n=10 * i + j) for j in range(10))
        (folder / "stages" / str(i) / "dvc.yaml").write_text(text)
    (folder / "read.txt").write_text("read\n")
    subprocess.run(["git", "init", "-q", folder], check=True)
    assert dvc(folder, "init", "-q").returncode == 0
    done = subprocess.run([sys.executable, "-c", SCALE, nodes.address], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    code, recording, (wall, own), memory = json.loads(done.stdout.splitlines()[-1])
    recording = recording[1:]  # the first is of what a driver before left
    own -= sum(recording)
    print(f"1,000 stages in {wall:.0f} s; driver {own:.2f} ms a stage; recording at most {max(recording):.2f} s; {memory:.0f} MB")
    assert code == 0 and sorted(int(p.stem) for p in (folder / "results/no_ops").iterdir()) == list(range(1000))
    assert own <= 20  # ms a stage: seconds in a thousand
    assert statistics.median(recording) <= 1
    assert dvc(folder, "status", "-R", "stages").stdout.strip().endswith("up to date.")
