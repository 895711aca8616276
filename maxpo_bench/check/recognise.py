"""Which estimator of the registry a function equals, up to its options and a factor that depends on (N, k) alone.

An estimator is named when it is equal at every k tried. One k never decides: at k = 1 most of the registry is rloo.
"""

import functools
import itertools
from dataclasses import dataclass

import torch

from maxpo_bench.check import properties, shipped
from maxpo_bench.check.subject import varied_side
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names

VALUES = {  # of an option with this name, what public code has; the estimator's own default is tried first, a bool both ways
    "eps": (1e-4, 1e-5, 1e-6, 1e-8, 1e-9, 1e-3, 0.0), "ddof": (0, 1), "form": ("focal", "lead", "mapo", "sqrt", "clipped"),
    "variance_eps": (1e-8,),
    "count": ("groups", "rewards"), "std_of": ("centred", "rewards"), "gamma": (0.5, 1.0), "beta": (1.0, 2.0, 4.0, 5.0, 10.0),
    "quantile": (0.2, 0.4, 0.5, 0.6, 0.8), "weights": ("ReMin", "Median", "TopM:2", "BotM:2"), "weight": (0.1,), 
    "w": (0.5, 0.0, 1.0),
}  # fmt: skip
TIGHT = 2e-4  # of a group's largest advantage: a function may compute in float32 inside
LOOSE = 3e-3  # what an eps beside the std of an ordinary group may leave
SHOWN = 4  # trainers named in a line
FACTORS = {"times N/(N-1)": "N/(N-1)", "over N": "1/N"}  # notes of the table of shipped forms that are a factor
ORDINARY = 8  # of the drawn groups, the first


@dataclass
class Match:
    """A registry estimator that a function equals."""

    name: str
    options: dict
    """Every option and its value."""
    scale: str
    """The factor, in words: "1", "1 - 1/N", "0.5", ..."""
    fixed_k: str
    """" at k = N" or the like, when the estimator takes a k and the function none."""
    rank: tuple
    """The least is the best match: no factor, the function's own kind of rewards, no side information it lacks, few options."""

    def shown_options(self):
        """What differs from the defaults, and with it the eps, where there is one: shipped forms differ in it."""
        shown = {key: value for key, value in self.options.items() if value != get(self.name).options[key] and key != "eps"}
        if self.options != get(self.name).options and "eps" in self.options:
            shown["eps"] = self.options["eps"]
        return shown

    def __str__(self):
        given = ", ".join(f"{key} = {value}" for key, value in self.shown_options().items())
        times = "" if self.scale == "1" else f", times {self.scale}"
        return f"{self.name}{f' with {given}' if given else ''}{self.fixed_k}{times}"


def recognise(subject):
    """(the registry estimator that `subject` equals, else the one it nearly equals, who ships that), in words; None, None, ""."""
    drawn = [draw(subject, n, k) for n, k in cases(subject)]
    for rows, tolerance in ((slice(None), TIGHT), (slice(0, ORDINARY), LOOSE)):
        found = [match for name in names() for match in matches(name, subject, drawn, rows, tolerance)]
        if found:
            best = min(found, key=lambda match: match.rank)
            return (str(best), None, shipped_as(best)) if tolerance == TIGHT else (None, str(best), shipped_as(best))
    return None, None, ""


def cases(subject):
    """The (N, k) at which the function is compared: every k that it takes, or one where it has none."""
    if not subject.takes_k or not subject.depends_on_k:
        return [(n, subject.some_k(n)) for n in [*subject.sizes, 7] if subject.runs(n)]
    return [(n, k) for n in subject.sizes for k in subject.valid[n]]


def draw(subject, n, k):
    """(n, k, rewards, side information, the function's advantages): ordinary groups, then hardly spread and one-sided ones."""
    domain = "any" if "negative" in subject.kinds else "unit interval" if "graded" in subject.kinds else "binary"
    rewards = properties.samples(domain, n, num_rows=ORDINARY, seed=3)
    edges = torch.tensor([[0.0] * (n - 1) + [1.0], [0.0] * n, [1.0] * (n - 1) + [0.0], [1.0] * n], dtype=torch.float64)
    tiny = [] if domain == "binary" else [rewards[:4] * 1e-3, rewards[:4] * 1e-6]
    rewards = torch.cat([rewards, *tiny, edges])
    if subject.call.across_groups:
        rewards = rewards.view(-1, 4, n)  # batches of four: of two, a mean of the others is the other's
    side = {name: values for name, values in varied_side(rewards).items() if name in subject.side}
    return n, k, rewards, side, subject.call(rewards, k=k, **side).double()


