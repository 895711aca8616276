"""Checks that need no expectation: ties, order, constant groups, number types, offsets, standardisation, form, cost."""

import itertools
import math
import time

import torch


def smallest(report, name, subject, wrong, text, passed):
    """Adds "fail" with the first small group for which wrong(groups, k) -> [B] bool is true, else "pass"."""
    for _, k, groups in subject.small_groups():
        bad = wrong(groups, k)
        if bad.any():
            row = groups[bad.nonzero()[0, 0]]
            given = f"k = {k}: " if subject.takes_k else ""
            shown = [round(a, 6) for a in subject.call(row[None], k=k)[0].tolist()]
            report.add(name, "fail", f"{text}; {given}advantages {shown}", row.tolist())
            return
    report.add(name, "pass", passed)


def check_pure(subject, report, objective):
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    rewards = subject.ladder(n)
    before = rewards.clone()
    first = subject.call(rewards, k=k).clone()
    if not torch.equal(rewards, before):
        report.add("pure", "fail", "changes the rewards it is given", before[(rewards != before).any(1)][0].tolist())
    elif not torch.equal(first, subject.call(rewards, k=k)):
        report.add("pure", "fail", "gives other advantages on a second call")
    else:
        report.add("pure", "pass", "same advantages on a second call, rewards untouched")


def check_groups(subject, report, objective):
    """Whether a group's advantages depend on the other groups of the batch; in verl's shape, whether index counts."""
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n)[1:9:3]
    together = subject.call(groups, k=k)
    alone = torch.cat([subject.call(group[None], k=k) for group in groups])
    if not torch.allclose(together, alone, rtol=1e-5, atol=1e-8):
        subject.call.across_groups, subject.num_groups = True, 2
        subject.sizes = [3] if subject.valid[3] else subject.sizes[:1]  # two groups at once: 3^6 batches
        name = "graded" if "graded" in subject.kinds else "binary"
        subject.bandits = {name: subject.kinds[name]}
        report.add("groups", "note", "a group's advantages depend on the other groups of its batch")
    else:
        report.add("groups", "pass", "a group's advantages depend on that group alone")
    if subject.call.convention == "verl":
        order = torch.randperm(groups.numel(), generator=torch.Generator().manual_seed(0))
        options = {subject.call.k_name: k} if subject.takes_k else {}
        mixed = subject.call.verl_batch(groups, options, order).view(groups.shape)
        same = torch.allclose(mixed, together, rtol=1e-5, atol=1e-8)
        report.add("index", "pass" if same else "fail", "groups follow `index` in any order of rows" if same else
                   "ignores `index`: shuffled rows change the advantages", None if same else groups.tolist())


def check_ties(subject, report, objective):
    def wrong(groups, k):
        advantages = subject.call(groups, k=k).double()
        tied = groups.unsqueeze(-1) == groups.unsqueeze(-2)
        gap = (advantages.unsqueeze(-1) - advantages.unsqueeze(-2)).abs() * tied
        return gap.amax((-1, -2)) > 1e-5 * advantages.abs().amax().clamp_min(1e-6)
    smallest(report, "ties", subject, wrong, "tied rewards get different advantages",
             "tied rewards get equal advantages")


def check_permutation(subject, report, objective):
    def wrong(groups, k):
        advantages = subject.call(groups, k=k).double()
        bad = torch.zeros(len(groups), dtype=torch.bool)
        for order in (torch.arange(groups.shape[-1]).flip(0), torch.arange(groups.shape[-1]).roll(1)):
            gap = (subject.call(groups[:, order], k=k).double() - advantages[:, order]).abs().amax(-1)
            bad |= gap > 1e-5 * advantages.abs().amax().clamp_min(1e-6)
        return bad
    smallest(report, "permutation", subject, wrong, "the order of the samples changes their advantages",
             "advantages follow their samples in any order")


def check_constant_group(subject, report, objective):
    """Constant groups in float32, where a mean leaves a residue that a division by std + eps blows up."""
    values = [0.0, 1.0]
    values += [0.1, 0.7, 1 / 3] if "graded" in subject.kinds else []
    values += [100.1] if "negative" in subject.kinds else []
    n = subject.some_size()
    mixed = subject.call(subject.ladder(n), k=subject.some_k(n)).double()
    centred = mixed.sum(-1).abs().max() < 1e-5 * mixed.abs().max()
    first = None
    for size in (2, 3, 4, 5, 6, 7, 10, 16):
        k = subject.some_k(size) if size in subject.valid else (size if subject.only_n() else 2)
        for value, dtype in itertools.product(values, (torch.float32, torch.float64)):
            group = torch.full((1, size), value, dtype=dtype)
            if not subject.valid.get(size, [k]) or size not in subject.valid and subject.error(group, k):
                continue
            residue = subject.call(group, k=k).abs().max().item()
            if not residue <= 64 * torch.finfo(torch.float32).eps * abs(value) * k and first is None:
                first = ([value] * size, residue, dtype)
    if first is None:
        report.add("constant group", "pass", "zero advantages, rounding aside")
    elif centred:
        report.add("constant group", "fail", f"leaves a residue of {first[1]:.2g} in {str(first[2])[6:]}: rounding is "
                   "divided by a std or an eps", first[0])
    else:
        report.add("constant group", "note", f"advantage {first[1]:.3g} for reward {first[0][0]:.3g}: not centred")


