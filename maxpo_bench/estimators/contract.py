"""What every estimator is: a pure function of rewards, its declaration, and validation at the edge."""

import inspect
import math
from pathlib import Path

import torch

from maxpo_bench.errors import InputError, did_you_mean


def any_k(n):
    """k in 1..N."""
    return range(1, n + 1)


def below_n(n):
    """k in 1..N-1: the leave-one-out value needs k samples among the N-1 others."""
    return range(1, n)


def only_n(n):
    """k = N alone."""
    return range(n, n + 1)


DOMAINS = {  # name: (test on rewards, what the message asks for)
    "any": None,
    "binary": (lambda x: (x == 0) | (x == 1), "rewards that are 0 or 1"),
    "non-negative": (lambda x: x >= 0, "rewards >= 0"),
    "unit interval": (lambda x: (x >= 0) & (x <= 1), "rewards in [0, 1]"),
}


OBJECTIVES = {  # name: weights {j: weight of J_j} at (n, k), for the objectives that are sums of J_j
    "J_1": lambda n, k: {1: 1.0},
    "J_K": lambda n, k: {k: 1.0},
    "sum J_K/K": lambda n, k: {j: 1 / j for j in range(1, n)},
    "sum to K of J_j": lambda n, k: dict.fromkeys(range(1, k + 1), 1.0),
    "sum to K of J_j/j": lambda n, k: {j: 1 / j for j in range(1, k + 1)},
}

SIDE = {  # side information, [..., N] like the rewards: (test, what the message asks for)
    "score_norms": (lambda x: torch.isfinite(x) & (x >= 0), "a finite score norm >= 0"),
    "lengths": (lambda x: torch.isfinite(x) & (x > 0), "a finite length > 0"),
}


