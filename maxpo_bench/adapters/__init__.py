"""An estimator inside somebody else's trainer: TRL, verl, ragged groups. Needs the core, and that trainer where it is used."""

import inspect
from importlib import metadata

import torch

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.estimators import get
from maxpo_bench.estimators.contract import Estimator, any_k


class Prepared:
    """prepared(rewards [G, N], lengths [G, N] or None) -> advantages [G, N] float64, checked.

    estimator: a name of the registry, or a function f(rewards [G, N], **options) -> advantages [G, N], which gets k and lengths
    where it names them. The call raises InputError for a k that does not fit N, and for a function that returns another
    shape, integers, or numbers that are not finite.
    """

    def __init__(self, estimator, k=1, **options):
        self.function = get(estimator) if isinstance(estimator, str) else estimator
        if not callable(self.function):
            raise InputError(f"estimator must be a name of the registry or a function, got {type(estimator).__name__}")
        registered = isinstance(self.function, Estimator)
        self.name = getattr(self.function, "__name__", type(self.function).__name__)
        self.k, self.options = k, options
        self.takes = {"k", "lengths"} if registered else set(inspect.signature(self.function).parameters)
        if not registered:
            refuse_unknown(self.name, self.function, {"k", "lengths", *options})
        self.valid_k = self.function.valid_k if registered else any_k
        self.across_groups = registered and self.function.across_groups
        if registered:
            for option in options:
                if option not in self.function.options:
                    known = self.function.options
                    raise InputError(f"{self.name}: unknown option {option!r}{did_you_mean(option, known)}")

    def span(self, n):
        """The words for the k that groups of n allow, None where self.k is one of them."""
        valid = self.valid_k(n) if n > 1 else range(0)
        if self.k in valid and not isinstance(self.k, bool):
            return None
        return f"k in {valid[0]}..{valid[-1]}" if len(valid) else "no k"

    def __call__(self, rewards, lengths=None, k=None):
        given = {"k": self.k if k is None else k, "lengths": lengths}
        given = {name: value for name, value in given.items() if name in self.takes}
        advantages = self.function(rewards, **given, **self.options)
        if not isinstance(advantages, torch.Tensor) or advantages.shape != rewards.shape:
            got = f"shape {list(advantages.shape)}" if isinstance(advantages, torch.Tensor) else type(advantages).__name__
            raise InputError(f"{self.name}: returned {got} for rewards {list(rewards.shape)}; return one advantage for each reward")
        if not advantages.is_floating_point():
            raise InputError(f"{self.name}: returned {advantages.dtype}; advantages must be floating point")
        if not advantages.isfinite().all():
            place = (~advantages.isfinite()).nonzero()[0].tolist()
            raise InputError(f"{self.name}: returned {advantages[tuple(place)].item()} at advantages{place}; they must be finite")
        return advantages.detach().double()


def refuse_unknown(name, function, known):
    """Raises InputError where a function takes no rewards, or wants more than the parameters `known`, all given by name."""
    first, *others = inspect.signature(function).parameters.values() or [None]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_ONLY)
    unknown = [p.name for p in others if p.default is p.empty and p.kind in named and p.name not in known]
    if first is None or unknown:
        what = f"what is its parameter {unknown[0]!r}?" if unknown else "it takes no rewards;"
        raise InputError(
            f"{name}: {what} a function gets rewards [G, N], and k and lengths where it names them; give others a default, or a "
            "value as an option"
        )


def check_version(package, low, high):
    """Raises InputError unless low <= the installed version of a package < high, all given as (major, minor)."""
    found = metadata.version(package)
    major, minor = (int("".join(filter(str.isdigit, part)) or 0) for part in found.split(".")[:2])
    if not low <= (major, minor) < high:
        low, high = (".".join(map(str, bound)) for bound in (low, high))
        raise InputError(f"maxpo_bench was tested with {package} >={low},<{high}, found {package} {found}: install one of those")
