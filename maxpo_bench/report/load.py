"""What the pipeline wrote, read strictly and by the declared list of cells (params.yaml), never by a glob. Imports no torch.

Nothing here looks at this machine, the clock or the code that made a result: the report is a function of the results alone.
What is stale or was not computed here is said by `maxpo-bench plan` and `compare`.
"""

import csv
import gzip
import io
import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from maxpo_bench.errors import InputError
from maxpo_bench.settings import params as params_file
from maxpo_bench.settings.task_file import load as load_task

STATUSES = {
    "ok": "finished",
    "diverged": "at least one seed ended in NaN or an exploding gradient; the other seeds are used",
    "failed": "the environment or the verifier raised, or a file is broken",
    "not_applicable": "the estimator refuses this task's rewards",
    "missing": "declared in params.yaml, no result",
}
USABLE = ("ok", "diverged")  # statuses whose numbers enter figures and verdicts
METRICS = {"max@K": "max_at_k", "pass@K": "pass_at_k", "pass@1": "pass_at_1", "mean_reward": "mean_reward"}  # final -> curve
CURVE = ("seed", "step", "samples", "mean_reward", "pass_at_1", "pass_at_k", "max_at_k")  # then any number of measured extras
LADDER = ("seed", "step", "k", "max", "pass")
VARIANCE = ("checkpoint", "estimator", "k", "group_size", "num_groups", "trace_cov", "snr")
VARIANCE += ("ratio_to_maxpo", "ratio_low", "ratio_high")
WORDS = ("checkpoint", "estimator", "objective", "reason")  # columns of a variance table that hold text
TRIED = range(100, 110)  # seeds on which learning settings were tried: in no figure and no verdict
FIRST_TUNING_SEED = 10_000  # from here on seeds are for tuning, pilots and sweeps
GYM_KINDS = ("bandit", "tabular", "gymnasium")
LANGUAGE_TAGS = {"language", "math"}
AGGREGATES = ("bandit and gym", "math and language", "all")
EXTRA_STUDIES = {  # tables of stages of their own: shown where they are, declared as studies or not, with at least these columns
    "power": ("task", "rival", "spread", "seeds", "half_width"),  # then the probability of each verdict at true differences
    "step_time": ("task", "estimator", "ratio", "low", "high"),  # an interleaved step's median time over the method's
}
TRAINED_STUDIES = ("learning_rate", "own_best", "k_trained", "group_size", "off_policy")  # results/trained/<study>/<task>.csv
SETTING = ("task", "estimator", "lr", "k", "group_size", "epochs", "clip")  # with the seed, what names a training there
TRAINED = (*SETTING, "seed", "status", "max_at_k", "pass_at_1")


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

    def by_seed(self, values):
        """{seed: value} of a list beside the cell's seeds; what is not a finite number, and the seeds of trials, left out."""
        pairs = zip(self.metrics.get("seeds", []), values or [], strict=False)
        return {s: float(v) for s, v in pairs if s not in TRIED and _finite(v)}

    def values(self, metric):
        """{seed: value} of a final metric ("max@K", "pass@1", ...); {} without results."""
        return self.by_seed(self.metrics["final"].get(metric)) if self.usable else {}


