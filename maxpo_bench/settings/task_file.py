"""Task files: what may stand in tasks/<name>.yaml, read and checked here. Imports no torch.

schema.py is the one page that lists every legal key. A task is one YAML; its `kind` says which sections it has.
"""

import difflib
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.settings.schema import COMMON, KINDS, REQUIRED, Key


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
    sections: dict = field(default_factory=dict)  # the kind's own keys and sections

    def section(self, name):
        """The kind's own section as a dict (a plain key's value), {} when the kind has none of that name."""
        return self.sections.get(name, {})

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
    if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", text):
        raise InputError(f"task name {text[:100]!r}: letters, digits and _ only (give a path ending in .yaml for a file elsewhere)")
    path = root() / "tasks" / f"{text}.yaml"
    if not path.is_file():
        raise InputError(f"tasks/{text}.yaml: no such task{did_you_mean(text, names()) or '; `maxpo-bench plan` lists them'}")
    return path


def load(name_or_path):
    """Read and check one task file. Returns a Task; InputError names the file, the key and the nearest legal name."""
    path = find(name_or_path)
    where = f"{path.parent.name}/{path.name}"
    data = path.read_bytes()
    try:
        raw = yaml.load(data, Loader=StrictLoader)
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:  # ValueError: the 30th of February
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{where}:{line} not valid YAML ({problem})") from None
    if not isinstance(raw, dict):
        raise InputError(f"{where}: a task file is a mapping of keys to values, this is {type(raw).__name__}")
    kind = raw.get("kind")
    if kind is None:
        raise InputError(f"{where}: key 'kind' is missing; one of {', '.join(KINDS)}, or path.py:Class")
    custom = isinstance(kind, str) and re.fullmatch(r"[^:]+\.py:\w+", kind) is not None
    if custom:
        _inside(path, kind.split(":")[0], where)
        schema = {**COMMON, "options": Key(dict, default={})}
    elif isinstance(kind, str) and kind in KINDS:
        schema = {**COMMON, **KINDS[kind]}
    else:
        raise InputError(f"{where}: kind: unknown kind {kind!r}{did_you_mean(kind, KINDS)}; legal: {', '.join(KINDS)}")
    values = _check_mapping(raw, schema, where, "")
    if values["loss"]["epochs"] > 1 and values["loss"]["clip"] == 0:
        raise InputError(f"{where}: loss.epochs: {values['loss']['epochs']} passes over a batch need loss.clip > 0")
    if values["loss"]["kl"] and not custom and "model" not in schema:
        raise InputError(f"{where}: loss.kl: kind {kind} has no base model to stay close to; leave it out")
    if values["k"] > values["group_size"]:
        raise InputError(f"{where}: k: {values['k']} is larger than group_size {values['group_size']}")
    if values["evaluation"]["samples"] < values["k"]:
        raise InputError(f"{where}: evaluation.samples: {values['evaluation']['samples']} is fewer than k {values['k']}")
    if 0 < values["evaluation"]["curve_samples"] < values["k"]:
        raise InputError(f"{where}: evaluation.curve_samples: fewer than k {values['k']}")
    if "outcome" in schema:
        _check_outcome(raw, values, where)
    common = {key: values.pop(key) for key in COMMON}
    digest = _content_hash(raw, where)
    if custom:  # a task's own code is part of the task
        digest = hashlib.sha256(digest.encode() + (path.parent / kind.split(":")[0]).read_bytes()).hexdigest()
    return Task(name=path.stem, path=path, sha256=digest, sections=values, **common)


def _content_hash(raw, where):
    try:
        return hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()
    except TypeError as error:
        raise InputError(f"{where}: only texts, numbers, yes/no, lists and mappings ({error})") from None


