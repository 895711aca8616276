"""The driver's side of DVC: which stages there are and wait for which, what is stale, what a stage reads, and recording it.

Only one process talks to DVC. It rewrites a whole lock file for each of its stages, so finished ones are recorded in batches.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

from maxpo_bench.cluster import worker
from maxpo_bench.errors import Fault, InputError, one_line
from maxpo_bench.machine import files
from maxpo_bench.pipeline import dvc_files, index
from maxpo_bench.pipeline.base import WEIGHTS
from maxpo_bench.pipeline.cell import CHECKPOINTS
from maxpo_bench.settings import task_file

UNPUBLISHED = (WEIGHTS, CHECKPOINTS)  # beside the outputs, not declared: DVC does not see them
BATCH, BATCH_S = 20, 30.0  # stages, seconds
SPARED = (":!results", ":!tests", ":!docs")  # no stage runs on them, or they are sent with those that do
HERE = ("summary", "report")  # they read all of results/ and take seconds: they run where the driver does


@contextmanager
def dvc_errors():
    """What DVC says of a broken project, in one line."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        raise InputError(f"dvc: {one_line(error)}") from None


class Stage:
    """One stage of the pipeline. What it waits for is a set of others."""

    def __init__(self, root, stage):
        self.dvc, self.command = stage, stage.cmd
        self.key = f"{Path(stage.path).relative_to(root).as_posix()}:{stage.name}"
        self.label = stage.cmd.removeprefix("maxpo-bench ")
        self.outs = [out.def_path for out in stage.outs]
        self.here = self.label.partition(" ")[0] in HERE
        folder = self.key.split("/")
        self.task = folder[2] if folder[:2] == ["results", "pipeline"] else ""
        digest = hashlib.sha256(f"{socket.gethostname()} {root} {self.key}".encode()).hexdigest()[:10]
        self.id = f"{'-'.join(''.join(c if c.isalnum() else ' ' for c in self.label).split())[:60]}-{digest}"
        self.waits = set()


