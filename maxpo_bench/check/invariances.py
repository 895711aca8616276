"""Checks that need no expectation: tokens, side information, other groups, ties, order, number types, offsets."""

import math

import torch

from maxpo_bench.check.subject import rounded, varied_side


def smallest(report, name, subject, cases, text, passed, tolerance=1e-5):
    """Adds "fail" with the first small group that shows it, else "pass".

    cases(groups [G, N], k) yields (rewards shown [G, N], got, expected, words): it fails where got is not expected.
    """
    for _, k, groups in subject.small_groups():
        for shown, got, expected, words in cases(groups, k):
            got, expected = got.double(), expected.double()
            limit = tolerance * expected.nan_to_num().abs().amax().clamp_min(1e-6)
            bad = ~((got - expected).abs() <= limit).logical_or(got.isnan() & expected.isnan()).all(-1)
            if bad.any():
                row = bad.nonzero()[0, 0]
                given = subject.given(groups.shape[-1], *[f"k = {k}"] * subject.takes_k, words(row) if words else "")
                report.add(name, "fail", text, shown[row], got[row], expected[row], given)
                return
    report.add(name, "pass", passed)


def check_tokens(subject, report, objective):
    """In verl's shape: nothing behind a response's end, and whether its tokens share one advantage."""
    if subject.call.convention != "verl":
        return
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n)[1:9:3]
    lengths = varied_side(groups)["lengths"]
    tokens = subject.call.verl_batch(groups, k, lengths)
    inside = torch.arange(tokens.shape[-1]) < lengths.flatten()[:, None]
    behind = ((tokens != 0) & ~inside).any(-1)
    own = torch.where(inside, tokens, tokens[:, :1])
    uneven = (own - tokens[:, :1]).abs().amax(-1) > 1e-6 * (1 + tokens.abs().amax())
    if behind.any():
        row = behind.nonzero()[0, 0]
        report.add(
            "mask",
            "fail",
            "advantages behind a response's end",
            [groups.flatten()[row].item()],
            tokens[row],
            torch.where(inside, tokens, 0.0)[row],
            f"length {int(lengths.flatten()[row])}, all its tokens",
        )
    if uneven.any():
        subject.call.side = tuple(name for name in subject.call.side if name != "lengths")
        report.add("tokens", "note", "the tokens of a response get different advantages: checked with responses of one token")
    if not behind.any() and not uneven.any():
        report.add("tokens", "pass", "one advantage for all tokens of a response, 0 behind its end")


def check_pure(subject, report, objective):
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    rewards = subject.ladder(n)
    before = rewards.clone()
    first = subject.call(rewards, k=k).clone()
    changed = (rewards != before).any(1)
    if changed.any():
        row = changed.nonzero()[0, 0]
        report.add("pure", "fail", "changes the rewards it is given", before[row], given=f"afterwards {rewards[row].tolist()}")
        subject.call.changes_rewards = True
        return
    again = subject.call(rewards, k=k)
    differs = ~torch.isclose(again, first, rtol=0, atol=0, equal_nan=True).all(1)
    if differs.any():
        row = differs.long().argmax()
        report.add("pure", "fail", "gives other advantages on a second call", before[row], again[row], first[row])
        report.add("the rest", "note", "not checked: of a function that draws, or remembers, one call tells nothing")
        report.stopped = True
    else:
        report.add("pure", "pass", "same advantages on a second call, rewards untouched")


def check_side_information(subject, report, objective):
    """Which of the side information that it can be given changes the advantages; it then follows the samples everywhere."""
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n)
    for name in subject.call.side:
        values, word = varied_side(groups)[name], name.replace("_", " ")
        if same(subject.call(groups, k=k), subject.call(groups, k=k, **{name: values})).all():
            report.add(word, "note", f"the {word} of the samples play no role")
            continue
        subject.side += (name,)
        report.add(word, "note", f"the advantages depend on the {word} of the samples")
        for row in range(len(groups)):  # by itself: what other groups do to it is another finding
            base = subject.call(groups[[row]], k=k)[0]
            other = subject.call(groups[[row]], k=k, **{name: values[[row]]})[0]
            if not same(base, other):
                finding = report[word]
                finding.counter_example, finding.got = groups[row].tolist(), rounded(other)
                finding.given = f"{word} {rounded(values[row])}; all alike: {rounded(base)}"
                break


def same(a, b):
    """Whether advantages [..., N] are the same, group by group."""
    return torch.isclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=True).all(-1)


