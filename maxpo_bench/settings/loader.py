"""The one loader of the YAML that people write: strict, nothing in it runs, and what is wrong is one line with its place."""

import re
from pathlib import Path

import yaml

from maxpo_bench.errors import InputError

MAX_DIGITS = 15  # a float64 counts no further


class StrictLoader(yaml.SafeLoader):
    """safe_load, but a key written twice is an error, 3e-3 is a number (YAML 1.1 wants 3.0e-3), and there are no aliases.

    DVC reads the same files by YAML 1.2: numbers that the two versions read differently (010, 1_000, 1:30) are errors.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):  # a page of them unfolds to gigabytes
            raise _problem("aliases (*name) are not taken", self.peek_event())
        return super().compose_node(parent, index)


def _problem(text, node):
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def _unique_mapping(loader, node, deep=False):
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _problem(f"key {str(key)[:100]!r} is not a word", key_node)
        if key in seen:
            raise _problem(f"key {key[:100]!r} is written twice", key_node)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


def _number(loader, node):
    text = loader.construct_scalar(node)
    whole = node.tag.endswith(":int")
    if "_" in text or ":" in text or (whole and not re.fullmatch(r"[-+]?(0|[1-9]\d*)", text)):
        raise _problem(f"{text[:100]} is read differently by others; write decimal digits alone, or put a text in quotes", node)
    if whole and len(text.lstrip("-+")) > MAX_DIGITS:
        raise _problem(f"a number of {len(text.lstrip('-+'))} digits; at most {MAX_DIGITS} are taken", node)
    return int(text) if whole else loader.construct_yaml_float(node)


StrictLoader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)
StrictLoader.add_constructor("tag:yaml.org,2002:int", _number)
StrictLoader.add_constructor("tag:yaml.org,2002:float", _number)
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read(path, where=None):
    """The mapping that a YAML file holds: words to texts, numbers, yes/no, None, lists and mappings. {} for an empty file.

    where: what messages call the file (default: its path). InputError: no such file, not UTF-8, not valid YAML, or another
    kind of content, each in one line.
    """
    where = str(where or path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{where}: not found") from None
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None
    try:
        found = yaml.load(data.decode("utf-8"), Loader=StrictLoader)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}: line {line}: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 30th of February
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{where}:{line} not valid YAML ({problem})") from None
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise InputError(f"{where}: must be a mapping of keys to values, this is a {type(found).__name__}")
    _only_plain(found, where, "")
    return found


def shown_key(key):
    """A key as messages name it, whatever somebody wrote there."""
    return key[:100] if key.isprintable() else repr(key[:100])


def _only_plain(value, where, key):
    """InputError where YAML made something else of a value: a date, bytes, a set."""
    if isinstance(value, dict):
        for name, entry in value.items():
            _only_plain(entry, where, f"{key}.{shown_key(name)}" if key else shown_key(name))
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            _only_plain(entry, where, f"{key}[{number}]")
    elif not isinstance(value, str | int | float | None):
        shown = "a set" if isinstance(value, set) else "binary" if isinstance(value, bytes) else f"a {type(value).__name__}"
        raise InputError(f"{where}: {key[:200]}: {str(value)[:100]!r} is read as {shown}; put a text in quotes")
