"""A study that trains, on one task: its trainings one after the other as ordinary cells in scratch, then a table of them.

    results/trained/<study>/<task>.csv    a row per training and seed, see COLUMNS; floats as repr
    results/trained/<study>/<task>.json   what each training of the table hangs on
    results/<study>/<task>/<estimator>/   metrics.json, provenance.json and timing.json of each cell, for a study with CELLS = True

A training that was finished is not run again: not after a kill, not when another one joins the study (another estimator, another
rate), and not where the published cell is the same. What it hangs on (its key): the settings it really had, the code of a cell,
the seeds, versions, numerics and the base policies.
"""

import dataclasses
import functools
import hashlib
import io
import shutil
import time

import pandas as pd

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files, numerics
from maxpo_bench.pipeline import sources
from maxpo_bench.pipeline.base import base_hash, run_base
from maxpo_bench.pipeline.cell import RUN_FILES, SUMMARY_FILES, run_cell
from maxpo_bench.pipeline.index import write_index
from maxpo_bench.pipeline.jobs import provenance, versions
from maxpo_bench.settings import params
from maxpo_bench.settings.task_file import load, root
from maxpo_bench.studies import trainings

SETTINGS = {  # column: where it stands in a task
    "lr": lambda task: task.optimiser["lr"],
    "k": lambda task: task.k,
    "group_size": lambda task: task.group_size,
    "groups": lambda task: task.groups,
    "epochs": lambda task: task.loss["epochs"],
    "clip": lambda task: task.loss["clip"],
}
MEASURES = {"mean_reward": "mean_reward", "max_at_k": "max@K", "pass_at_1": "pass@1", "pass_at_k": "pass@K"}  # of metrics.json
COLUMNS = ("task", "estimator", *SETTINGS, "seed", "status", *MEASURES)
WORDS = ("title", "tags", "seeds", "first_seed", "seed_budget_s", "variance", "resources", "sha256", "path", "overrides", "version")
OVERHEAD_S = 0.5  # of a training, besides what its cell takes


def run_trained(study, name):
    """One study that trains, on one task. Returns the exit code."""
    module, task = trainings.get(study), load(name)
    results, start = root() / "results", time.perf_counter()
    with files.lock(root() / ".resume" / "locks" / f"trained-{study}-{task.name}", f"{study} of {task.name}"):
        Study(study, module, task, results).run()
    print(f"{study} of {task.name}: {time.perf_counter() - start:.1f} s", flush=True)
    return 0


