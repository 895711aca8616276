"""Task files: where they lie, what may be asked for by name, and a file read as a Task. Imports no torch; YAML only to read one.

Every legal key stands in task.py and in kinds/. A task is one YAML; its `kind` says which sections it has.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from maxpo_bench.errors import InputError, did_you_mean

NAME = re.compile(r"[A-Za-z0-9_]{1,100}")  # it names stages, folders of results and columns

TUNED_ON = range(100, 110)  # seeds of the trials that chose the first tasks' settings; later ones begin at 10000


@dataclass(frozen=True)
class Task:
    """One task, checked and with every default filled in. Common keys are attributes, sections are dicts."""

    name: str
    path: Path
    sha256: str  # of what the file says; comments and layout do not count
    version: int
    kind: str
    tags: tuple
    title: str
    k: int
    group_size: int
    groups: int
    steps: int
    seeds: int
    optimiser: dict
    evaluation: dict
    score: dict
    variance: dict
    loss: dict
    first_seed: int
    seed_budget_s: float
    numerics: str
    resources: dict
    sections: dict = field(default_factory=dict)  # the kind's own keys and sections
    overrides: dict = field(default_factory=dict)  # {"optimiser.lr": .1}: what a study trains otherwise than the file says

    def section(self, name):
        """The kind's own section as a dict (a plain key's value), {} when the kind has none of that name."""
        return self.sections.get(name, {})

    @property
    def reported_seeds(self):
        """The seeds that a cell runs: the first `seeds` numbers but those on which settings were once chosen."""
        numbers = range(self.first_seed, self.first_seed + self.seeds + len(TUNED_ON))
        return [seed for seed in numbers if seed not in TUNED_ON][: self.seeds]

    @property
    def success(self):
        return self.score["success"]


def root():
    """The project's root: the nearest folder upwards from here that has a params.yaml; else the current folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "tasks").is_dir():
            return folder
    return here


def names(folder=None):
    """Names of the task files in the folder (default: the project's tasks/), sorted."""
    return sorted(p.stem for p in Path(folder or root() / "tasks").glob("*.yaml"))


def find(name_or_path):
    """The path of a task file. A bare name lives in tasks/; a path is taken only when it is written as one (*.yaml)."""
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        path = Path(text).absolute()  # a message names its folder, of a bare file name too
        if not path.is_file():
            raise InputError(f"{text}: no such task file")
        if not re.fullmatch(r"\w[\w.-]*", path.stem, re.ASCII):  # it names folders of results/: no "..", no separator
            raise InputError(f"{text}: a task file's name has letters, digits, _, - and . only, and no . in front")
        return path
    if not NAME.fullmatch(text):
        raise InputError(f"task name {text[:100]!r}: letters, digits and _ only (give a path ending in .yaml for a file elsewhere)")
    path = root() / "tasks" / f"{text}.yaml"
    if not path.is_file():
        raise InputError(f"tasks/{text}.yaml: no such task{did_you_mean(text, names()) or '; `maxpo-bench plan` lists them'}")
    return path


def seed_range(text, results):
    """The seeds of an option "A:B" (A to B-1), None without one. They are not the task's own, so they need another folder."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if not found or int(found[1]) >= int(found[2]):
        raise InputError(f"--seeds {text}: must be A:B with A < B, the seeds A to B-1")
    if results is None:
        raise InputError("--seeds needs --results DIR: what is published has the seeds of its task file")
    return range(int(found[1]), int(found[2]))


def load(name_or_path, overrides=None):
    """Read and check one task file. Returns a Task; InputError names the file, the key, the value and the nearest legal name.

    overrides: {"optimiser.lr": 0.1, "k": 2}: values in place of the file's. sha256 stays that of the file.
    """
    from maxpo_bench.settings import loader
    from maxpo_bench.settings.models import checked
    from maxpo_bench.settings.task import Common, Custom, kinds, model_of

    path = find(name_or_path)
    where = f"{path.parent.name}/{path.name}"
    raw = loader.read(path, where)
    kind, known = raw.get("kind"), kinds()
    if kind is None:
        raise InputError(f"{where}: key 'kind' is missing; one of {', '.join(known)}, or path.py:Class")
    custom = isinstance(kind, str) and re.fullmatch(r"[^:]+\.py:\w+", kind) is not None
    if custom:
        _inside(path, kind.split(":")[0], where)
    elif not isinstance(kind, str) or kind not in known:
        raise InputError(f"{where}: kind: unknown kind {str(kind)[:100]!r}{did_you_mean(kind, known)}; legal: {', '.join(known)}")
    changed = _overridden(raw, overrides or {})
    values = checked(Custom if custom else model_of(kind), changed, where).model_dump()
    # Of what is written, not of defaults: a new key with a default changes no task.
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()
    if custom:  # a task's own code is part of the task
        digest = hashlib.sha256(digest.encode() + (path.parent / kind.split(":")[0]).read_bytes()).hexdigest()
    common = {key: values.pop(key) for key in Common.model_fields}
    return Task(name=path.stem, path=path, sha256=digest, sections=values, overrides=dict(overrides or {}), **common)


def _overridden(raw, overrides):
    """A copy of what a file says with other values at these dotted keys."""
    for key, value in overrides.items():
        section, _, name = key.rpartition(".")
        raw = {**raw, **({section: {**(raw.get(section) or {}), name: value}} if section else {name: value})}
    return raw


def _inside(path, relative, where):
    target = (path.parent / relative).resolve()
    if not target.is_relative_to(path.parent.resolve()):
        raise InputError(f"{where}: kind: {relative} leads out of the folder of the task file")
    if not target.is_file():
        raise InputError(f"{where}: kind: no file {relative} beside the task file")
