"""Every row of the registry against its definition, and every identity of the table, to 1e-12."""

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maxpo_bench.estimators import get

N = 6
GROUPS = {
    "graded": [[0.3, -1.2, 2.5, 0.7, 0.1, 1.9], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]],
    "tied": [[1.0, 0.5, 1.0, 0.5, 0.5, 2.0], [2.0, 2.0, 1.0, 1.0, 0.0, 0.0], [3.0] * 5 + [1.0]],
    "binary": [[0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]],
    "constant": [[0.7] * 6, [0.0] * 6, [1.0] * 6],
}
ALL = [row for rows in GROUPS.values() for row in rows]
NON_NEGATIVE = [row for row in ALL if min(row) >= 0]
UNIT = [row for row in NON_NEGATIVE if max(row) <= 1]
BINARY = GROUPS["binary"] + [[0.0] * 6, [1.0] * 6]
KS = range(1, N)


def close(found, wanted, tolerance=1e-12):
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance * max(1.0, wanted.abs().max().item()), (found, wanted)


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def by_definition(rows, k, formula):
    return [[float(a) for a in formula(row, k)] for row in rows]


def zscore(values, ddof=0):
    mean = sum(values) / len(values)
    std = math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - ddof))
    return [(x - mean) / std if std > 1e-12 else 0.0 for x in values]


def mean(row):
    return sum(row) / len(row)


def loo_mean(row, i):
    return mean(row[:i] + row[i + 1 :])


DEFINITIONS = {  # name: (rows, formula(row, k) -> advantages)
    "reinforce": (ALL, lambda row, k: row),
    "rloo": (ALL, lambda row, k: [r - loo_mean(row, i) for i, r in enumerate(row)]),
    "dr_grpo": (ALL, lambda row, k: [r - mean(row) for r in row]),
    "pkpo_raw": (ALL, lambda row, k: [k * q for q in oracles.include_one(row, k)]),
    "pkpo_loo": (
        ALL,
        lambda row, k: [
            k * q - len(row) * k / (len(row) - 1) * v
            for q, v in zip(oracles.include_one(row, k), oracles.leave_one_out(row, k), strict=True)
        ],
    ),
    "pkpo": (
        ALL,
        lambda row, k: [k * d for d in oracles.added(row, k)] if k > 1 else [r - loo_mean(row, i) for i, r in enumerate(row)],
    ),
    "maxpo": (ALL, oracles.leave_two_out),
    "pkpo_centred": (ALL, lambda row, k: [k * (d - mean(oracles.added(row, k))) for d in oracles.added(row, k)]),
    "bon_mean": (ALL, lambda row, k: zscore([float(q) for q in oracles.include_one(row, k)])),
    "passk_training": (
        BINARY,
        lambda row, k: [
            float(q - oracles.mean_max(row, k)) / math.sqrt(v * (1 - v)) if 0 < (v := float(oracles.mean_max(row, k))) < 1 else 0.0
            for q in oracles.include_one(row, k)
        ],
    ),
    "maxrl": (NON_NEGATIVE, lambda row, k: [(r - mean(row)) / mean(row) if mean(row) else 0.0 for r in row]),
    "tailrl": (
        ALL,
        lambda row, k: [
            sum(terms) for terms in zip(*[[a / j for a in oracles.maxpo(row, j)] for j in range(1, len(row))], strict=True)
        ],
    ),
    "rs_grpo": (ALL, lambda row, k: [(math.exp(2 * r) / mean([math.exp(2 * x) for x in row]) - 1) / 2 for r in row]),
    "passk_reweighted": (UNIT, lambda row, k: [k * (1 - mean(row)) ** (k - 1) * (r - mean(row)) for r in row]),
    "baseline_blend": (
        ALL,
        lambda row, k: [0.5 * a + 0.5 * k * d for a, d in zip(oracles.maxpo(row, k), oracles.added(row, k), strict=True)],
    ),
}


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_estimator_follows_its_definition(name, k):
    rows, formula = DEFINITIONS[name]
    close(get(name)(tensor(rows), k=k), by_definition(rows, k, formula))


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [0, 1e-6, 1e-4])
def test_grpo_follows_its_definition(ddof, eps):
    rows = GROUPS["graded"] + GROUPS["tied"] + GROUPS["binary"]
    std = tensor(rows).std(-1, correction=ddof, keepdim=True)
    wanted = (tensor(rows) - tensor(rows).mean(-1, keepdim=True)) / (std + eps)
    close(get("grpo")(tensor(rows), eps=eps, ddof=ddof), wanted)
    assert not get("grpo")(tensor(GROUPS["constant"]), eps=eps, ddof=ddof).any()


def test_best_gap_follows_its_definition():
    wanted = [[N * (max(row) - max(row[:i] + row[i + 1 :])) for i in range(N)] for row in ALL]
    close(get("best_gap")(tensor(ALL), k=N), wanted)


def test_best_gap_is_pkpo_at_k_equal_to_n():
    close(get("best_gap")(tensor(ALL), k=N), get("pkpo")(tensor(ALL), k=N))


@pytest.mark.parametrize("k", range(1, N + 1))
def test_pkpo_family_at_k_up_to_n(k):
    wanted = by_definition(ALL, k, lambda row, k: [k * q for q in oracles.include_one(row, k)])
    close(get("pkpo_raw")(tensor(ALL), k=k), wanted)