class Estimator:
    """A callable advantage estimator and its declaration.

    estimator(rewards, k=1, score_norms=None, lengths=None, **options) -> advantages
      rewards      [..., N], a tensor of any device and real dtype, nested lists or a numpy array; an estimator with
                   `across_groups` reads axis -2 as the groups of one batch and every axis before it as independent batches
      k            samples of which the best counts; must be in `valid_k(N)`, also where the formula ignores it
      score_norms  [..., N] squared score norms; ignored unless in `side`; None: not known
      lengths      [..., N] tokens of each completion, or steps of each episode, > 0; ignored unless in `side`; None: not
                   known, or all the same
      options      keyword arguments of the estimator's own function, listed in `options`
      advantages   [..., N] on the mean-loss scale, in the rewards' float dtype (integers: the default dtype)
    Raises InputError (a ValueError) naming the estimator, the value and its place; also of an advantage that float16 cannot hold.
    """

    def __init__(self, function, objective, unbiased, centred, cost, source, valid_k, unbiased_on, scale, rewards, across_groups):
        self.function = function
        self.name = function.__name__
        self.__name__ = self.name
        self.__doc__ = function.__doc__
        self.path = Path(inspect.getfile(function))
        self.objective = objective
        """What E[g] is the gradient of: a name of OBJECTIVES, "min_K" (the mean minimum of K samples) or "none"."""
        self.unbiased = unbiased
        """True when E[g] equals the gradient of the objective, with factor 1, whatever the rewards."""
        self.unbiased_on = unbiased_on
        """The rewards on which that holds: "any", "binary", or "none"."""
        self.scale = scale
        """scale(n, k): the factor c in E[g] = c grad objective; None when E[g] is not parallel to it."""
        self.centred = centred
        """True when the advantages of every group sum to zero."""
        self.cost = cost
        self.source = source
        self.valid_k = valid_k
        """valid_k(n) -> the range of k that a group of n samples allows."""
        self.rewards = rewards
        """The rewards the formula is defined for: a key of DOMAINS."""
        self.across_groups = across_groups
        """True when a group's advantages depend on the other groups of its batch (axis -2)."""
        parameters = inspect.signature(function).parameters
        self.uses_k = "k" in parameters
        self.side = tuple(name for name in SIDE if name in parameters)
        """The side information that the function uses: names of SIDE. Problems have a method of each name."""
        self.options = {name: parameter.default for name, parameter in parameters.items() if name not in ("rewards", "k", *SIDE)}
        """Option names and their defaults."""

    def __repr__(self):
        return f"<estimator {self.name}: {self.objective}, {self.source}>"

    def __call__(self, rewards, k=1, score_norms=None, lengths=None, **options):
        rewards = self._tensor("rewards", rewards)
        dtype = rewards.dtype if rewards.is_floating_point() else torch.get_default_dtype()
        num_axes = 2 if self.across_groups else 1
        if rewards.dim() < num_axes or rewards.shape[-1] < 2:
            shape = "[..., groups, N]" if self.across_groups else "[..., N]"
            raise InputError(f"{self.name}: rewards must be {shape} with N >= 2, got shape {list(rewards.shape)}")
        n = rewards.shape[-1]
        valid = self.valid_k(n)
        if k not in valid or isinstance(k, bool):
            span = f"{valid[0]}..{valid[-1]}" if len(valid) > 1 else (f"{valid[0]} alone" if len(valid) else "no value")
            raise InputError(f"{self.name}: k = {k!r} is outside its range for N = {n}: {span}")
        values = rewards.detach().to(torch.float64)
        if not math.isfinite(values.sum().item()):
            self._reject("a finite reward", values, torch.isfinite(values))
        if self.rewards != "any":
            test, wanted = DOMAINS[self.rewards]
            self._reject(wanted, values, test(values))
        for option in options:
            if option not in self.options:
                raise InputError(f"{self.name}: unknown option {option!r}{did_you_mean(option, self.options)}")
        arguments = dict(options)
        if self.uses_k:
            arguments["k"] = int(k)
        for name in self.side:
            arguments[name] = self._side(name, score_norms if name == "score_norms" else lengths, rewards)
        found = self.function(values, **arguments) if values.numel() else values  # an empty batch has no largest reward
        if dtype is torch.float16:  # the only dtype so narrow that common rewards leave it
            largest = torch.finfo(dtype).max
            wanted = f"float32 or float64 rewards: float16 advantages end at {largest:.0f}"
            self._reject(wanted, found, found.abs() <= largest, "advantages")
        return found.to(dtype)

    def _tensor(self, name, values):
        """Lists and numpy arrays as a tensor; tensors as they are."""
        if not isinstance(values, torch.Tensor):
            try:
                values = torch.tensor(values)
            except Exception as error:  # torch has many words for it
                raise InputError(f"{self.name}: {name} must be numbers [..., N]: {str(error).splitlines()[0]}") from None
        if values.is_complex():
            raise InputError(f"{self.name}: {name} must be real numbers, got {values.dtype}")
        return values

    def _reject(self, wanted, values, good, what="rewards"):
        """Raises InputError for the first of the values that is not good; returns when all are."""
        if good.all():
            return
        place = (~good).nonzero()[0].tolist()  # [..., sample]
        group = f"group {place[0] if len(place) == 2 else tuple(place[:-1])}, " if len(place) > 1 else ""
        raise InputError(
            f"{self.name}: needs {wanted}, got {values[tuple(place)].item()} at {what}{place} ({group}sample {place[-1]})"
        )

    def _side(self, name, values, rewards):
        """Side information as float64; None stays None."""
        if values is None:
            return None
        values = self._tensor(name, values)
        if values.shape != rewards.shape:
            raise InputError(f"{self.name}: {name} has shape {list(values.shape)}, rewards have {list(rewards.shape)}")
        values = values.detach().to(rewards.device, torch.float64)
        test, wanted = SIDE[name]
        self._reject(wanted, values, test(values), name)
        return values


def estimator(
    *,
    objective,
    centred,
    cost,
    source,
    unbiased=False,
    valid_k=any_k,
    unbiased_on=None,
    scale=None,
    rewards="any",
    across_groups=False,
):
    """Decorator that turns a function of float64 rewards into a registry Estimator.

    The function is `f(rewards, [k], [score_norms], [lengths], **options)`: rewards arrive validated, float64, [..., N]; it
    must not change them and returns new float64 advantages. Name `k` or side information only when the formula uses it.
    The declarations are checked against exact enumeration by tests/estimators and maxpo_bench/check/properties.py.
    """
    if rewards not in DOMAINS:
        raise InputError(f"estimator declared for rewards {rewards!r}{did_you_mean(rewards, DOMAINS)}")
    if unbiased and scale is None:
        scale = _one
    if unbiased_on is None:
        unbiased_on = "any" if unbiased else "none"

    def wrap(function):
        return Estimator(
            function, objective, unbiased, centred, cost, source, valid_k, unbiased_on, scale or _none, rewards, across_groups
        )

    return wrap


def _one(n, k):
    return 1.0


def _none(n, k):
    return None
