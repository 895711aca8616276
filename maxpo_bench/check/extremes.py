"""Groups without spread or with hardly any: residue of rounding, and advantages that explode."""

import itertools
import math

import torch

from maxpo_bench.check.subject import rounded

BLOW_UP = 100  # an advantage beyond this, from rewards in [0, 1] and a group of at most 16, is out of proportion
SIZES = (3, 4, 5, 8, 16)


def check_constant_group(subject, report, objective):
    """Constant groups in float32, where a mean leaves a residue that a division by std + eps blows up."""
    values = [0.0, 1.0]  # exact in binary: an advantage here is none of rounding
    values += [0.1, 0.7, 1 / 3] if "graded" in subject.kinds else []
    values += [100.1] if "negative" in subject.kinds else []
    n = subject.some_size()
    mixed = subject.alone(subject.ladder(n), subject.some_k(n)).double()
    ordinary = mixed.abs().max().item()
    first = None
    for size in filter(subject.runs, (2, 3, 4, 5, 6, 7, 10, 16)):
        k = subject.some_k(size)
        for value, dtype in itertools.product(values, (torch.float32, torch.float64)):
            group = torch.full((1, size), value, dtype=dtype)
            if first is not None:
                break
            advantages = subject.alone(group, k)[0].double()
            residue = advantages.abs().max().item()
            if not residue <= 64 * torch.finfo(torch.float32).eps * abs(value) * k + 1e-6 * ordinary:
                first = group[0].double(), advantages, residue, str(dtype)[6:], value
    if first is None:
        report.add("constant group", "pass", "zero advantages, rounding aside")
        return
    group, advantages, residue, dtype, value = first
    given = subject.given(len(group), dtype)
    if not math.isfinite(residue) or value not in (0.0, 1.0):
        text = f"leaves a residue of {residue:.2g} in {dtype}: rounding is divided by a std or an eps"
        text = f"advantages of {residue}: 0 is divided by 0" if not math.isfinite(residue) else text
        report.add("constant group", "fail", text, rounded(group), advantages, torch.zeros_like(advantages), given)
        return
    n = subject.sizes[-1]  # of a size at which k leaves room for a baseline
    ones, k = torch.ones(1, n, dtype=torch.float64), subject.some_k(n)
    advantages_of_ones, most = subject.alone(ones, k)[0].double(), k if report.objective == "J_K" else 1
    right = report["unbiased"].status == "pass" and report.objective in ("J_1", "J_K")
    if right and advantages_of_ones.max() > 1.001 * most:  # without any baseline: k x the reward
        text = (
            f"advantage {advantages_of_ones.max():.3g} for reward 1, where no baseline leaves {most}: one is added, not taken off"
        )
        given = subject.given(n, f"k = {k}" * subject.takes_k)
        report.add("constant group", "fail", text, ones[0], advantages_of_ones, torch.zeros(n), given)
        return
    text = f"advantage {residue:.3g} for reward {value:.3g}: not centred"
    report.add("constant group", "note", text, group, advantages, given=given if subject.call.across_groups else "")


def near_flat(subject):
    """Groups [1, N] in [0, 1] with hardly any spread, the smallest first, then the largest difference: one sample that differs a
    little; one that differs a little and one a lot; all but one alike."""
    graded = "graded" in subject.kinds
    for n in filter(subject.runs, SIZES):
        if not graded:
            yield from (torch.tensor([[low] * (n - 1) + [high]], dtype=torch.float64) for low, high in ((0.0, 1.0), (1.0, 0.0)))
            continue
        for step in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
            for odd in ([0.5 + step], [0.5 - step], [0.5 + step, 1.0], [0.5 + step, 0.0], [0.5 - step, 1.0]):
                yield torch.tensor([[0.5] * (n - len(odd)) + odd], dtype=torch.float64)
        for low, high in ((0.0, 1.0), (1.0, 0.0)):
            yield torch.tensor([[low] * (n - 1) + [high]], dtype=torch.float64)


def check_blow_up(subject, report, objective):
    """Advantages beyond 100 on rewards in [0, 1]."""
    largest = 0.0
    for group in near_flat(subject):
        k = subject.some_k(group.shape[-1])
        advantages = subject.alone(group, k)[0].double()
        size = advantages.abs().max().item()
        if not size <= BLOW_UP:
            report.add(
                "blow-up",
                "fail",
                f"an advantage of {size:.3g} on rewards in [0, 1]: a group with hardly any spread is divided by that spread",
                [round(x, 7) for x in group[0].tolist()],
                advantages,
                given=subject.given(group.shape[-1], f"k = {k}" if subject.takes_k else ""),
            )
            return
        largest = max(largest, size)
    report.add("blow-up", "pass", f"no advantage beyond {largest:.2g} on groups with hardly any spread, rewards in [0, 1]")


def check_float32_residue(subject, report, objective):
    """All but one alike, as 7 against 1: the std of the alike ones is rounding in float32, and not in float64.

    A function that is in float32 inside is found by the reward next to it that binary holds exactly.
    """
    if "graded" not in subject.kinds:
        report.add("float32 residue", "note", "does not apply: binary rewards only")
        return
    for n, value, other in itertools.product(filter(subject.runs, SIZES), (0.35, 0.1, 0.7, 1 / 3, 0.6), (0.0, 1.0)):
        group = torch.tensor([[value] * (n - 1) + [other]], dtype=torch.float32)
        k, near = subject.some_k(n), math.floor(32 * value) / 32
        single, double = subject.alone(group, k)[0].double(), subject.alone(group.double(), k)[0].double()
        if not (single - double).abs().max() <= 1e-3 * (1 + double.abs().max()):
            sizes = f"{single.abs().max():.3g} in float32, {double.abs().max():.3g} in float64"
            report.add(
                "float32 residue",
                "fail",
                f"all but one alike: {sizes}: rounding is taken for spread",
                rounded(group[0]),
                single,
                double,
                subject.given(n, "float32"),
            )
            return
        exact = subject.alone(torch.where(group == other, group.double(), near), k)[0].double()
        if not (double - exact).abs().max() <= 0.5 * (1 + exact.abs().max()):
            report.add(
                "float32 residue",
                "fail",
                f"all but one alike: {double.abs().max():.3g}, and {exact.abs().max():.3g} where they are {near:g}, which binary "
                "holds exactly: rounding is taken for spread",
                rounded(group[0]),
                double,
                exact,
                subject.given(n),
            )
            return
    report.add("float32 residue", "pass", "all but one alike (as 7 against 1): float32 gives what float64 gives")
