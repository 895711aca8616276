"""What the pipeline wrote, read by the declared list of cells (params.yaml), never by a glob. Imports no torch."""

import ast
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import shared_sha256
from maxpo_bench.machine import files
from maxpo_bench.pipeline import freshness
from maxpo_bench.settings.task_file import load as load_task

USABLE = ("ok", "committed", "diverged")  # statuses whose numbers enter figures and claims
STATUSES = {
    "ok": "computed on this machine",
    "committed": "published result, not recomputed on this machine (no checkpoints folder here)",
    "diverged": "at least one seed ended in NaN or an exploding gradient; the other seeds are used",
    "failed": "the environment or the verifier raised",
    "not_applicable": "the estimator refuses this task's rewards",
    "missing": "declared in params.yaml, no result",
    "stale": "made from another version of its task or estimator; not used",
}
CURVE = ("seed", "step", "samples", "mean_reward", "pass_at_1", "pass_at_k", "max_at_k")
LADDER = ("seed", "step", "k", "pass", "max")
VARIANCE = ("checkpoint", "estimator")
METRICS = {"max@K": "max_at_k", "pass@K": "pass_at_k", "pass@1": "pass_at_1", "mean_reward": "mean_reward"}


@dataclass
class Cell:
    """One declared (task, estimator) with what became of it."""

    task: str
    estimator: str
    status: str
    reason: str = ""
    metrics: dict = field(default_factory=dict)
    timing: dict = field(default_factory=dict)

    @property
    def usable(self):
        return self.status in USABLE and "final" in self.metrics

    def values(self, metric):
        """{seed: value} of a final metric ("max@K", "pass@1", ...) or of a rung of the ladder (an int k); NaN left out."""
        if not self.usable:
            return {}
        final = self.metrics["final"]
        found = final.get("ladder", {}).get(str(metric)) if isinstance(metric, int) else final.get(metric)
        pairs = zip(self.metrics.get("seeds", []), found or [], strict=False)
        return {int(s): float(v) for s, v in pairs if isinstance(v, (int, float)) and math.isfinite(v)}


@dataclass
class Results:
    """Everything the report draws from."""

    root: Path
    tasks: dict  # name -> Task, or the text of what is wrong with its file
    estimators: list
    cells: dict  # (task, estimator) -> Cell
    curves: pd.DataFrame  # task, estimator, seed, step, samples, mean_reward, pass_at_1, pass_at_k, max_at_k, extras
    ladders: pd.DataFrame  # task, estimator, seed, step, k, pass, max
    variance: pd.DataFrame  # task + columns of results/variance/<task>.csv
    studies: dict  # name -> DataFrame of results/studies/<name>.csv
    declared: dict  # estimator -> its declaration {objective, unbiased, centred, cost, source}
    notes: list  # one line per thing that could not be read
    variance_policy: str = "maxpo"  # the cell whose checkpoints of seed 0 the variance stage measured
    stale: dict = field(default_factory=dict)  # older results: path of a variance or study table, or "path: estimator" -> reason

    def k(self, task):
        for name in self.estimators:
            if self.cells[task, name].usable and self.cells[task, name].metrics.get("k"):
                return self.cells[task, name].metrics["k"]
        return getattr(self.tasks[task], "k", None)

    def group_size(self, task):
        for name in self.estimators:
            if self.cells[task, name].usable and self.cells[task, name].metrics.get("group_size"):
                return self.cells[task, name].metrics["group_size"]
        return getattr(self.tasks[task], "group_size", None)

    def title(self, task):
        return "" if isinstance(self.tasks[task], str) else self.tasks[task].title  # str: the file is broken

    def usable_tasks(self):
        return [t for t in self.tasks if any(self.cells[t, e].usable for e in self.estimators)]

    def non_centred(self):
        """Estimators whose advantages do not sum to zero: as measured (studies/properties.csv), else as declared."""
        measured = self.property_of("centred")
        return [
            e
            for e in sorted({*self.estimators, *self.declared})
            if measured.get(e, self.declared.get(e, {}).get("centred")) in (False, "no")
        ]

    def is_own(self, estimator):
        """Whether an estimator is this project's own and not a published one, by its declared source."""
        declared = self.declared.get(estimator, {}).get("source")
        return self.property_of("source").get(estimator, declared) == "this project"

    def property_of(self, column):
        """{estimator: value} of a column of the property table; {} when it was not measured."""
        table = self.studies.get("properties")
        if table is None or column not in table or "estimator" not in table:
            return {}
        return {
            e: v.item() if hasattr(v, "item") else v
            for e, v in zip(table["estimator"], table[column], strict=True)
            if not pd.isna(v)
        }