@dataclass
class Results:
    """Everything the report draws from. Of each table: task, estimator, then the columns its files have."""

    root: Path
    tasks: dict  # name -> Task, or the text of what is wrong with its file
    estimators: list
    notes: list  # one line per thing that could not be read
    cells: dict = field(default_factory=dict)  # (task, estimator) -> Cell
    curves: pd.DataFrame = None  # CURVE and extras
    ladders: pd.DataFrame = None  # LADDER
    variance: pd.DataFrame = None  # of results/variance/<task>.csv
    studies: dict = field(default_factory=dict)  # name -> DataFrame of results/studies/<name>.csv
    own_best: dict = field(default_factory=dict)  # (task, estimator) -> Cell at its own best learning rate; swept tasks only
    trained: dict = field(default_factory=dict)  # study of TRAINED_STUDIES -> DataFrame, a row per training and seed
    absent: dict = field(default_factory=dict)  # study of TRAINED_STUDIES -> the declared tasks without a table
    cheap: dict = field(default_factory=dict)  # (task, estimator) -> Cell: all estimators on the cheap tasks
    long: "Results" = None  # of params.yaml's long_tasks those with a result, under the estimators that have one there
    not_run: list = field(default_factory=list)  # the other long_tasks

    def setting(self, task, key):
        """K ("k") or N ("group_size") of a task, as its cells recorded it."""
        cells = (self.cells[task, e] for e in self.estimators)
        return next((c.metrics[key] for c in cells if c.usable and c.metrics.get(key)), getattr(self.tasks[task], key, None))

    def usable_tasks(self):
        return [t for t in self.tasks if any(self.cells[t, e].values("max@K") for e in self.estimators)]

    def tasks_of(self, aggregate):
        """The declared tasks of one of AGGREGATES, by kind and tags; a task whose file is broken belongs to none but 'all'."""
        language = {t for t, task in self.tasks.items() if not isinstance(task, str) and is_language(task)}
        gym = {t for t, task in self.tasks.items() if not isinstance(task, str)} - language
        chosen = {"bandit and gym": gym, "math and language": language, "all": set(self.tasks)}[aggregate]
        return [t for t in self.tasks if t in chosen]


def is_language(task):
    """Whether a Task belongs to 'math and language': any kind but the bandit and gym ones; of a kind from a file, by its tags."""
    if ".py:" in task.kind:
        return bool(LANGUAGE_TAGS & set(task.tags))
    return task.kind not in GYM_KINDS


def read(root="."):
    """All declared results under root as Results. Whatever is absent or broken becomes a status or a note, no error."""
    root, notes = Path(root), []
    params = params_file.read(root)
    found = _cells(root, params["tasks"], params["estimators"], notes)
    for task, estimator in found.cells:
        if (root / "results" / "own_best" / task / estimator / "metrics.json").is_file():
            found.own_best[task, estimator] = read_cell(root, task, estimator, "own_best")
    for name in dict.fromkeys([*params["studies"], *EXTRA_STUDIES]):
        path = root / "results" / "studies" / f"{name}.csv"
        if path.is_file() or name not in EXTRA_STUDIES:
            found.studies[name] = read_table(path, notes, EXTRA_STUDIES.get(name, ()), words=None, gaps=True)
    found.studies = {name: table for name, table in found.studies.items() if table is not None}
    for study in TRAINED_STUDIES:
        _trained(found, study, params["tasks"], params["task_studies"].get(study, []))
    found.cheap = {key: cell for key, cell in found.cells.items() if key[0] in params["trained_estimators"]["tasks"]}
    found.cheap |= {key: read_cell(root, *key, "estimators") for key in params_file.trained_cells(params)}
    tried = [(t, e) for t in params["long_tasks"] for e in params["long_estimators"]]
    ran = [(t, e) for t, e in tried if (root / "results" / "runs" / t / e / "metrics.json").is_file()]
    found.long = _cells(root, [t for t, _ in ran], [e for e in params["long_estimators"] if e in {e for _, e in ran}], notes)
    found.not_run = [t for t in params["long_tasks"] if t not in found.long.tasks]
    return found


def _cells(root, tasks, estimators, notes):
    """Results of tasks x estimators: cells, curves, ladders, variance."""
    found = Results(root, {}, list(dict.fromkeys(estimators)), notes)
    curves, ladders, variance = [], [], []
    for name in dict.fromkeys(tasks):
        try:
            found.tasks[name] = load_task(str(root / "tasks" / f"{name}.yaml"))
        except InputError as error:
            found.tasks[name] = str(error)
            notes.append(f"tasks/{name}.yaml: {error}")
        for estimator in found.estimators:
            cell = found.cells[name, estimator] = read_cell(root, name, estimator)
            folder = root / "results" / "runs" / name / estimator
            for parts, stem, columns, keys in (
                (curves, "curve", CURVE, ["seed", "step"]),
                (ladders, "ladder", LADDER, ["seed", "step", "k"]),
            ):
                path = folder / f"{stem}.csv"
                path = packed if (packed := path.with_suffix(".csv.gz")).is_file() else path
                table = read_table(path, notes, columns, keys, exact=stem == "ladder") if cell.usable else None
                if table is not None:
                    parts.append(table[~table["seed"].isin(TRIED)].assign(task=name, estimator=estimator))
        table = read_table(root / "results" / "variance" / f"{name}.csv", notes, VARIANCE, [], words=WORDS, gaps=True)
        if table is not None:
            variance.append(table.assign(task=name))
    for name, parts, columns in (("curves", curves, CURVE), ("ladders", ladders, LADDER), ("variance", variance, VARIANCE)):
        empty = pd.DataFrame(columns=list(dict.fromkeys(["task", "estimator", *columns])))
        setattr(found, name, pd.concat(parts, ignore_index=True) if parts else empty)
    return found


