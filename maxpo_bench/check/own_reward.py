"""Does a sample's own reward sit in its scale or its baseline? Either moves E[g] off the gradient.

With the others fixed and the own reward moved between two of them, the advantage of any unbiased estimator follows a
straight line: a set's best is linear there, and scale and baseline stand still.
"""

import torch

from maxpo_bench.check import properties
from maxpo_bench.check.subject import rounded

POINTS = (0.6, 0.65, 0.75, 0.85, 0.95)  # own rewards, above all others; mirrored, 1 - x, below all others
FACTORS = {  # what is left of the own reward's effect when a mean that holds it is taken off: at N, K and G groups of a batch
    "1 - 1/N": lambda n, k, g: 1 - 1 / n, "1 - K/N": lambda n, k, g: 1 - k / n, "1 - 1/(GN)": lambda n, k, g: 1 - 1 / (g * n),
    "1 - 1/G": lambda n, k, g: 1 - 1 / g if g > 1 else float("nan"),
}  # fmt: skip
WHOSE = {
    "1 - 1/(GN)": "the batch's, which includes its own group",
    "1 - 1/G": "a mean over the G groups of a batch, its own included",
}


def others(n):
    """What the N-1 others may have, below every point: [3, N-1] float64."""
    return torch.tensor([[0.0] * (n - 2) + [0.5], [0.0] + [0.5] * (n - 2), [0.25] * (n - 2) + [0.5]], dtype=torch.float64)


def moved(subject, n, k, below):
    """(own rewards [T], groups [O, T, N] with the own reward first, its advantages [O, T])."""
    own, rest = torch.tensor(POINTS, dtype=torch.float64), others(n)
    groups = torch.cat([own[None, :, None].expand(len(rest), -1, 1), rest[:, None].expand(-1, len(own), -1)], dim=-1)
    if below:
        own, groups = 1 - own, 1 - groups
    return own, groups, subject.alone(groups.flatten(0, 1), k).double()[:, 0].view(groups.shape[:2])


def check_own_reward(subject, report, objective):
    if "graded" not in subject.kinds:
        report.add("own reward", "note", "not tested: binary rewards only")
        return
    status = "note" if objective == "none" else "fail"
    slopes, factors = [], None
    for n in subject.sizes:
        k = subject.some_k(n)
        own, groups, advantages = moved(subject, n, k, False)
        if (advantages - advantages[:, :1]).abs().max() <= 1e-6 * advantages.abs().max():  # moves nothing up there
            first = advantages
            own, groups, advantages = moved(subject, n, k, True)
            if not advantages.any() and not first.any():
                report.add("own reward", "note", "does not apply: no advantage but 0")
                return
        share = (own - own[0]) / (own[-1] - own[0])
        line = advantages[:, :1] + share * (advantages[:, -1:] - advantages[:, :1])
        gap = (advantages - line).abs()
        limit = 1e-5 * advantages.abs().max()
        if gap.max() > limit:
            if alike(advantages):
                report.add("own reward", "pass", "enters through a function of its own, the same whatever the others have")
                return
            row, column = divmod(int(gap.argmax()), len(own))
            report.add(
                "own reward",
                status,
                "inside its own scale: with the others fixed, the advantage is no straight line of it",
                groups[row, column],
                advantages[row, column : column + 1],
                line[row, column : column + 1],
                f"the first sample's; it has {rounded(advantages[row, [0, -1]])} with rewards {rounded(own[[0, -1]])}"
                + f", k = {k}" * subject.takes_k
                + subject.given(n).replace("beside", ", beside"),
            )
            return
        slope = (advantages[:, -1] - advantages[:, 0]) / (own[-1] - own[0])
        slopes.append((slope.min().item(), slope.max().item()))
        wanted = k if subject.takes_k and subject.depends_on_k or subject.only_k else 1
        found = {name for name, factor in FACTORS.items() if (slope / wanted - factor(n, k, subject.num_groups)).abs().max() < 1e-4}
        if factors is not None:
            factors &= found
            continue
        factors = found
        example = groups[0, -1], advantages[0, -1:], advantages[0, :1] + wanted * (own[-1] - own[0])
        given = f"the first sample's; it has {advantages[0, 0]:.6g} with reward {own[0]:.6g}"
        given = subject.given(n, given, f"k = {k}" * subject.takes_k)
    if factors:
        share = next(name for name in FACTORS if name in factors)
        whose = WHOSE.get(share, "the group's")
        report.add(
            "own reward",
            status,
            f"inside its own baseline ({whose}): with the others fixed, the advantage moves by {share} of what it should",
            *example,
            given,
        )
        return
    low, high = (value + 0.0 for value in slopes[-1])  # no -0
    span = f"{low:.4g}" if high - low <= 1e-5 * abs(high) else f"{low:.4g} to {high:.4g}, by the others' rewards,"
    domain = "any" if "negative" in subject.kinds else "unit interval"
    across = subject.call.across_groups
    if properties.own_sample(subject.call, domain, n, subject.valid[n], across, side=(), tolerance=1e-4) == "yes":
        text = f"by {span} at N = {n} where it is the best or the worst, and elsewhere along no objective known here: it enters a "
        text = (
            text + "scale or baseline in steps, as in a median, a rank or a count"
            if high or low
            else "in steps alone, as a rank does"
        )
        report.add("own reward", "note", f"the advantage moves with it {text}")
    elif max(high for _, high in slopes) - min(low for low, _ in slopes) < 1e-5 and abs(low - wanted) < 1e-5:
        text = "in neither scale nor baseline: the advantage moves with it one to one" + " times k" * (wanted > 1)
        report.add("own reward", "pass", text)
    else:
        report.add("own reward", "pass", f"not in its own scale; the advantage moves with it by {span.rstrip(',')} at N = {n}")


def alike(advantages):
    """Whether the own reward moves the advantage in the same proportions whatever the others: a transformed reward."""
    steps = advantages - advantages[:, :1]
    if steps[:, -1].abs().min() < 1e-9:
        return False
    shares = steps / steps[:, -1:]
    return bool((shares - shares[:1]).abs().max() < 1e-6)