class Pipeline:
    """The stages of a project, as DVC reads them. code: hash of each of their files outside results/, as it is now."""

    def __init__(self, root):
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.CRITICAL)
        self.root = Path(root).resolve()
        with dvc_errors():
            self.repo = Repo(str(self.root))
            graph = self.repo.index.graph
            self.stages = {stage: Stage(self.root, stage) for stage in self.repo.index.stages if stage.cmd}
        for stage in self.stages.values():
            stage.waits = {self.stages[other] for other in graph.successors(stage.dvc) if other in self.stages}
        self.code, self.finished = {}, self.root / ".resume" / "ray" / "finished"

    def choose(self, params, tasks=(), part=""):
        """The stages of a command: of tasks or of a part as `maxpo-bench run` has them, or of plain `dvc repro`; the report."""
        stages = list(self.stages.values())
        if not tasks and part in ("", "all"):
            return self.upstream(stage for stage in stages if stage.key.startswith("dvc.yaml:"))
        if part in ("studies", "estimators"):
            files_of = [str(dvc_files.path_of("", task, part)) for task in params["tasks"]]
        else:
            files_of = [str(dvc_files.path_of("", task)) for task in tasks]
        chosen = {stage for stage in stages if stage.key.rpartition(":")[0] in files_of}
        chosen = self.upstream(chosen) if part in ("studies", "estimators") else chosen
        after = {"dvc.yaml:report", *(f"dvc.yaml:summary@{task}" for task in tasks)}
        return chosen | {stage for stage in stages if stage.key in after}

    def upstream(self, stages):
        """These stages and all that they wait for, however indirectly."""
        found, todo = set(), list(stages)
        while todo:
            stage = todo.pop()
            if stage not in found:
                found.add(stage)
                todo += stage.waits
        return found

    # ------------------------------------------------------------------------------------------------------ what it reads

    def freeze(self, stages):
        """A tar of everything but the results: what all nodes run, uncommitted edits included. Its hashes are kept in `code`."""
        for stage in stages:
            for dep in stage.dvc.deps:
                if not dep.def_path.startswith("results/") and _name(dep) not in self.code:
                    self.code[_name(dep)] = _hash(dep)
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".", *SPARED]
        done = subprocess.run(command, cwd=self.root, capture_output=True, check=False)
        if done.returncode:
            raise InputError(f"{self.root}: git cannot list the project ({done.stderr.decode().strip()})")
        return worker.pack(self.root, done.stdout.decode().rstrip("\0").split("\0"))

    def changed(self, stage):
        """Whether DVC would run the stage."""
        with dvc_errors():
            return stage.dvc.is_callback or stage.dvc.always_changed or any(stage.dvc.changed_entries())

    def missing(self, stage):
        """A file that the stage needs and nothing makes; "" where all are there."""
        return next((dep.def_path for dep in stage.dvc.deps if not dep.exists), "")

    def read_by(self, stage):
        """(hash of each dependency as it was sent, the paths below results/ to send with it)."""
        sent, paths = {}, set()
        for dep in stage.dvc.deps:
            sent[_name(dep)] = self.code[_name(dep)] if _name(dep) in self.code else _hash(dep)
        for each in self.upstream([stage]):
            for path in (dep.def_path for dep in each.dvc.deps):
                if path.startswith("results/"):  # its whole folder: weights, provenance
                    paths.add(path if (self.root / path).is_dir() else os.path.dirname(path))
        kept = [out.def_path for out in stage.dvc.outs if out.persist]
        paths |= {*kept, f"results/runs/{stage.task}"} if kept else set()  # what a study that trains need not train again
        return sent, tuple(sorted(path for path in paths if (self.root / path).exists()))

    # --------------------------------------------------------------------------------------------------- what it has written

    def returned(self, stage):
        """The paths that come back from a node."""
        beside = {os.path.dirname(out) for out in stage.outs}
        return [*stage.outs, *sorted(f"{folder}/{name}" for folder in beside for name in UNPUBLISHED)]

    def put(self, stage, tar):
        """Write a stage's outputs in place of the old ones. The first one says how it ended: it goes first and comes last."""
        new = self.root / ".resume" / "ray" / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        worker.unpack(tar, new)
        with suppress(FileNotFoundError, IsADirectoryError):
            if (new / stage.outs[0]).exists():
                (self.root / stage.outs[0]).unlink()
                for path in self.returned(stage)[len(stage.outs) :]:
                    (self.root / path).unlink(missing_ok=True)
        for path in (*reversed(self.returned(stage)), stage.outs[0]):
            if (new / path).exists():
                target = self.root / path
                if target.is_dir():
                    shutil.rmtree(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(new / path, target)
        shutil.rmtree(new)
        if stage.key.split("/")[-2:-1] in (["studies"], ["estimators"]):
            index.write_index(self.root / "results")

    def clear(self, stage):
        """Remove the outputs of a stage that is to run here, as DVC does."""
        with dvc_errors(), self.repo.lock:
            stage.dvc.remove_outs()

    def note(self, stage, sent):
        """A stage has ended well: noted on disk until DVC has it, since a killed driver must not lose hours of work."""
        outs = {_name(out): _hash(out) for out in stage.dvc.outs}
        gone = [name for name, value in outs.items() if not value]
        if gone:
            raise Fault(f"{gone[0]} was not written")
        files.write_json(self.finished / f"{stage.id}.json", {"stage": stage.key, "deps": sent, "outs": outs})

    def record(self):
        """Record the stages that are noted. Returns {label: why not} of those that are left stale."""
        by_key = {stage.key: stage for stage in self.stages.values()}
        notes = [(path, files.read_json(path)) for path in sorted(self.finished.glob("*.json"))]
        left, by_file = {}, {}
        if not notes:
            return left
        with dvc_errors(), self.repo.lock:
            for path, note in notes:
                if (stage := by_key.get(note["stage"])) is None:
                    path.unlink()
                    continue
                if why := _save(stage.dvc, note):
                    left[stage.label] = why
                    path.unlink()
                    continue
                by_file.setdefault(stage.dvc.path, []).append((stage.dvc, path))
            for recorded in by_file.values():
                stages = [stage for stage, _ in recorded]
                stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
                for _, path in recorded:
                    path.unlink()
        return left


def _save(stage, note):
    """Hash a stage's files again, for its lock. Returns what of them is not as it was when it ran; "" when all is."""
    from dvc.dependency.base import DependencyDoesNotExistError
    from dvc.output import OutputDoesNotExistError

    try:
        stage.save(run_cache=False)
    except (DependencyDoesNotExistError, OutputDoesNotExistError) as error:
        return one_line(error)
    for kind in ("deps", "outs"):
        now = {_name(item): _text(item.hash_info.value) for item in getattr(stage, kind)}
        for name in sorted({*now, *note[kind]}):
            if now.get(name) != note[kind].get(name):
                return f"{name.partition(' ')[0]} changed while it ran"
    return ""


def _name(item):
    """What tells a dependency or an output from the others: its path, and of a params file its keys."""
    return " ".join([item.def_path, *sorted(getattr(item, "params", ()))])


def _hash(item):
    """The hash of a dependency or an output as it is now, a text; "" when it is not there."""
    with dvc_errors():
        return _text(item.get_hash().value) if item.exists else ""


def _text(value):
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def resources(root, stage):
    """(cpus, gpus, bytes of memory or 0) of a stage, from its task's file."""
    asked = task_file.load(root / "tasks" / f"{stage.task}.yaml").resources if stage.task else {}
    number, unit = asked.get("memory", "")[:-2].strip() or 0, asked.get("memory", "")[-2:]
    return asked.get("cpus", 1), asked.get("gpus", 0), int(number) * {"": 0, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]
