"""What all models of YAML files have in common: nothing is converted, no key is unknown, and the first error is one line."""

import difflib
import math
from types import UnionType
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.settings.loader import shown_key


class Section(BaseModel):
    """A mapping of a YAML file. A rule between its keys is a model_validator that raises ValueError("key: what is wrong")."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True, protected_namespaces=())


WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "yes or no", list: "a list", dict: "a mapping"}


def checked(model, raw, where):
    """raw (as loader.read gives it) as an instance of a model. InputError names the file, the key, the value and what is legal."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        # A word that is unknown explains the one that is missing, so it comes first.
        found = min(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
        key, text = _told(model, raw, found)
        raise InputError(": ".join(part for part in (str(where), key, text) if part)) from None


def _told(model, raw, error):
    """(key, what is wrong with it) of one of pydantic's errors."""
    path, kind, value, about = error["loc"], error["type"], error["input"], error.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 100 else repr(value)[:100] + " ..."
    key, field, hint = _place(model, raw, path)
    if kind == "extra_forbidden":
        legal = list(_fields(hint))
        near = difflib.get_close_matches(path[-1], legal, n=1, cutoff=0.5)
        prefix = key.removesuffix(shown_key(path[-1]))
        return key, "unknown key, " + (f"did you mean {prefix + near[0]!r}?" if near else f"legal: {', '.join(legal)}")
    if kind == "missing":
        while _is_section(hint):  # of a section, its first key that has no default
            name, field = next((name, field) for name, field in _fields(hint).items() if field.is_required())
            key, hint = f"{key}.{name}", field.annotation
        return key, f"missing ({field.description or _words(hint)})"
    if kind == "value_error":  # a rule of the model's own, which says what it is about
        rule = str(about["error"])  # of a section, it begins with the key
        return ("", f"{key}.{rule}" if key else rule) if _is_section(hint) else (key, rule)
    if kind == "model_type":
        return key, f"must be a section with keys {', '.join(_fields(hint))}, got {shown}"
    if kind == "literal_error":
        legal = [str(word) for word in get_args(hint)]
        return key, f"unknown value {shown}{did_you_mean(value, legal)}; legal: {', '.join(legal)}"
    if kind == "finite_number" or isinstance(value, float) and not math.isfinite(value):
        return key, f"must be finite, got {shown}"
    if kind in ("greater_than_equal", "greater_than"):
        return key, f"must be {'at least' if 'ge' in about else 'above'} {_bound(about)}, got {shown}"
    if kind in ("less_than_equal", "less_than"):
        return key, f"must be {'at most' if 'le' in about else 'below'} {_bound(about)}, got {shown}"
    if kind in ("too_short", "too_long"):
        number = about.get("min_length", about.get("max_length"))
        entries = "1 entry" if number == 1 else f"{number} entries"
        return key, f"must have {entries} at {'least' if kind == 'too_short' else 'most'}, got {shown}"
    if kind == "string_pattern_mismatch":
        return key, f"must be {field.description or about['pattern']}, got {shown}"
    if kind.startswith("string_too"):
        return key, f"must not be empty, got {shown}" if kind == "string_too_short" else f"too long: {shown}"
    return key, f"must be {_words(hint)}, got {shown}"


def _bound(about):
    """The limit of a range: 1, not 1.0."""
    limit = next(about[name] for name in ("ge", "gt", "le", "lt") if name in about)
    return int(limit) if limit == int(limit) else limit


def _is_section(hint):
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _fields(section):
    """{key as it is written: field} of a section."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _place(model, raw, path):
    """(key as it is written in the file, its field, its type), following pydantic's path. An entry with an id goes by that."""
    key, field, hint = "", None, model
    for step in path:
        if isinstance(step, int):
            entry = raw[step] if isinstance(raw, list) and step < len(raw) else None
            key += f"[{entry['id']}]" if isinstance(entry, dict) and isinstance(entry.get("id"), str) else f"[{step}]"
            hint, raw = (get_args(hint) or (None,))[0], entry
            continue
        if get_origin(hint) is UnionType:  # pydantic's step into one of several types is none in the file
            continue
        key += f".{shown_key(step)}" if key else shown_key(step)
        raw = raw.get(step) if isinstance(raw, dict) else None
        if _is_section(hint) and step in _fields(hint):
            field = _fields(hint)[step]
            hint = field.annotation
        elif get_origin(hint) is dict and len(get_args(hint)) == 2:
            hint = get_args(hint)[1]
    return key, field, hint


def _words(hint):
    """A type in words."""
    origin = get_origin(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if origin is UnionType:
        return " or ".join(_words(one) for one in get_args(hint))
    if hasattr(hint, "__metadata__"):  # Annotated
        return _words(get_args(hint)[0])
    return WORDS.get(origin or hint, "of another kind")
