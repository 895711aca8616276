"""What a local Ray gains over plain DVC, and what it costs to start: ratios of times taken one after the other."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="ray is not installed (the extra `ray`)")
pytestmark = pytest.mark.performance

BANDIT = """
version: 1
kind: bandit
title: Small bandit
arms: {{count: 4, rewards: linear}}
k: 2
group_size: 4
groups: 8
steps: {steps}
seeds: 10
optimiser: {{name: adam, lr: 0.1}}
evaluation: {{every: 0, prompts: 4, samples: 8}}
variance: {{groups: 8}}
"""
ESTIMATORS = "rloo, pkpo, maxpo, grpo, bon_mean, tailrl, rs_grpo, passk_training"
SLEEP = """  s{n}:
    cmd: sleep 1; mkdir -p results && echo {n} > results/{n}.txt
    deps: [read.txt]
    outs: [results/{n}.txt: {{cache: false}}]
"""
TIMED = """
import json, os, sys, time
from maxpo_bench.cluster import driver

loop, spent, begin = driver.Driver.loop, [], time.perf_counter()

def measured(self):
    if os.environ.get("WARM"):  # until the slots are up
        import ray
        sleep = ray.remote(lambda: time.sleep(2)).options(num_cpus=1)
        ray.get([sleep.remote() for _ in range(self.nodes.slots)])
    start = time.perf_counter()
    loop(self)
    spent.extend([start - begin, time.perf_counter() - start])

driver.Driver.loop = measured
code = driver.compute(".", lambda pipeline: set(s for s in pipeline.stages.values() if s.key.startswith(sys.argv[1])), "local")
print(json.dumps([code, *spent]))
"""


def environment(folder, **more):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(folder), "PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", **more}


def on_ray(folder, prefix, package=None, **more):
    """(seconds to start, seconds of the stages) of what is stale below a prefix, on a Ray of this machine."""
    env = environment(package or folder, **more)
    done = subprocess.run([sys.executable, "-c", TIMED, prefix], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    code, start, seconds = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stdout
    return start, seconds


@pytest.mark.parametrize("steps, least", [(20, 1.5), (8000, 1 / 1.05)])
def test_cells_against_plain_dvc(make_project, tmp_path, steps, least):
    """Eight cells of ten seeds: short ones, of which most is the start of a process, and long ones that fill both cores."""
    folder = make_project(tmp_path / "project", bandit=BANDIT.format(steps=steps))
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("[rloo, pkpo, maxpo]", f"[{ESTIMATORS}]"))
    env, path = environment(folder), "results/pipeline/bandit/dvc.yaml"
    dvc = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    subprocess.run([*dvc, "--single-item", f"{path}:base"], cwd=folder, env=env, check=True)
    start = time.perf_counter()
    subprocess.run([*dvc, path], cwd=folder, env=env, check=True)
    plain = time.perf_counter() - start
    (folder / "results" / "pipeline" / "bandit" / "dvc.lock").unlink()
    subprocess.run([*dvc, "--single-item", f"{path}:base"], cwd=folder, env=env, check=True)
    begin, seconds = on_ray(folder, "results/pipeline/bandit")
    print(f"{steps} steps: dvc repro {plain:.1f} s, on Ray {seconds:.1f} s and {begin:.1f} s to start: x {plain / seconds:.2f}")
    assert plain / seconds >= least


def test_sleepers_fill_the_slots(tmp_path):
    """64 stages of one second on 8 slots, more than there are cores."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(SLEEP.format(n=n) for n in range(64)))
    (folder / "read.txt").write_text("read\n")
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=folder, check=True)
    _, seconds = on_ray(folder, "dvc.yaml", Path.cwd(), WARM="1", MAXPO_BENCH_WORKERS="8")
    print(f"64 seconds on 8 slots: {seconds:.1f} s (ideal 8)")
    assert seconds <= 8 * 1.25


def test_the_start(make_project, tmp_path):
    """From the command to the first stage sent, with this project's own pipeline."""
    root = Path(__file__).parents[2]
    begin = time.perf_counter()
    words = [sys.executable, "-m", "maxpo_bench.cli", "plan", "--on", "ray"]
    done = subprocess.run(words, cwd=root, env=environment(root), capture_output=True, text=True, check=True)
    read = time.perf_counter() - begin
    code = "import time; a = time.perf_counter(); from maxpo_bench.cluster.nodes import connected\n"
    code += "with connected('local'): print(time.perf_counter() - a)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment(root), capture_output=True, text=True, check=True)
    joined = float(re.findall(r"[\d.]+", done.stdout)[-1])
    print(f"reading the pipeline {read:.1f} s, starting Ray {joined:.1f} s (together at most 15)")
    assert read + joined <= 15