def test_the_two_oracles_agree():
    for row in ALL:
        for k in KS:
            assert oracles.leave_two_out(row, k) == oracles.maxpo(row, k) == oracles.maxpo_sorted(row, k)


# The identities of the registry's table.


def value(rows, k):
    return tensor([[float(oracles.mean_max(oracles.fractions(row), k))] for row in rows])


def test_rloo_is_maxpo_at_one():
    close(get("maxpo")(tensor(ALL), k=1), get("rloo")(tensor(ALL)))


def test_pkpo_at_one_is_rloo():
    close(get("pkpo")(tensor(ALL), k=1), get("rloo")(tensor(ALL)))


def test_dr_grpo_is_shrunk_rloo():
    close(get("dr_grpo")(tensor(ALL)), (1 - 1 / N) * get("rloo")(tensor(ALL)))


def test_grpo_is_dr_grpo_over_std():
    rows = tensor(GROUPS["graded"] + GROUPS["tied"] + GROUPS["binary"])
    close(get("grpo")(rows, eps=0), get("dr_grpo")(rows) / rows.std(-1, correction=0, keepdim=True))


@pytest.mark.parametrize("k", KS)
def test_q_minus_v_is_shrunk_maxpo(k):
    rows = tensor(ALL)
    close(get("pkpo_raw")(rows, k=k) / k - value(ALL, k), (1 - k / N) * get("maxpo")(rows, k=k) / k)


@pytest.mark.parametrize("k", KS)
def test_bon_mean_is_the_zscore_of_maxpo(k):
    close(get("bon_mean")(tensor(ALL), k=k), [zscore(row) for row in get("maxpo")(tensor(ALL), k=k).tolist()])


@pytest.mark.parametrize("k", KS)
def test_passk_training_is_maxpo_over_the_deviation_of_v(k):
    v = value(BINARY, k)
    deviation = (v * (1 - v)).sqrt()
    wanted = (1 - k / N) * get("maxpo")(tensor(BINARY), k=k) / k / torch.where(deviation > 0, deviation, 1.0)
    close(get("passk_training")(tensor(BINARY), k=k), wanted)


def test_maxrl_is_the_sum_of_maxpo_on_binary_rewards():
    wanted = sum(get("maxpo")(tensor(BINARY), k=k) / k for k in KS)
    close(get("maxrl")(tensor(BINARY)), wanted)
    close(get("tailrl")(tensor(BINARY)), get("maxrl")(tensor(BINARY)))


def test_tailrl_is_the_sum_of_maxpo_on_any_rewards():
    close(get("tailrl")(tensor(ALL)), sum(get("maxpo")(tensor(ALL), k=k) / k for k in KS))


@pytest.mark.parametrize("k", range(2, N))
def test_baseline_blend_at_its_ends(k):
    close(get("baseline_blend")(tensor(ALL), k=k, w=0), get("pkpo")(tensor(ALL), k=k))
    close(get("baseline_blend")(tensor(ALL), k=k, w=1), get("maxpo")(tensor(ALL), k=k))


@pytest.mark.parametrize("k", range(2, N))
def test_pkpo_is_positive_and_sums_to_the_growth_of_v(k):
    advantages = get("pkpo")(tensor(ALL), k=k)
    assert (advantages >= 0).all()
    close(advantages.sum(-1, keepdim=True), k * N * (value(ALL, k) - value(ALL, k - 1)))


@pytest.mark.parametrize("k", KS)
def test_pkpo_loo_sums_to_its_left_over(k):
    close(get("pkpo_loo")(tensor(ALL), k=k).sum(-1, keepdim=True), -k * N / (N - 1) * value(ALL, k))


@pytest.mark.parametrize("k", range(2, N))
def test_binary_rewards_put_the_bootstrap_blend_on_rloo_s_baseline(k):
    """w = (N-K)/(N-1) is A_i = K (1-h_i)(r_i - c/(N-1)), c successes among the others, h_i the chance they solve it."""
    rows = tensor(BINARY)
    others = rows.sum(-1, keepdim=True) - rows
    total = math.comb(N - 1, k - 1)
    miss = tensor([[math.comb(N - 1 - int(c), k - 1) / total for c in row] for row in others.tolist()])
    close(get("baseline_blend")(rows, k=k, w=(N - k) / (N - 1)), k * miss * (rows - others / (N - 1)))


def test_maxpo_at_n_minus_one_is_the_gap_of_the_two_best():
    row = [0.3, -1.2, 2.5, 0.7, 0.1, 1.9]
    close(get("maxpo")(tensor(row), k=N - 1), [-0.6, -0.6, 5 * 0.6, -0.6, -0.6, -0.6])


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("successes", range(N + 1))
def test_maxpo_is_silent_when_no_subset_can_fail_or_succeed(successes, k):
    advantages = get("maxpo")(tensor([1.0] * successes + [0.0] * (N - successes)), k=k)
    assert advantages.any().item() == (successes > 0 and N - successes >= k)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([-1.5, 0.0, 0.5, 1.0]) | st.floats(-8, 8, width=16), min_size=2, max_size=7), st.data())
def test_any_group_follows_the_leave_two_out_definition(row, data):
    k = data.draw(st.integers(1, len(row) - 1))
    close(get("maxpo")(tensor(row), k=k), [float(a) for a in oracles.leave_two_out(row, k)])
    if k > 1:
        close(get("pkpo")(tensor(row), k=k), [float(k * d) for d in oracles.added(row, k)])