def read_params(root):
    """{tasks, estimators, studies} of params.yaml; InputError when it is not there or not lists of names."""
    path = Path(root) / "params.yaml"
    if not path.is_file():
        raise InputError(f"{path}: not found; run in the project's folder")
    try:
        params = yaml.safe_load(path.read_bytes()) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(params, dict):
        raise InputError(f"{path}: must be a mapping with the keys tasks, estimators, studies, variance_policy")
    for key in ("tasks", "estimators"):
        if not isinstance(params.get(key), list) or not all(isinstance(x, str) for x in params[key]):
            raise InputError(f"{path}: {key}: must be a list of names")
    return params


def read(root="."):
    """All declared results under root as Results. Whatever is absent or broken becomes a status or a note, no error."""
    root, notes = Path(root), []
    params = read_params(root)
    estimators = list(dict.fromkeys(params["estimators"]))
    policy = str(params.get("variance_policy", "maxpo"))
    tasks, cells, curves, ladders, variance, stale = {}, {}, [], [], [], {}
    declared, lock = declarations(root), freshness.locked(root)
    for name in dict.fromkeys(params["tasks"]):
        try:
            tasks[name] = load_task(str(root / "tasks" / f"{name}.yaml"))
        except InputError as error:
            tasks[name] = str(error)
            notes.append(f"tasks/{name}.yaml: {error}")
        for estimator in estimators:
            cell = cells[name, estimator] = _read_cell(root, tasks[name], name, estimator, declared)
            if cell.usable:
                folder = root / "results" / "runs" / name / estimator
                for parts, file, columns in ((curves, "curve.csv", CURVE), (ladders, "ladder.csv", LADDER)):
                    table = _read_csv(folder / file, notes, columns)
                    if table is not None and len(table):
                        parts.append(table.assign(task=name, estimator=estimator))
        table = _read_csv(root / "results" / "variance" / f"{name}.csv", notes, VARIANCE)
        if table is not None and len(table):
            path, edited = f"results/variance/{name}.csv", freshness.edited_estimators(table, declared)
            changed = _variance_changed(root, lock, tasks[name], table, cells.get((name, policy)), policy)
            if not changed and "maxpo" in edited:  # what every ratio is relative to
                changed = f"{edited['maxpo']} changed since"
            if changed:
                stale[path] = changed
            else:
                stale |= {f"{path}: {e}": f"{source} changed since" for e, source in edited.items()}
                variance.append(table[~table["estimator"].isin(edited)].assign(task=name))
    studies = {}
    for name in [*params.get("studies", [])]:
        table = _read_csv(root / "results" / "studies" / f"{name}.csv", notes)
        if table is not None and len(table):
            changed = freshness.study_changed(root, lock, name)
            if changed:
                stale[f"results/studies/{name}.csv"] = changed
            else:
                studies[name] = table
    return Results(
        root,
        tasks,
        estimators,
        cells,
        _concat(curves, ["task", "estimator", "seed", "step", "samples"]),
        _concat(ladders, ["task", "estimator", *LADDER]),
        _concat(variance, ["task", *VARIANCE]),
        studies,
        declared,
        notes,
        policy,
        stale,
    )


def _variance_changed(root, lock, task, table, measured, policy):
    """Why a task's variance rows are of an older version, "" when they are not. measured: the cell whose policies they used."""
    if isinstance(task, str):
        return "the task file cannot be read"
    if measured is not None and measured.status == "stale":
        return measured.reason
    return freshness.variance_changed(root, lock, task, table, policy)


def _concat(parts, columns):
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _read_csv(path, notes, columns=()):
    """The table; None, with a note, when it is not there, not readable or lacks one of the columns."""
    try:
        table = pd.read_csv(path)
        lacking = [column for column in columns if column not in table]
        if not lacking:
            return table
        notes.append(f"{_short(path)}: has no column {', '.join(lacking)}; its stage must run again")
    except FileNotFoundError:
        notes.append(f"{_short(path)}: not found")
    except pd.errors.EmptyDataError:
        pass  # a cell that ended early writes an empty file, its metrics.json says why
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        notes.append(f"{_short(path)}: not readable ({error})")
    return None


def _short(path):
    parts = Path(path).parts
    return "/".join(parts[parts.index("results") :]) if "results" in parts else Path(path).name