def check_integers(subject, report, objective):
    n = subject.some_size()
    if 0.5 in subject.values:
        report.add("integers", "note", "not tested: rewards above 1 are refused")
        return
    error = subject.error(subject.ladder(n).long(), subject.some_k(n))
    if error and "raised" in error:
        report.add("integers", "note", f"refuses integer rewards: {error[:120]}")
        return

    def wrong(groups, k):
        floats = subject.call(groups, k=k).double()
        return ((subject.call(groups.long(), k=k).double() - floats).abs() > 1e-5 * (1 + floats.abs())).any(-1)
    smallest(report, "integers", subject, wrong, "integer rewards are truncated: other advantages than for floats",
             "integer rewards give the advantages of floats")


def check_float32(subject, report, objective):
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n)
    single, double = subject.call(groups.float(), k=k), subject.call(groups, k=k).double()
    gap = (single.double() - double).abs().amax(-1)
    bad = gap > 1e-3 * double.abs().max()
    if not single.is_floating_point():
        report.add("float32", "fail", f"returns {single.dtype} for float32 rewards")
    elif bad.any():
        report.add("float32", "fail", f"float32 and float64 rewards differ by {gap.max():.2g}", groups[bad][0].tolist())
    else:
        report.add("float32", "pass", "float32 rewards give the advantages of float64")


def check_offset(subject, report, objective):
    if "negative" not in subject.kinds:
        report.add("offset", "note", "not tested: does not take every reward")
        return
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n) * 0.7  # not exact in binary beside the offset
    base = subject.call(groups, k=k).double()
    size = base.abs().max()
    if (subject.call(groups + 1, k=k).double() - base).abs().max() > 1e-3 * size:
        report.add("offset", "note", "a reward added to all changes the advantages: not shift-invariant")
        return
    for dtype, offset, tolerance in ((torch.float64, 1e6, 1e-5), (torch.float32, 1e3, 1e-2)):
        gap = (subject.call((groups + offset).to(dtype), k=k).double() - base).abs().amax(-1).nan_to_num(nan=math.inf)
        if gap.max() > tolerance * size:
            report.add("offset", "fail", f"loses its digits under an offset of {offset:,.0f} in {str(dtype)[6:]}: "
                       f"off by {gap.max():.2g}", (groups[gap.argmax()] + offset).tolist())
            return
    report.add("offset", "pass", "shift-invariant, also by 1,000,000 in float64 and 1000 in float32")


def check_ddof(subject, report, objective):
    """For functions that standardise: whether the std divides by N (ddof 0) or N-1."""
    if "graded" not in subject.kinds:
        report.add("ddof", "note", "does not apply: binary rewards only")
        return
    n = subject.sizes[-1]
    group = torch.tensor([[0.1, 0.9, 0.3, 0.6, 0.8, 0.2, 0.7][:n]], dtype=torch.float64)
    k = subject.some_k(n)
    full, half = subject.call(group, k=k).double(), subject.call(group / 2, k=k).double()
    moment = full.square().mean().item()
    if (full - half).abs().max() > 0.01 * full.abs().max() or abs(full.sum()) > 1e-4 * full.abs().sum():
        report.add("ddof", "note", "does not apply: advantages are not standardised")
    elif abs(moment - 1) < 0.01:
        report.add("ddof", "pass", "standardised with the std over N (ddof 0)")
    elif abs(moment - (n - 1) / n) < 0.01:
        report.add("ddof", "fail", f"the std divides by N-1 (ddof 1): mean A^2 is {moment:.4g}, not 1",
                   group[0].tolist())
    else:
        report.add("ddof", "note", f"scale-invariant, but not a z-score: mean A^2 is {moment:.4g}")


def check_form(subject, report, objective):
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n)
    advantages = subject.call(groups, k=k).double()
    size = advantages.abs().max()
    centred = advantages.sum(-1).abs().max() < 1e-5 * size
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
    report.add("form", "note", f"{'centred' if centred else 'not centred'}, {sign}{scaling}")


def check_cost(subject, report, objective):
    """Growth of the time from N = 8 up at fixed total work, stopped early; then a large N, where binomials overflow."""
    times, total, domain = {}, 2048, "graded" if "graded" in subject.kinds else "binary"
    only_n = subject.only_n()

    def seconds(n):
        rewards = torch.rand(max(1, total // n), n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        rewards = (rewards < 0.3).double() if domain == "binary" else rewards
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
    report.add("cost", "note", f"time grows like N^{max(slope, 0):.1f}, N = {first} to {last}; {each:.0f} µs per group "
               f"of {last}{stopped}")
    if last < 2048:
        return
    free = subject.takes_k and not subject.only_k
    for k in [2048] if only_n else [8, 1024] if free else [subject.only_k or 1]:
        error = subject.error((torch.arange(2048) % 3 == 0).double()[None], k)
        if error:
            report.add("large groups", "fail", f"N = 2048, k = {k}: {error[:100]}", "1 0 0 1 0 0 ... (2048)")
            return
    report.add("large groups", "pass", "finite at N = 2048")


CHECKS = (check_ties, check_permutation, check_constant_group, check_integers, check_float32, check_offset, check_ddof,
          check_form, check_cost)