class StrictLoader(yaml.SafeLoader):
    """safe_load, but a key written twice is an error and 3e-3 is a number (YAML 1.1 wants 3.0e-3). No aliases."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):  # a page of them unfolds to gigabytes
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not taken", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def _unique_mapping(loader, node, deep=False):
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is written twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


StrictLoader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _inside(path, relative, where):
    target = (path.parent / relative).resolve()
    if not target.is_relative_to(path.parent.resolve()):
        raise InputError(f"{where}: kind: {relative} leads out of the folder of the task file")
    if not target.is_file():
        raise InputError(f"{where}: kind: no file {relative} beside the task file")


def _check_mapping(raw, schema, where, prefix):
    if not isinstance(raw, dict):
        raise InputError(f"{where}: {prefix.rstrip('.')}: must be a section with keys {', '.join(schema)}")
    for key in raw:
        if key not in schema:
            legal = difflib.get_close_matches(str(key), schema, n=1, cutoff=0.5)
            hint = f", did you mean {prefix + legal[0]!r}?" if legal else f"; legal: {', '.join(schema)}"
            raise InputError(f"{where}: {prefix}{key}: unknown key{hint}")
    values = {}
    for key, spec in schema.items():
        if isinstance(spec, dict):
            values[key] = _check_mapping(raw.get(key, {}), spec, where, f"{prefix}{key}.")
        elif key in raw:
            values[key] = _check_value(raw[key], spec, where, f"{prefix}{key}")
        elif spec.default is REQUIRED:
            raise InputError(f"{where}: {prefix}{key}: missing ({spec.doc or _type_name(spec)})")
        else:
            values[key] = list(spec.default) if isinstance(spec.default, tuple) else spec.default
    return values


def _check_outcome(raw, values, where):
    """pass@k is defined: it is said what an episode must reach, except where the rewards of a table are 0/1 anyway."""
    outcome, written = values["outcome"], raw.get("outcome", {})
    if outcome["type"] == "normalised" and not outcome["high"] > outcome["low"]:
        raise InputError(f"{where}: outcome.high: {outcome['high']} must be larger than outcome.low {outcome['low']}")
    if outcome["type"] == "success" and "threshold" not in written:
        raise InputError(f"{where}: outcome.threshold: missing (the return from which an episode is a success)")
    if values["kind"] == "gymnasium" and outcome["type"] in ("return", "final") and "success" not in raw.get("score", {}):
        what = "return" if outcome["type"] == "return" else "last reward"
        raise InputError(f"{where}: score.success: missing (pass@k needs the {what} from which an episode passes)")


def _type_name(spec):
    return {int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a mapping", bool: "yes or no"}[
        spec.type if isinstance(spec.type, type) else spec.type[0]
    ]


def _check_value(value, spec, where, key):
    if spec.type in (int, float) and isinstance(value, int) and abs(value) > 1e15:  # beyond it a float counts no ones
        raise InputError(f"{where}: {key}: a number of {len(str(abs(value)))} digits; at most 1e15 is taken")
    if spec.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, spec.type) or (isinstance(value, bool) and spec.type is not bool):
        raise InputError(f"{where}: {key}: must be {_type_name(spec)}, got {value!r}")
    if spec.type in (int, float):
        if not math.isfinite(value):
            raise InputError(f"{where}: {key}: must be finite, got {value!r}")
        if spec.low is not None and value < spec.low:
            raise InputError(f"{where}: {key}: must be at least {spec.low}, got {value!r}")
        if spec.high is not None and value > spec.high:
            raise InputError(f"{where}: {key}: must be at most {spec.high}, got {value!r}")
    if spec.length is not None and len(value) != spec.length:
        raise InputError(f"{where}: {key}: must have {spec.length} entries, got {value!r}")
    if spec.each:
        value = [_check_value(entry, spec.each, where, f"{key}[{i}]") for i, entry in enumerate(value)]
    if spec.choices and value not in spec.choices:
        raise InputError(
            f"{where}: {key}: unknown value {value!r}{did_you_mean(value, spec.choices)}; legal: {', '.join(spec.choices)}"
        )
    return value
