"""dvc.lock files: `plan` reads all of them, for which a YAML reader takes longer than all the rest of it. Imports no torch."""

import functools
import re

import yaml

from maxpo_bench.errors import InputError

HEAD = "schema: '2.0'\nstages:\n"
STAGE = re.compile(r"^  (?=\S)", re.MULTILINE)
SECTION = re.compile(r"^    (\w+):", re.MULTILINE)
FILE = re.compile(
    r"    - path: (?:\n        )?([\w./@-]+)\n      hash: md5\n      md5: '?(\w+(?:\.dir)?)'?\n"
    r"      size: \d+\n(?:      nfiles: \d+\n)?"
)


class StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """In C where there is one; a key written twice is an error, as for DVC."""


def _unique_mapping(loader, node):
    found = loader.construct_mapping(node, deep=True)
    if len(found) < len(node.value):
        raise ValueError("a key is there twice")
    return found


StrictLoader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def read(path):
    """{stage: its entry with deps, outs and params} of a lock file, {} where there is none. InputError: not a lock file."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        stages = _as_written(text)
        stages = _as_yaml(text) if stages is None else stages
        for entry in stages.values():
            [item["path"] + "" for kind in ("deps", "outs") for item in entry.get(kind, ())]
            [values.items() for values in entry.get("params", {}).values()]
        return stages
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise InputError(f"{path}: not a lock file of DVC; restore it with `git checkout {path.name}` in its folder") from None


def _as_written(text):
    """What DVC itself wrote, by its lines. None for a file that has anything else in it."""
    head, *stages = STAGE.split(text)
    if head != HEAD:
        return None
    found = {}
    for stage in stages:
        name, *sections = SECTION.split(stage)
        name, colon, rest = name.partition(":\n")
        if not colon or rest or name in found or not re.fullmatch(r"[\w@.-]+", name):
            return None
        entry = found[name] = {}
        for key, section in zip(sections[::2], sections[1::2], strict=True):
            if key in entry:
                return None
            if key == "params":
                entry[key] = _params(section)
            elif key in ("deps", "outs"):
                entry[key] = [{"path": path, "md5": md5} for path, md5 in FILE.findall(section)]
                if FILE.sub("", section) != "\n":
                    return None
    return found


@functools.cache
def _params(section):
    return yaml.load(section, Loader=StrictLoader)


def _as_yaml(text):
    return dict(yaml.load(text, Loader=StrictLoader)["stages"])