def _read_cell(root, task, name, estimator, declared):
    folder = root / "results" / "runs" / name / estimator
    path = folder / "metrics.json"
    if not path.is_file():
        broken = _broken_base(root / "results" / "base" / name / "base.json")
        status = "failed" if broken else "missing"
        return Cell(name, estimator, status, broken or "no metrics.json; run the pipeline")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        status, reason = metrics["status"], str(metrics.get("reason") or "")
        _check_shape(metrics)
    except (ValueError, KeyError, TypeError) as error:
        return Cell(name, estimator, "failed", f"{_short(path)} is not a whole metrics file ({error})")
    timing = {}
    try:
        timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass  # wall-clock is then shown as absent
    cell = Cell(name, estimator, status, reason, metrics, timing if isinstance(timing, dict) else {})
    if status not in STATUSES or status in ("missing", "stale", "committed"):
        return Cell(name, estimator, "failed", f"{_short(path)}: unknown status {status!r}")
    changed = []
    if not hasattr(task, "sha256") or metrics.get("task_sha256") != task.sha256:
        changed.append(f"tasks/{name}.yaml")
    source = declared.get(estimator, {}).get("sha256")
    if source is not None and metrics.get("source_sha256") not in (None, source):
        changed.append(f"estimators/{estimator}.py")
    recorded = metrics.get("shared_sha256") or {}
    changed += [f"estimators/{file}" for file, digest in shared_sha256().items() if recorded.get(file, digest) != digest]
    if changed:
        cell.status, cell.reason = "stale", f"{' and '.join(changed)} changed since the run"
        return cell
    if status in ("ok", "diverged") and "final" not in metrics:
        cell.status, cell.reason = "failed", f"{_short(path)} holds no final values"
    elif status == "ok":
        lost = _lost(metrics)
        if lost:
            cell.reason = lost
        if not freshness.computed_here(folder):
            cell.status = "committed"
    return cell


def _broken_base(path):
    """Why the base stage of a task failed, "" when it did not or nothing is known."""
    try:
        base = json.loads(path.read_text(encoding="utf-8"))
        return f"the base stage failed: {base.get('reason')}" if base["status"] == "failed" else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _check_shape(metrics):
    """TypeError, in words, when what the report goes through is not of the shape that cell/ writes."""
    final = metrics.get("final", {})
    if not isinstance(final, dict):
        raise TypeError("final is not a mapping")
    lists = {"seeds": metrics.get("seeds", []), **{key: value for key, value in final.items() if key in METRICS}}
    for ladder in ("ladder", "pass_ladder"):
        if not isinstance(final.get(ladder, {}), dict):
            raise TypeError(f"final.{ladder} is not a mapping")
        lists |= {f"final.{ladder}.{k}": values for k, values in final.get(ladder, {}).items()}
    for key, value in lists.items():
        if not isinstance(value, list):
            raise TypeError(f"{key} is not a list")


def _lost(metrics):
    """What to say of an ok cell whose max@K is not a number for some seed; "" when all are numbers."""
    values = metrics["final"].get("max@K") or []
    bad = [
        str(s)
        for s, v in zip(metrics.get("seeds", []), values, strict=False)
        if not isinstance(v, (int, float)) or not math.isfinite(v)
    ]
    return f"no finite max@K for seed {', '.join(bad)}: left out" if bad else ""


def declarations(root):
    """{estimator: {objective, unbiased, centred, cost, source, sha256}} from the @estimator lines, importing nothing."""
    from maxpo_bench import estimators

    found = {}
    for path in sorted(Path(estimators.__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "\n@estimator(" not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                call = next(d for d in node.decorator_list if isinstance(d, ast.Call))
                found[path.stem] = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
                found[path.stem]["sha256"] = files.sha256(path)
    return found


def scales(results):
    """{task: (low, high)} that put max@K of all tasks on one scale for averages over tasks.

    (0, 1) where every value, trained or not, lies in [0, 1]; else the lowest and highest value seen on that task.
    """
    found = {}
    for task in results.usable_tasks():
        values = [
            v
            for e in results.estimators
            for metric in (*METRICS, *_rungs(results.cells[task, e]))
            for v in results.cells[task, e].values(metric).values()
            if not str(metric).startswith("pass")
        ]
        if len(results.curves) and "max_at_k" in results.curves:
            start = results.curves[(results.curves["task"] == task) & (results.curves["step"] == 0)]
            values += [float(v) for v in start["max_at_k"].dropna()]
        if not values:
            continue
        low, high = min(values), max(values)
        found[task] = (0.0, 1.0) if low >= 0 and high <= 1 or low == high else (low, high)
    return found


def _rungs(cell):
    return [int(k) for k in cell.metrics.get("final", {}).get("ladder", {})] if cell.usable else []