def _trained(found, study, tasks, declared):
    """Read the tables of a study that trains into found.trained and found.absent."""
    parts = []
    for task in dict.fromkeys([*tasks, *declared]):
        path = found.root / "results" / "trained" / study / f"{task}.csv"
        words = ("task", "estimator", "status")
        table = read_table(path, found.notes, TRAINED, words=words, gaps=True) if path.is_file() else None
        if table is not None and table.duplicated([*SETTING, "seed"]).any():
            table = found.notes.append(f"{_short(path)}: a training has the same seed twice; not used")
        if table is not None:
            parts.append(table[~table["seed"].isin(TRIED)])
        elif task in declared:
            found.absent.setdefault(study, []).append(task)
    if parts:
        found.trained[study] = pd.concat(parts, ignore_index=True)


def _finite(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_table(path, notes, columns=(), keys=(), words=(), exact=False, gaps=False):
    """A CSV (.gz or not) as a DataFrame; None, with a note that says why, when it cannot be trusted.

    columns: those it must have (exact: and no others). keys: whole numbers that name a row, no two rows alike. words: the columns
    that hold text, every other one holds numbers; None: not checked. gaps: empty fields are meant; else they are noted. A row
    with a field more or less than the header (pandas would shift columns, or fill up in silence) makes a note too.
    """
    name = _short(path)
    try:
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
        widths = [len(row) for row in csv.reader(io.StringIO(text), strict=True) if row]
        uneven = next((i for i, width in enumerate(widths) if width != widths[0]), None)
        table = pd.read_csv(io.StringIO(text)) if widths and uneven is None else None
    except FileNotFoundError:
        return notes.append(f"{name}: not found")
    except (ValueError, OSError, EOFError, zlib.error, csv.Error) as error:  # what pandas and decode() raise are ValueErrors
        return notes.append(f"{name}: not readable, not used ({' '.join(str(error).split())})")
    if uneven is not None:
        return notes.append(f"{name}: row {uneven + 1} has {widths[uneven]} fields, the header has {widths[0]}; not used")
    if table is None:
        return None  # a cell that ended early writes an empty file, its metrics.json says why
    lacking, strange = [c for c in columns if c not in table], [c for c in table if exact and c not in columns]
    if lacking:
        return notes.append(f"{name}: has no column {', '.join(lacking)}; not used")
    unnamed = [str(c) for c in table if str(c).startswith("Unnamed:") or "." in str(c)[-2:]]
    if strange or unnamed:
        return notes.append(f"{name}: has a column too many ({', '.join(map(str, strange or unnamed))}); not used")
    if words is not None:
        for column in table:
            if column not in words and not column.endswith("sha256") and not _numeric(table[column]):
                bad = table[column][pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()]
                row = f"{bad.iloc[0]!r} in row {bad.index[0] + 2}" if len(bad) else f"{table[column].dtype}"
                return notes.append(f"{name}: column {column} must hold numbers, not {row}; not used")
    for key in keys:
        if not pd.api.types.is_integer_dtype(table[key]):
            return notes.append(f"{name}: column {key} must hold a whole number in every row; not used")
    if len(keys) and table.duplicated(list(keys)).any():
        row = table[table.duplicated(list(keys))].iloc[0]
        which = ", ".join(f"{k} {row[k]:g}" for k in keys)
        return notes.append(f"{name}: {which} is there twice; not used")
    table = table.replace([math.inf, -math.inf], math.nan)
    empty = {} if gaps else {c: int(n) for c, n in table.isna().sum().items() if n}
    if empty:
        counts = ", ".join(f"{n} of {c}" for c, n in empty.items())
        notes.append(f"{name}: no finite number in {counts}; these values are left out")
    return table


def _numeric(column):
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _short(path):
    parts = Path(path).parts
    return "/".join(parts[parts.index("results") :]) if "results" in parts else Path(path).name


def read_cell(root, name, estimator, kind="runs"):
    """The Cell of results/<kind>/<name>/<estimator>: its metrics.json checked whole, its status, and its timing.json if any."""
    folder = Path(root) / "results" / kind / name / estimator
    path = folder / "metrics.json"
    if not path.is_file():
        broken = _broken_base(Path(root) / "results" / "base" / name / "base.json")
        return Cell(name, estimator, "failed" if broken else "missing", broken or "no metrics.json; run the pipeline")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        status, reason = metrics["status"], str(metrics.get("reason") or "")
        _check_shape(metrics)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Cell(name, estimator, "failed", f"{_short(path)} is not a whole metrics file ({error})")
    if status not in STATUSES or status == "missing":
        return Cell(name, estimator, "failed", f"{_short(path)}: unknown status {status!r}")
    if status in USABLE and "final" not in metrics:
        return Cell(name, estimator, "failed", f"{_short(path)} holds no final values")
    try:
        timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        timing = {}  # wall-clock is then shown as absent
    cell = Cell(name, estimator, status, reason, metrics, timing if isinstance(timing, dict) else {})
    if status == "ok":
        lost = [str(s) for s, v in zip(metrics.get("seeds", []), metrics["final"].get("max@K", []), strict=False) if not _finite(v)]
        cell.reason = f"no finite max@K for seed {', '.join(lost)}: left out" if lost else ""
    return cell


def _broken_base(path):
    """Why the base stage of a task failed, "" when it did not or nothing is known."""
    try:
        base = json.loads(path.read_text(encoding="utf-8"))
        return f"the base stage failed: {base.get('reason')}" if base["status"] == "failed" else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _check_shape(metrics):
    """TypeError or ValueError, in words, when what the report goes through is not of the shape that a cell writes."""
    final, seeds = metrics.get("final", {}), metrics.get("seeds", [])
    if not isinstance(final, dict):
        raise TypeError("final is not a mapping")
    if not isinstance(seeds, list) or not all(isinstance(s, int) and not isinstance(s, bool) for s in seeds):
        raise TypeError("seeds is not a list of whole numbers")
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is there twice")
    if max(seeds, default=0) >= FIRST_TUNING_SEED:
        raise ValueError(f"seeds from {FIRST_TUNING_SEED} on are for tuning, not for results")
    lists = {key: value for key, value in final.items() if key in METRICS}
    for ladder in ("ladder", "pass_ladder"):
        if not isinstance(final.get(ladder, {}), dict):
            raise TypeError(f"final.{ladder} is not a mapping")
        lists |= {f"{ladder}.{k}": values for k, values in final.get(ladder, {}).items()}
    exact = metrics.get("exact") or {}
    if not isinstance(exact, dict):
        raise TypeError("exact is not a mapping")
    for key, value in {**{f"final.{k}": v for k, v in lists.items()}, **{f"exact.{k}": v for k, v in exact.items()}}.items():
        if not isinstance(value, list):
            raise TypeError(f"{key} is not a list")
        if len(value) != len(seeds):
            raise ValueError(f"{key} has {len(value)} values for {len(seeds)} seeds")


def scales(results):
    """{task: (low, high)} that put max@K of all tasks on one scale for averages over tasks.

    (0, 1) where every value lies in [0, 1]; else the lowest and highest value seen on that task, trained or not.
    """
    found = {}
    for task in results.usable_tasks():
        cells = [results.cells[task, e] for e in results.estimators]
        values = [v for c in cells for m in ("max@K", "mean_reward") for v in c.values(m).values()]
        values += list(results.curves.loc[results.curves["task"] == task, "max_at_k"].dropna())
        low, high = min(values), max(values)
        found[task] = (0.0, 1.0) if low >= 0 and high <= 1 or low == high else (low, high)
    return found
