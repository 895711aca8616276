"""`maxpo-bench rerecord`: what is stale because its code changed, but not its numbers, is recorded again without running it whole.

The proof runs on the code as it is now, and every number of it repeats to the byte (proof.py):
    base, cells         the first two seeds; provenance.json says so
    variance            all checkpoints of the first seed;   results/variance/<task>.rerecorded.json says so
    studies that train  two seeds of each training;          results/trained/<study>/<task>.rerecorded.json says so
Imports no torch.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.pipeline import dvc_files, sources
from maxpo_bench.pipeline.plan import all_states, declared, dvc_target, estimator_stages, stage_names, study_stages
from maxpo_bench.pipeline.proof import PROOF, REFUSED, amend, first_difference
from maxpo_bench.pipeline.sides import of_its_seeds
from maxpo_bench.settings import task_file

REPEATS = {"variance": "the first seed repeats", "trained": "the first seeds of each training repeat"}


def rerecord(tasks, root=None):
    """Prove and record again what is stale of tasks (of all where none is given). Returns the exit code.

    0 when all that were stale are recorded again; 1, with a line each, when some differ: those must run. A task whose file
    changed, and what never ran, is not for this; a study that `maxpo-bench trained` ran without DVC is.
    """
    root = Path(root or task_file.root())
    params = declared(root)
    for task in tasks:
        if task not in params["tasks"]:
            raise InputError(f"task {task!r} is not in params.yaml")
    dvc_files.write(root, params["tasks"], params)
    beside = [*study_stages(params), *estimator_stages(params)]
    states = all_states(root, params, [*stage_names(params), *beside])
    refused, recorded = 0, 0
    for name in tasks or params["tasks"]:
        task = task_file.load(root / "tasks" / f"{name}.yaml")
        own = [f"base@{name}", *(f"train@{name}-{e}" for e in params["estimators"]), f"variance@{name}"]
        own += [stage for stage in beside if stage.partition("@")[2].partition("-")[0] == name]
        proofs, proved = Proofs(root, task, f"train@{name}-{params['variance_policy']}", states), []
        for stage, reason in proofs.of([stage for stage in own if wanted(root, stage, states[stage][0])]):
            if reason:
                refused += 1
                print(f"{stage}: not recorded: {reason}", flush=True)
            else:
                said = REPEATS.get(stage.partition("@")[0], f"seeds {' and '.join(map(str, proofs.seeds))} repeat")
                print(f"{stage}: {said} to the byte, recorded again", flush=True)
                proved.append(stage)
        if proved:
            _record(root, [dvc_target(stage) for stage in proved])
        recorded += len(proved)
    print(f"{recorded} recorded again, {refused} not")
    return 1 if refused else 0


def wanted(root, stage, state):
    """Whether a proof may help: the stage is stale, or a study that trains, whose table DVC has not seen."""
    kind, _, rest = stage.partition("@")
    task, _, study = rest.partition("-")
    unseen = kind == "trained" and (root / "results" / "trained" / study / f"{task}.csv").is_file()
    return state == "stale" or state == "never run" and unseen


class Proofs:
    """The proofs of one task's stages, in a project of its own below .resume/ that has the first seeds alone."""

    def __init__(self, root, task, policy, states):
        self.root, self.task, self.policy, self.states = root, task, policy, states
        first, *rest = task.reported_seeds[:PROOF]
        self.seeds = [first, *(seed for seed in rest if seed == first + 1)]
        self.scratch = root / ".resume" / f"rerecord-{task.name}"
        self.cells = {}  # base stage and cells that repeat: (folder published, folder of the proof)

    def of(self, stale):
        """(stage, "" or why it must run) of stages that are stale, in the order they run. Of a base that differs, that alone."""
        if not stale:
            return
        prove = {"variance": self._variance, "trained": self._trained}
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        for name in ("tasks", "params.yaml"):
            (self.scratch / name).symlink_to(self.root.absolute() / name)
        base = f"base@{self.task.name}"
        for stage in [base, *(stage for stage in stale if stage != base)]:
            reason = prove.get(stage.partition("@")[0], self._cell)(stage)
            if not reason and stage in stale and stage in self.cells:
                amend(*self.cells[stage], self.seeds)
            if reason or stage in stale:
                yield stage, reason
            if reason and stage == base:
                break  # all else starts from it
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _cell(self, stage):
        """Of a base stage or a cell: its first seeds run in scratch."""
        kind, _, rest = stage.partition("@")
        name, estimator = self.task.name, rest.partition("-")[2]
        folder = {"base": f"base/{name}", "train": f"runs/{name}/{estimator}", "beside": f"estimators/{name}/{estimator}"}[kind]
        published = self.root / "results" / folder
        here = self.scratch / "results" / folder.replace("estimators/", "runs/")
        if stage in self.cells:
            return ""
        try:
            about = files.read_json(published / "provenance.json")
        except (OSError, InputError):
            return "it never ran"
        if about.get("task_sha256") != self.task.sha256:
            return f"tasks/{name}.yaml changed since"
        words = ["base", name] if kind == "base" else ["train", name, estimator]
        failed = self._call(*words, "--results", "results", "--seeds", f"{self.seeds[0]}:{self.seeds[-1] + 1}")
        if failed:
            return failed
        if where := first_difference(published, here, "base.json" if kind == "base" else "metrics.json", kind == "train"):
            return f"{where} of the first seeds is another"
        paths = sources.of_base(self.task) if kind == "base" else sources.of_cell(self.task, estimator)
        assert files.read_json(here / "provenance.json")["code_sha256"] == sources.digest(paths)
        self.cells[stage] = published, here
        return ""

    def _variance(self, stage):
        """Of the variance stage: all that it says of the first seed."""
        if reason := self._cell(self.policy):
            return f"{self.policy}: {reason}"
        name, here = self.task.name, self.cells[self.policy][1]
        metrics = files.read_json(here / "metrics.json")
        files.write_json(here / "metrics.json", {**metrics, "seeds": metrics["seeds"][:1]})
        if failed := self._call("variance", name):
            return failed
        table = self.root / "results" / "variance" / f"{name}.csv"
        new = (self.scratch / "results" / "variance" / f"{name}.csv").read_bytes()
        if of_its_seeds(table.read_bytes(), new) != new:
            return "the table of the first seed is another"
        path = table.with_suffix(".rerecorded.json")
        earlier, own = files.read_json(path) if path.is_file() else [], files.sha256(table)
        proof = {"table_sha256": own, "code_sha256": sources.digest(sources.of_variance(self.task)), "seeds": self.seeds[:1]}
        proof["versions"] = files.read_json(here / "provenance.json")["versions"]
        files.write_json(path, [*(one for one in earlier if one["table_sha256"] == own), proof])
        return ""

    def _trained(self, stage):
        """Of a study that trains: a program of its own, which says what it finds of each training."""
        if self.states[stage][1].startswith("tasks/"):
            return f"{self.states[stage][1]} since"
        study = stage.partition("-")[2]
        print(f"{stage}:", flush=True)
        words = ["-m", "maxpo_bench.pipeline.proof", study, self.task.name, str(self.scratch)]
        done = subprocess.run(
            [sys.executable, *words], cwd=self.root, env=_environment(), stderr=subprocess.PIPE, text=True, check=False
        )
        said = done.stderr.strip().splitlines()
        if done.returncode == REFUSED:
            return "what differs must run"
        return (said or ["it failed"])[-1] if done.returncode else ""

    def _call(self, *words):
        """Run a command in scratch. "" or the last line of what it said when it failed."""
        command = [sys.executable, "-m", "maxpo_bench.cli", *words]
        done = subprocess.run(command, cwd=self.scratch, env=_environment(), capture_output=True, text=True, check=False)
        return (done.stderr.strip() or done.stdout.strip() or "it failed").splitlines()[-1] if done.returncode else ""


def _environment():
    """Of a process that runs this code, wherever it starts."""
    path = os.pathsep.join(filter(None, [str(sources.PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def _record(root, targets):
    """Record stages as they lie there, one rewrite of a lock file for each task's: what DVC's own commit does, for a list."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo, repo.lock:
        by_file = {}
        for target in targets:
            path, _, name = target.rpartition(":")
            stage = repo.stage.load_one(str(root / path), name)
            stage.save()
            by_file.setdefault(path, []).append(stage)
        for stages in by_file.values():
            stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
