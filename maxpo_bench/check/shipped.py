"""Which formula a trainer's named advantage estimator is: estimators/shipped.csv, read, and drawn as docs/which-formula.md.

A row is a trainer, the version that was read, file, name there, and the registry entry with its options, `grpo(ddof=1, eps=1e-4)`;
no entry where it is no function of one reward per sample of the batch, and the note says why.
"""

import ast
import csv
import functools
from pathlib import Path

from maxpo_bench import estimators
from maxpo_bench.check import properties
from maxpo_bench.errors import InputError

PATH = Path(estimators.__file__).parent / "shipped.csv"
PAGE = "docs/which-formula.md"
COLUMNS = ("trainer", "version", "file", "name", "formula", "note")


@functools.cache
def rows():
    """The rows of the table, tuple of dicts of COLUMNS. InputError for a row with other columns or an unknown formula."""
    with open(PATH, encoding="utf-8", newline="") as file:
        found = tuple(csv.DictReader(file))
    for number, row in enumerate(found, start=2):
        if tuple(row) != COLUMNS or None in row.values():
            raise InputError(f"{PATH.name}: line {number}: columns must be {', '.join(COLUMNS)}")
        if row["formula"]:
            parse(row["formula"])
        elif not row["note"]:
            raise InputError(f"{PATH.name}: line {number}: no formula, and no note that says why")
    return found


def parse(formula):
    """("grpo", {"ddof": 1}) of "grpo(ddof=1)". InputError when it is not the name of an estimator with literal options."""
    try:
        call = ast.parse(formula, mode="eval").body
        name = call.func.id if isinstance(call, ast.Call) else call.id
        options = {given.arg: given.value.value for given in getattr(call, "keywords", ())}
    except (SyntaxError, AttributeError, ValueError):
        raise InputError(f"{PATH.name}: {formula!r} is not written as name(option=value)") from None
    known = estimators.get(name).options
    if set(options) - set(known):
        raise InputError(f"{PATH.name}: {formula!r}: options of {name} are {', '.join(known) or 'none'}")
    return name, options


def shipped_as(estimator):
    """Where a registry entry runs, in words: "verl: grpo_passk; EasyR1: grpo_passk"; "" where nowhere."""
    places = [row for row in rows() if row["formula"] and parse(row["formula"])[0] == estimator]
    found = []
    for row in places:
        given = row["formula"].removeprefix(estimator).strip("()")
        found.append(f"{row['trainer']}: {row['name']}" + (f" [{given}]" if given else ""))
    return "; ".join(found)


def gradient(row):
    """What E[g] is, in words, from a row of the property table."""
    if row["parallel_to"] != "none":
        scale = {"1": "", "varies": "c(N, K) x "}.get(row["scale"], f"({row['scale']}) x ")
        return f"{scale}grad {row['parallel_to']}"
    objective, _, where = row["direction"].partition(" on ")
    if objective == "none":
        return "no known objective"
    return f"along grad {objective}, size by policy" + (f", on {where} only" if where else "")


def render():
    """The page docs/which-formula.md: every row by trainer, then every formula with what its gradient is. Seconds."""
    lines = [
        "# Which formula does my trainer run?",
        "",
        "Names do not identify formulas. Each row was read in the trainer's source at the version given; the formula is an entry "
        "of this registry with its options ([all of them](gallery.md)), on the scale of the mean loss. `-`: not a function of one "
        "reward per sample. verl 0.9.1, TRL 1.16.0 and tinker-cookbook 0.6.1 were also run: their own functions give these "
        "formulas' advantages to 1e-6 (`tests/peers/test_trainers.py`), on batches without spread as well. To ask of a function "
        "itself: [`maxpo-bench check`](check.md). Made from `maxpo_bench/estimators/shipped.csv`.",
    ]
    for trainer in dict.fromkeys(row["trainer"] for row in rows()):
        own = [row for row in rows() if row["trainer"] == trainer]
        files = ", ".join(dict.fromkeys(f"`{row['file']}`" for row in own))
        lines += [
            "",
            f"## {trainer}",
            "",
            f"Version {own[0]['version']}, {files}.",
            "",
            "| name there | formula | note |",
            "|---|---|---|",
        ]
        for row in own:
            formula = f"`{row['formula']}`" if row["formula"] else "-"
            lines.append(f"| {row['name']} | {formula} | {row['note']} |")
    lines += [
        "",
        "## What each formula estimates",
        "",
        "Derived by enumerating every group of small bandits (see the property table of the report), lengths and score norms "
        "included. 'along': the direction is exact for each prompt, the size depends on the policy. 'own sample': sample i enters "
        "its own scale or baseline. Last column: the largest |A| in a group of five with one success or one failure.",
        "",
        "| formula | E[g] | centred | flat group | own sample | all but one |",
        "|---|---|---|---|---|---|",
    ]
    for formula in sorted({row["formula"] for row in rows()} - {""}):
        name, options = parse(formula)
        row = properties.derive(properties.form(name, **options))
        lines.append(
            f"| `{formula}` | {gradient(row)} | {row['centred']} | {row['flat_group']} | {row['own_sample']} | "
            f"{row['all_but_one']:.4g} |"
        )
    return "\n".join(lines) + "\n"
