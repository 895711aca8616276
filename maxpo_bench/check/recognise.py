"""Which estimator of the registry a function equals, up to a factor that depends on (N, k) alone."""

from maxpo_bench.check import properties
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names

VARIANTS = {"grpo": ({}, {"ddof": 1})}  # option values that public code uses instead of the default


def recognise(subject):
    """Name, options and scale of the first registry estimator that `subject` equals, in words; None when none does."""
    cases = [(n, k) for n in subject.sizes for k in subject.valid[n]]
    wanted = [case for case in cases if case[1] > 1] or cases  # at k = 1 most of the registry is rloo
    drawn = {}
    for n, k in wanted:
        domain = "any" if "negative" in subject.kinds else "unit interval" if "graded" in subject.kinds else "binary"
        rewards = properties.samples(domain, n, num_rows=16, seed=3)
        rewards = rewards.view(-1, 2, n) if subject.call.across_groups else rewards
        drawn[n, k] = rewards, subject.call(rewards, k=k).double()
    found = []
    for name in names():
        for options in VARIANTS.get(name, ({},)):
            for at_n in (False, True):  # True: the registry's formula for k = N, whatever k the function was given
                scale = equal_scale(get(name), options, drawn, at_n)
                if scale:
                    found.append((scale != "1" or at_n, name, options, scale, at_n))
                    break
    if not found:
        return None
    _, name, options, scale, at_n = min(found, key=lambda match: (match[0], bool(match[2]), match[1]))
    given = "".join(f" with {key} = {value}" for key, value in options.items())
    return f"{name}{given}{' at k = N' if at_n else ''}{'' if scale == '1' else f', times {scale}'}"


def equal_scale(estimator, options, drawn, at_n):
    """The factor, in words, between the drawn advantages and an estimator's; None when they are not proportional."""
    fits = []
    for (n, k), (rewards, advantages) in drawn.items():
        try:
            reference = estimator(rewards, k=n if at_n else k, **options).double()
        except InputError:
            return None
        if at_n and not (estimator.uses_k and list(estimator.valid_k(n)) == [n]):
            return None
        size = reference.square().sum().item()
        if size == 0:
            return None
        factor = (advantages * reference).sum().item() / size
        gap = (advantages - factor * reference).abs().max().item()
        if abs(factor) < 1e-9 or gap > 2e-3 * abs(factor) * reference.abs().max().item():  # an eps of 1e-4 beside a std
            return None
        fits.append(properties.Fit(n, k, factor, 0.0, 0.0))
    return properties.name_scale(fits, 1e-3)