def check_groups(subject, report, objective):
    """Whether a group's advantages depend on the other groups of the batch; in verl's shape, whether index counts."""
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n)[[0, 1, 4]]  # one without spread: some functions count those
    side = subject.varied(groups)
    together = subject.call(groups, k=k, **side)
    own = [{name: values[[row]] for name, values in side.items()} for row in range(len(groups))]
    alone = torch.cat([subject.call(groups[[row]], k=k, **own[row]) for row in range(len(groups))])
    if torch.allclose(together, alone, rtol=1e-5, atol=1e-8, equal_nan=True):
        report.add("groups", "pass", "a group's advantages depend on that group alone")
    else:
        subject.look_across()
        report.add(
            "groups",
            "note",
            "a group's advantages depend on the other groups of its batch",
            groups,
            together,
            given=f"each group alone: {rounded(alone)}",
        )
    if subject.call.convention == "verl":
        order = torch.arange(groups.numel()).view(groups.shape).flip(0).T.flatten()  # interleaved, each group in its own order
        mixed = subject.call.verl_batch(groups, k, **side, order=order)[:, 0].view(groups.shape)
        if torch.allclose(mixed, together, rtol=1e-5, atol=1e-8, equal_nan=True):
            report.add("index", "pass", "groups follow `index` in any order of rows")
        else:
            report.add(
                "index",
                "fail",
                "ignores `index`: interleaved rows change the advantages",
                groups,
                mixed,
                together,
                f"rows in the order {order.tolist()}",
            )


def check_ties(subject, report, objective):
    def cases(groups, k):
        advantages = subject.alone(groups, k).double()
        tied = (groups.unsqueeze(-1) == groups.unsqueeze(-2)).double()  # [G, N, N]
        yield groups, advantages, (tied @ advantages.unsqueeze(-1))[..., 0] / tied.sum(-1), None

    smallest(report, "ties", subject, cases, "tied rewards get different advantages", "tied rewards get equal advantages")


def check_permutation(subject, report, objective):
    """In another order, each sample with its side information, the samples keep their advantages."""

    def cases(groups, k):
        n, side = groups.shape[-1], subject.varied(groups)
        advantages = subject.alone(groups, k, **side)
        for order in (torch.arange(n).flip(0), torch.arange(n).roll(1)):
            moved = {name: values[:, order] for name, values in side.items()}
            got = subject.alone(groups[:, order], k, **moved)

            def words(row, moved=moved):
                lengths = "".join(f"{name} {values[row].tolist()}, " for name, values in moved.items())
                return f"{lengths}in the order {groups[row].tolist()} the advantages are {rounded(advantages[row])}"

            yield groups[:, order], got, advantages[:, order], words

    smallest(
        report,
        "permutation",
        subject,
        cases,
        "the order of the samples changes their advantages",
        "advantages follow their samples in any order",
    )


def check_integers(subject, report, objective):
    n = subject.some_size()
    if 0.5 in subject.values:
        report.add("integers", "note", "not tested: rewards above 1 are refused")
        return
    error = subject.error(subject.ladder(n).long(), subject.some_k(n))
    if error and "raised" in error:
        report.add("integers", "note", f"refuses integer rewards: {error[:120]}")
        return
    smallest(
        report,
        "integers",
        subject,
        lambda groups, k: [(groups.long(), subject.alone(groups.long(), k), subject.alone(groups, k), None)],
        "integer rewards are truncated: other advantages than for floats",
        "integer rewards give the advantages of floats",
    )


def check_float32(subject, report, objective):
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n)
    single, double = subject.alone(groups.float(), k).double(), subject.alone(groups, k).double()
    gap = (single - double).abs().amax(-1)
    if gap.max() > 1e-3 * double.abs().max():
        row = gap.argmax()
        report.add(
            "float32",
            "fail",
            f"float32 and float64 rewards differ by {gap.max():.2g}",
            groups[row],
            single[row],
            double[row],
            subject.given(n, "float32"),
        )
    else:
        report.add("float32", "pass", "float32 rewards give the advantages of float64")


def check_offset(subject, report, objective):
    if "negative" not in subject.kinds:
        report.add("offset", "note", "not tested: does not take every reward")
        return
    n, k = subject.some_size(), subject.some_k(subject.some_size())
    groups = subject.ladder(n) * 0.7  # not exact in binary beside the offset
    batches = subject.batches(groups)
    base = subject.own(subject.call(batches, k=k)).double()
    size = base.abs().max()
    moved = subject.own(subject.call(batches + 1, k=k)).double()
    gap = (moved - base).abs().amax(-1)
    beside = "; another group beside it, moved as well" if subject.call.across_groups else ""
    if gap.max() > 1e-3 * size:
        row = (gap > 1e-3 * size).nonzero()[0, 0]
        report.add(
            "offset",
            "note",
            "a reward added to all changes the advantages: not shift-invariant",
            groups[row] + 1,
            moved[row],
            given=f"without the 1: {rounded(base[row])}{beside}",
        )
        return
    for dtype, offset, tolerance in ((torch.float64, 1e6, 1e-5), (torch.float32, 1e3, 1e-2)):
        moved = subject.own(subject.call((batches + offset).to(dtype), k=k)).double()
        gap = (moved - base).abs().amax(-1).nan_to_num(nan=math.inf)
        if gap.max() > tolerance * size:
            row = gap.argmax()
            report.add(
                "offset",
                "fail",
                f"loses its digits under an offset of {offset:,.0f} in {str(dtype)[6:]}: off by {gap.max():.2g}",
                groups[row] + offset,
                moved[row],
                base[row],
                str(dtype)[6:] + beside,
            )
            return
    report.add("offset", "pass", "shift-invariant, also by 1,000,000 in float64 and 1000 in float32")
