"""An estimator inside somebody else's trainer: TRL, verl, ragged groups. Needs the core, and each file the trainer it is named after."""

import inspect
from importlib import metadata

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get


def prepare(estimator, k=1, **options):
    """compute(rewards [G, N] float64, lengths [G, N] or None) -> advantages [G, N] float64, checked.

    estimator: a name of the registry, or a function f(rewards [G, N], **options) -> advantages [G, N], which gets k and lengths
    where it names them. compute raises InputError for a k that does not fit N, and for a function that returns another shape,
    integers, or numbers that are not finite. compute.valid_k(n): the range of k; compute.across_groups: see Estimator.
    """
    function = get(estimator) if isinstance(estimator, str) else estimator
    if not callable(function):
        raise InputError(f"estimator must be a name of the registry or a function, got {type(function).__name__}")
    registered = hasattr(function, "valid_k")
    name = getattr(function, "__name__", type(function).__name__)
    taken = {"k", "lengths"} if registered else set(inspect.signature(function).parameters)

    def compute(rewards, lengths=None, k=k):
        given = {key: value for key, value in (("k", k), ("lengths", lengths)) if key in taken}
        advantages = function(rewards, **given, **options)
        if not isinstance(advantages, torch.Tensor) or advantages.shape != rewards.shape:
            got = f"shape {list(advantages.shape)}" if isinstance(advantages, torch.Tensor) else type(advantages).__name__
            raise InputError(
                f"{name}: returned {got} for rewards of shape {list(rewards.shape)}; return one advantage for each reward"
            )
        if not advantages.is_floating_point():
            raise InputError(f"{name}: returned {advantages.dtype}; advantages must be floating point")
        if not advantages.isfinite().all():
            place = (~advantages.isfinite()).nonzero()[0].tolist()
            raise InputError(f"{name}: returned {advantages[tuple(place)].item()} at advantages{place}; they must be finite")
        return advantages.detach().double()

    compute.name = name
    compute.k = k
    compute.valid_k = function.valid_k if registered else lambda n: range(1, n + 1)
    compute.across_groups = getattr(function, "across_groups", False)
    return compute


def tested(package, low, high):
    """Raises InputError unless low <= the installed version of a package < high, all given as (major, minor)."""
    found = metadata.version(package)
    major, minor = (int("".join(filter(str.isdigit, part)) or 0) for part in found.split(".")[:2])
    if not low <= (major, minor) < high:
        low, high = (".".join(map(str, bound)) for bound in (low, high))
        raise InputError(f"maxpo_bench was tested with {package} >={low},<{high}, found {package} {found}: install one of those")