def matches(name, subject, drawn, rows, tolerance):
    """The Matches of one registry estimator, with the first values of its options that fit."""
    estimator = get(name)
    varies = subject.takes_k and subject.depends_on_k
    asked = {"": None}
    if estimator.uses_k and not varies:  # a function without k may be the formula at a fixed one
        if subject.only_k:
            asked = {"": subject.only_k} if subject.only_k > 1 else {}
        else:
            asked = {" at k = N": 0, " at k = N - 1": -1, " at k = 2": 2, " at k = 3": 3}
    for words, fixed in asked.items():

        def k_of(n, k, fixed=fixed):
            return k if fixed is None else fixed if fixed > 0 else n + fixed

        for options in candidates(estimator):
            if options.get("token_weighted") and "lengths" not in subject.side:
                continue  # nothing of it can be seen
            scale = equal_scale(estimator, options, drawn, k_of, rows, tolerance)
            if scale:
                changed = sum(value != estimator.options[key] for key, value in options.items())
                unlike = (
                    estimator.rewards != "any"
                    and "negative" in subject.kinds
                    or estimator.rewards == "any"
                    and "negative" not in subject.kinds
                )
                rank = (scale != "1", bool(words), unlike, len(set(estimator.side) - set(subject.side)), changed, name)
                yield Match(name, options, scale, words, rank)
                break


def candidates(estimator):
    """Options to try, the defaults first, those of shipped forms next."""
    values = {}
    for option, default in estimator.options.items():
        more = (not default,) if isinstance(default, bool) else VALUES.get(option, ())
        values[option] = [default, *(value for value in more if value != default)]
    yield dict(estimator.options)
    yield from (options for _, _, name, options, _ in shipped_forms() if name == estimator.name)
    for combination in itertools.islice(itertools.product(*values.values()), 1, 300):
        yield dict(zip(values, combination, strict=True))


def equal_scale(estimator, options, drawn, k_of, rows, tolerance):
    """The factor, in words, between the drawn advantages and an estimator's; None when they are not proportional.

    Where the estimator has no value at k = N that k tells nothing; any other refusal is a difference.
    """
    fits = []
    for n, k, rewards, side, advantages in drawn:
        k = k_of(n, k)
        try:
            reference = estimator(rewards, k=k, **options, **{key: side[key] for key in estimator.side if key in side}).double()
        except InputError:
            if k == n and n not in estimator.valid_k(n):
                continue
            return None
        own, reference = advantages.flatten(0, -2)[rows], reference.flatten(0, -2)[rows]
        ordinary = own[:ORDINARY], reference[:ORDINARY]
        size = ordinary[1].square().sum().item()
        if size == 0:
            return None
        factor = (ordinary[0] * ordinary[1]).sum().item() / size
        wanted = factor * reference
        floor = 1e-6 * abs(factor) * rewards.flatten(0, -2)[rows].abs().amax(-1)  # rounding, where nothing is expected
        if abs(factor) < 1e-9 or ((own - wanted).abs().amax(-1) > tolerance * wanted.abs().amax(-1) + floor).any():
            return None
        fits.append(properties.Fit(n, k, factor, 0.0, 0.0))
    if {fit.n for fit in fits} != {case[0] for case in drawn}:
        return None
    scale = properties.name_scale(fits, tolerance)
    return None if scale == "varies" else scale


@functools.cache
def shipped_forms():
    """((trainer, its name there, estimator, every option, factor), ...): the table of what trainers ship."""
    found = []
    for row in shipped.rows():
        if row["formula"]:
            name, options = shipped.parse(row["formula"])
            found.append((row["trainer"], row["name"], name, {**get(name).options, **options}, FACTORS.get(row["note"], "1")))
    return tuple(found)


def shipped_as(match):
    """ "verl (grpo), SkyRL (grpo) and 3 more"; "" where nobody ships it."""
    own = [match.name, match.options, match.scale]
    places = [f"{trainer} ({there})" for trainer, there, *form in shipped_forms() if form == own and not match.fixed_k]
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more
