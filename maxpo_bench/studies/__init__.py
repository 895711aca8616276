"""Figures and tables that need no cell of the benchmark: one file per study, found by discovery, no list to edit.

A study file has TITLE, CAPTION (or caption(data) -> str), run() -> DataFrame and figure(data) -> Figure or None.
run() is a function of nothing but the code: random numbers come from streams.generator, so a CSV repeats byte for byte;
but for those in TIMED, whose times no two runs share. Studies that train on a task are files here too: see trainings.py.
"""

import importlib
from pathlib import Path

from maxpo_bench.errors import InputError, did_you_mean

FOLDER = Path(__file__).parent
TIMED = ("cost", "step_time")  # their columns time_* and every estimate with an interval are times, which are never compared


def names():
    """The sorted names of every study in this folder. Reads files, imports nothing."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef run(" in path.read_text(encoding="utf-8"))


def get(name):
    """The module of a study. InputError, naming the nearest, for a name that is not there."""
    known = names()
    if name not in known:
        raise InputError(f"unknown study {name!r}{did_you_mean(name, known)}; studies: {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{name}")


def caption(name, data):
    """The text under a study's figure: M, seeds, interval, and a sentence where it contradicts a published claim."""
    study = get(name)
    return study.caption(data) if hasattr(study, "caption") else study.CAPTION


def run_study(name, out_csv):
    """Runs one study and writes its data, floats to 10 significant digits, whole or not at all."""
    from maxpo_bench.machine import files

    data = get(name).run()
    files.write_bytes(out_csv, data.to_csv(index=False, float_format="%.10g", lineterminator="\n").encode())