class Study:
    """The trainings of a study on a task: those known from the table of before, those finished in scratch, those to run."""

    def __init__(self, study, module, task, results):
        self.study, self.module, self.task, self.results = study, module, task, results
        self.table = results / "trained" / study / f"{task.name}.csv"
        self.cells = results / study / task.name if getattr(module, "CELLS", False) else None
        self.scratch = root() / ".resume" / f"trained-{study}-{task.name}"
        self.rows, self.ran, self.wall_s = {}, {}, 0.0  # by key

    def run(self):
        estimators = params.read(root())["estimators"]
        known, found = self._known(), []
        while True:
            wanted = self.module.trainings(self.task, estimators, pd.DataFrame(found, columns=COLUMNS))
            keys = {self.key(training): training for training in wanted}
            todo = [key for key in keys if key not in self.rows]
            if not todo:
                break
            for key in todo:
                if key not in known and not (self.scratch / key / "metrics.json").is_file():
                    self._say(keys[key], sum(key not in self.rows and key not in known for key in keys), len(keys))
                self.rows[key] = known[key] if key in known else self._train(keys[key], key)
            found = _read([row for rows in self.rows.values() for row in rows])
        self._write(keys)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def key(self, training):
        """What a training hangs on, as one hash."""
        task = load(str(self.task.path), training.overrides)
        code = sources.of_cell(task, training.estimator)
        base = "" if training.seeds else base_hash(task, self.results)
        seeds = list(training.seeds or task.reported_seeds)
        about = {"task": _settings(task), "estimator": training.estimator, "seeds": seeds}
        about |= {"every": task.evaluation["every"]} if self.cells is not None else {}
        about |= {"code": _digest(tuple(code)), "versions": versions(), "numerics": numerics.mode(), "base": base}
        return hashlib.sha256(files.json_text(about).encode()).hexdigest()[:20]

    def _known(self):
        """{key: rows} of the table of before, as far as it is whole."""
        try:
            entries = files.read_json(self.table.with_suffix(".json"))["trainings"]
            rows = [line.split(",") for line in self.table.read_text(encoding="utf-8").splitlines()]
            found, place = {}, 1
            for entry in entries:
                part = [dict(zip(rows[0], row, strict=True)) for row in rows[place : place + entry["num_rows"]]]
                if self.cells is None or (self.cells / entry["estimator"] / "metrics.json").is_file():
                    found[entry["key"]] = part
                place += entry["num_rows"]
            return found if place == len(rows) else {}
        except (OSError, InputError, KeyError, TypeError, ValueError, IndexError):
            return {}

    def _say(self, training, num_left, total):
        left = f", about {self.wall_s / len(self.ran) * num_left / 60:.0f} min left" if self.ran else ""
        print(f"[{total - num_left + 1}/{total}] {self.study} of {self.task.name}: {training.label}{left}", flush=True)

    def _train(self, training, key):
        """The rows of one training, from where it lies finished, else from running it."""
        folder = self.scratch / key
        if not (folder / "metrics.json").is_file():
            published = self._published(training)
            if published is None:
                self._run_cell(training, folder)
            else:
                for name in RUN_FILES:
                    files.write_bytes(folder / name, (published / name).read_bytes())
        self.ran[key] = folder
        self.wall_s += files.read_json(folder / "timing.json").get("wall_s", 0.0) + OVERHEAD_S
        metrics = files.read_json(folder / "metrics.json")
        return [*_rows(load(str(self.task.path), training.overrides), metrics, getattr(self.module, "LADDER", False))]

    def _run_cell(self, training, folder):
        name, seeds = str(self.task.path), list(training.seeds)
        results = self._base(seeds) if seeds else self.results
        fewer = {} if self.cells is not None else {"evaluation.every": 0}  # along the way: only of a cell that is published
        code = run_cell(name, training.estimator, results, seeds or None, {**training.overrides, **fewer}, folder)
        if code:
            (folder / "metrics.json").unlink(missing_ok=True)
            raise Fault(f"{self.study} of {self.task.name}: {training.label} failed, see above")

    def _base(self, seeds):
        """A folder of results in scratch that has the base policies of these seeds."""
        about = [self.task.sha256, sources.digest(sources.of_base(self.task)), versions(), numerics.mode(), seeds]
        results = self.scratch / f"base-{hashlib.sha256(files.json_text(about).encode()).hexdigest()[:20]}"
        if not (results / "base" / self.task.name / "base.json").is_file() and run_base(str(self.task.path), results, seeds):
            (results / "base" / self.task.name / "base.json").unlink(missing_ok=True)
            raise Fault(f"{self.study} of {self.task.name}: no base policies, see above")
        return results

    def _published(self, training):
        """The folder of the published cell where it is this training: the same settings, code, versions and seeds; else None."""
        folder = self.results / "runs" / self.task.name / training.estimator
        task = load(str(self.task.path), training.overrides)
        if training.seeds or _settings(task) != _settings(self.task) or not all((folder / name).is_file() for name in RUN_FILES):
            return None
        about = files.read_json(folder / "provenance.json")
        now = provenance(self.task, sources.of_cell(self.task, training.estimator)) | {"seeds": task.reported_seeds}
        ended = files.read_json(folder / "metrics.json").get("status")
        same = all(about.get(name) == now[name] for name in ("task_sha256", "code_sha256", "versions", "numerics", "seeds"))
        return folder if same and ended != "failed" else None

    def _write(self, keys):
        """The table and what goes with it, of these trainings alone; the table last."""
        if self.cells is not None:
            self._write_cells(keys)
        rows = [row for key in keys for row in self.rows[key]]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = "".join(",".join(line) + "\n" for line in [columns, *([row.get(name, "") for name in columns] for row in rows)])
        entries = [
            {"estimator": t.estimator, "overrides": t.overrides, "key": key, "num_rows": len(self.rows[key])}
            for key, t in keys.items()
        ]
        before = self.table.with_suffix(".timing.json")
        earlier = files.read_json(before) if before.is_file() else {}
        if len(self.ran) == len(keys) or not earlier:  # else some were there: what it takes from nothing is not known anew
            files.write_json(before, {"wall_s": self.wall_s, "trainings": len(self.ran)})
        files.write_json(self.table.with_suffix(".json"), {"task": self.task.name, "study": self.study, "trainings": entries})
        files.write_bytes(self.table, text.encode())
        write_index(self.results)

    def _write_cells(self, keys):
        for key, training in keys.items():
            if key in self.ran:
                target = self.cells / training.estimator
                (target / "metrics.json").unlink(missing_ok=True)
                for name in SUMMARY_FILES:
                    data = (self.ran[key] / name).read_bytes()
                    if name == "provenance.json":  # a published cell's has none
                        data = files.json_text(files.read_json(self.ran[key] / name) | {"overrides": training.overrides}).encode()
                    files.write_bytes(target / name, data)
        kept = {training.estimator for training in keys.values()}
        for folder in self.cells.iterdir():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder)
            elif folder.is_dir():
                for other in folder.iterdir():
                    if other.is_file() and other.name not in SUMMARY_FILES:
                        other.unlink()


@functools.cache
def _digest(paths):
    return sources.digest(paths)


def _settings(task):
    """What of a task its trainings hang on, as plain values. How often it is evaluated on the way is no part of it."""
    values = {name: value for name, value in dataclasses.asdict(task).items() if name not in WORDS}
    values["evaluation"] = {name: value for name, value in task.evaluation.items() if name != "every"}
    if ".py:" in task.kind:
        values["code"] = files.sha256(task.path.parent / task.kind.split(":")[0])
    return values


def _rows(task, metrics, with_ladder):
    """A dict of texts per seed, of a training's metrics.json."""
    own = {"task": task.name, "estimator": metrics["estimator"]} | {name: _text(read(task)) for name, read in SETTINGS.items()}
    final = metrics.get("final")
    columns = {name: final[key] if final else None for name, key in MEASURES.items()}
    if with_ladder and final:
        columns |= {f"max_at_{k}": values for k, values in final["ladder"].items()}
        columns |= {f"pass_at_{k}": values for k, values in final["pass_ladder"].items()}
    for s, seed in enumerate(metrics["seeds"]):
        values = {name: _text(column[s]) if column else "" for name, column in columns.items()}
        yield own | {"seed": str(seed), "status": metrics["status"]} | values


def _text(value):
    return "" if value is None else repr(value)


def _read(rows):
    """A DataFrame of rows of texts, read as the table will be."""
    return pd.read_csv(io.StringIO("\n".join([",".join(COLUMNS), *(",".join(row[name] for name in COLUMNS) for row in rows)])))
