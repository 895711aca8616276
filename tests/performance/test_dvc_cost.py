"""What DVC costs beside the commands: recording a stage, and finding that nothing is to do, at 120 and at 1,000 stages.

The commands are a script that writes a stage's files and nothing else. Recording is what DVC itself does for one more stage of
a running `dvc repro`: reading its files' hashes, running, writing the lock. So the time of six stages is set against that of one,
in processes of their own, the script's own time taken off; the start of DVC, which a whole run pays once, is in both.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.performance
ESTIMATORS = ["rloo", "grpo", "passk_training", "bon_mean", "pkpo", "maxpo", "tailrl", "rs_grpo", "fitted_blend"]
PER_TASK = len(ESTIMATORS) + 3  # base, variance, summary
TASK = (ROOT / "tasks" / "bandit.yaml").read_text()
SCRIPT = """#!/bin/sh
case $1 in
base) folder=results/base/$2; names="base.json provenance.json" ;;
train) folder=results/runs/$2/$3; names="metrics.json curve.csv.gz ladder.csv.gz provenance.json timing.json" ;;
variance|summary) folder=results/$1; names=$2.csv ;;
study) folder=results/studies; names=$2.csv ;;
report)
    folder=results
    mkdir -p results/figures results/tables
    names="report.md report.html claims.json metrics.json figures/a.svg tables/a.csv"
    ;;
esac
[ -d $folder ] || mkdir -p $folder
for name in $names; do
    echo "{}" > $folder/$name
done
"""
RECORD = """
from dvc.repo import Repo
with Repo() as repo, repo.lock:
    by_file = {}
    for stage in repo.index.stages:
        stage.save()
        by_file.setdefault(stage.path, []).append(stage)
    for stages in by_file.values():
        stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
    print(len(repo.index.stages))
"""


class Stages:
    """A project whose stages are all recorded."""

    def __init__(self, folder, make_project, num_stages):
        self.folder = make_project(folder, **{f"t{i:03d}": TASK for i in range(num_stages // PER_TASK)})
        params = yaml.safe_load((folder / "params.yaml").read_text())
        (folder / "params.yaml").write_text(yaml.safe_dump({**params, "estimators": ESTIMATORS}))
        script = folder.parent / "bin" / "maxpo-bench"
        script.parent.mkdir()
        script.write_text(SCRIPT)
        script.chmod(0o755)
        path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": path, "DVC_NO_ANALYTICS": "1"}
        self.tasks = params["tasks"]
        words = [("base", t) for t in self.tasks] + [("train", t, e) for t in self.tasks for e in ESTIMATORS]
        words += [(kind, t) for kind in ("variance", "summary") for t in self.tasks] + [("study", "centring"), ("report",)]
        lines = "\n".join(f"'{script}' {' '.join(each)}" for each in words)
        subprocess.run(["sh", "-e"], input=lines, text=True, cwd=folder, check=True, env=self.environment)
        done = self.call(sys.executable, "-c", RECORD)
        self.num_stages = int(done.stdout.split()[-1])  # DVC speaks first
        for line in (["add", "-A"], ["commit", "-qm", "results"]):
            subprocess.run(["git", "-C", folder, *line], check=True)

    def call(self, *command):
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done

    def timed(self, *words):
        """(seconds, output) of `dvc repro words`. Seconds of the clock or of the processor: on a busy machine these are fairer."""
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = self.call(sys.executable, "-m", "dvc", "repro", *words)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"dvc repro {len(words)}: {wall:.2f} s, {processor:.2f} s of the processor")
        return min(wall, processor), done.stdout

    def script_seconds(self):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(5):
            self.call("maxpo-bench", "train", self.tasks[0], "maxpo")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 5


@pytest.fixture(scope="module", params=[120, 1000])
def stages(request, tmp_path_factory, make_project):
    return Stages(tmp_path_factory.mktemp("dvc") / "project", make_project, request.param)


def test_an_unchanged_repro(stages):
    limit = 5 if stages.num_stages < 200 else 30
    seconds, output = stages.timed()
    print(f"unchanged dvc repro at {stages.num_stages} stages: {seconds:.1f} s (at most {limit})")
    assert "Running stage" not in output and "up to date" in output, output[-500:]
    assert seconds <= limit


def test_recording_a_stage(stages):
    limit = 0.7 if stages.num_stages < 200 else 1.0
    targets = [f"results/pipeline/{task}/dvc.yaml:train@maxpo" for task in stages.tasks[:6]]
    one, _ = stages.timed("--force", "--single-item", targets[0])
    six, output = stages.timed("--force", "--single-item", *targets)
    assert output.count("Running stage") == 6
    seconds = (six - one) / 5 - stages.script_seconds()
    print(f"recording a stage at {stages.num_stages} stages: {seconds:.2f} s (at most {limit}); with DVC's start {one:.1f} s")
    assert seconds <= limit


def test_a_new_cell_touches_its_own_entry(stages):
    params = stages.folder / "params.yaml"
    params.write_text(yaml.safe_dump({**yaml.safe_load(params.read_text()), "estimators": [*ESTIMATORS, "reinforce"]}))
    stages.timed("--single-item", f"results/pipeline/{stages.tasks[1]}/dvc.yaml:train@reinforce")
    command = ["git", "-C", stages.folder, "diff", "--unified=0", "--", "*.lock"]
    diff = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    subprocess.run(["git", "-C", stages.folder, "checkout", "-q", "."], check=True)
    changed = [line for line in diff if line.startswith(("+", "-"))]
    assert changed[1] == f"+++ b/results/pipeline/{stages.tasks[1]}/dvc.lock" and changed[2] == "+  train@reinforce:"
    assert all(line.startswith("+    ") or line == "+  " for line in changed[3:]) and len(changed) > 20, changed
