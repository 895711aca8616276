"""Studies that train: a file each in this folder, found by discovery, which says what to train on a task and nothing else.

Such a file has TITLE and trainings(task, estimators, table) -> [Training, ...]. It is asked again with the table of what is
finished until it wants nothing more, so that a sweep can go on where the best lies at its edge. pipeline/trained.py runs them;
what a row of the table holds is said there. LADDER = True: with max@k and pass@k at every k; CELLS = True: with the files
of each cell; NEEDS: other such studies whose table of the task it reads.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.settings.task import FIRST_TUNING_SEED

FOLDER = Path(__file__).parent
TUNING_SEEDS, LANGUAGE_TUNING_SEEDS = 20, 4


@dataclass(frozen=True)
class Training:
    """One estimator on a task, with other values than the task file's (dotted keys) and on which seeds."""

    estimator: str
    overrides: dict = field(default_factory=dict)
    seeds: tuple = ()  # empty: those that the task reports

    @property
    def label(self):
        return " ".join([self.estimator, *(f"{key}={value:g}" for key, value in self.overrides.items())])


def names():
    """The sorted names of the studies that train. Reads files, imports nothing."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef trainings(" in path.read_text(encoding="utf-8"))


def get(name):
    """The module of a study that trains. InputError, naming the nearest, for a name that is not there."""
    known = names()
    if name not in known:
        raise InputError(f"unknown study {name!r}{did_you_mean(name, known)}; studies that train: {', '.join(known)}")
    return importlib.import_module(f"maxpo_bench.studies.{name}")


def tuning_seeds(task):
    """Seeds that no report shows: 20 from 10000 on, 4 for a language model."""
    count = LANGUAGE_TUNING_SEEDS if "sampling" in task.sections else TUNING_SEEDS
    return tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + count))
