"""The form of a function: which std it divides by, whether it is centred, how it scales, how its cost grows."""

import math
import time

import torch

from maxpo_bench.check.subject import rounded


def check_ddof(subject, report, objective):
    """For functions that standardise: whether the std divides by N (ddof 0) or N-1."""
    if "graded" not in subject.kinds:
        report.add("ddof", "note", "does not apply: binary rewards only")
        return
    n = subject.sizes[-1]
    group = torch.tensor([[0.1, 0.9, 0.3, 0.6, 0.8, 0.2, 0.7][:n]], dtype=torch.float64)
    k = subject.some_k(n)
    batch = subject.batches(group)
    full, half = subject.call(batch, k=k)[0].double(), subject.call(batch / 2, k=k)[0].double()
    moment, n = full.square().mean().item(), full.numel()  # of all groups that share the std
    if not moment or (full - half).abs().max() > 0.01 * full.abs().max() or abs(full.sum()) > 1e-4 * full.abs().sum():
        report.add("ddof", "note", "does not apply: advantages are not standardised")
    elif abs(moment - 1) < 0.01:
        report.add("ddof", "pass", "standardised with the std over N (ddof 0)")
    elif abs(moment - (n - 1) / n) < 0.01:
        report.add(
            "ddof",
            "fail",
            f"the std divides by N-1 (ddof 1): mean A^2 is {moment:.4g}, not 1",
            batch[0],
            full,
            full / moment**0.5,
        )
    else:
        report.add("ddof", "note", f"scale-invariant, but not a z-score: mean A^2 is {moment:.4g}")


def check_centring(subject, report, objective):
    """Whether the advantages of every group sum to zero; neither right nor wrong: a baseline free of own rewards need not."""
    size = subject.alone(subject.ladder(subject.some_size()), subject.some_k(subject.some_size())).double().abs().max()
    for n, k, groups in subject.small_groups():
        side = subject.varied(groups)
        advantages = subject.alone(groups, k, **side).double()
        sums = advantages.sum(-1)
        if sums.abs().max() > 1e-5 * size * n:
            row = (sums.abs() > 1e-5 * size * n).nonzero()[0, 0]
            given = [f"k = {k}"] * subject.takes_k + [f"{name} {rounded(values[row])}" for name, values in side.items()]
            report.add(
                "centring",
                "note",
                f"not centred: these advantages sum to {sums[row]:.4g}",
                groups[row],
                advantages[row],
                given=subject.given(n, *given),
            )
            return
    report.add("centring", "note", "centred: the advantages of a group sum to zero")


def check_form(subject, report, objective):
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.batches(subject.ladder(n))
    advantages = subject.call(groups, k=k).double()
    size = advantages.abs().max()
    if not size:
        report.add("form", "note", "always 0")
        return
    sign = "never negative" if advantages.min() >= 0 else "never positive" if advantages.max() <= 0 else "of both signs"
    scaling = ""
    if "graded" in subject.kinds:
        half = subject.call(groups / 2, k=k).double()
        if (2 * half - advantages).abs().max() < 1e-4 * size:
            scaling = "; scales with the rewards"
        elif (half - advantages).abs().max() < 0.01 * size:
            scaling = "; ignores the rewards' scale"
        else:
            scaling = "; neither scales with the rewards nor ignores their scale"
    report.add("form", "note", f"{sign}{scaling}")


def check_cost(subject, report, objective):
    """Growth of the time from N = 8 up at fixed total work, stopped early; then a large N, where binomials overflow."""
    times, total, domain = {}, 2048, "graded" if "graded" in subject.kinds else "binary"
    only_n = subject.only_n()

    def seconds(n):
        rewards = torch.rand(max(1, total // n), n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        rewards = (rewards < 0.3).double() if domain == "binary" else rewards
        if subject.call.across_groups:
            rewards = rewards.repeat(2, 1) if len(rewards) == 1 else rewards
        start = time.thread_time()
        advantages = subject.call(rewards, k=n if only_n else subject.only_k or min(4, n - 1))
        if not torch.isfinite(advantages).all():
            raise ValueError(f"advantages are not finite at N = {n}")
        return time.thread_time() - start

    for n in (8, 16, 32, 64, 128, 256, 512, 1024, 2048):
        growth = times[n // 2] / times[n // 4] if n // 4 in times else 2
        if n // 2 in times and times[n // 2] * max(growth, 1) > 0.5:
            break
        seconds(n) if n == 8 else None  # warm-up
        times[n] = min(seconds(n), seconds(n))
    last = max(times)
    first = max(min(32, last // 2), 8)
    slope = 1 + math.log(times[last] / times[first]) / math.log(last / first)
    each = times[last] * 1e6 / max(1, total // last)
    stopped = "; too slow for larger groups" if last < 2048 else ""
    report.add(
        "cost", "note", f"time grows like N^{max(slope, 0):.1f}, N = {first} to {last}; {each:.0f} µs per group of {last}{stopped}"
    )
    if last < 2048:
        return
    free = subject.takes_k and not subject.only_k
    for k in [2048] if only_n else [8, 1024] if free else [subject.only_k or 1]:
        group = (torch.arange(2048) % 3 == 0).double()[None]
        error = subject.error(group.repeat(1 + subject.call.across_groups, 1), k)
        if error:
            report.add("large groups", "fail", f"N = 2048, k = {k}: {error[:100]}", "1 0 0 1 0 0 ... (2048)")
            return
    report.add("large groups", "pass", "finite at N = 2048")
