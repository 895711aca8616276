"""The registry of advantage estimators: one file each in this folder, found by discovery, no list to edit.

    from maxpo_bench.estimators import get, names
    advantages = get("maxpo")(rewards, k=4)        # rewards [..., N] -> advantages [..., N], mean-loss scale

Mean-loss scale: the gradient estimate is g = (1/N) sum_i A_i grad log pi(y_i), the loss is -(A * log_probs).mean().
A file is an estimator when a line of it starts with `@estimator(`; its name is the file's name.
Nothing here imports torch until an estimator is asked for.
"""

import functools
import hashlib
import importlib
from pathlib import Path

from maxpo_bench.errors import InputError, did_you_mean

FOLDER = Path(__file__).parent
SHARED_SOURCES = ("contract.py", "moments.py", "order_statistics.py")  # what advantages depend on besides an estimator's own file


def names():
    """The sorted names of every estimator in this folder. Reads files, imports nothing."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if "\n@estimator(" in path.read_text(encoding="utf-8"))


@functools.cache
def get(name):
    """The Estimator called `name`. Raises InputError, naming the nearest, for a name that is not in the registry."""
    known = names()
    if name not in known:
        raise InputError(f"unknown estimator {name!r}{did_you_mean(name, known) or '.'} Known: {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{name}")
    if not hasattr(module, name):
        raise InputError(f"{module.__file__} must hold one estimator called {name!r}, like its file")
    return getattr(module, name)


def shared_sha256():
    """{file: sha256} of the sources that every estimator shares. Imports nothing of them."""
    return {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in SHARED_SOURCES}
