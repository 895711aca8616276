"""The estimators of trainers and of other papers, against their definitions in plain Python, and their identities to 1e-12."""

import itertools
import math
import statistics
from fractions import Fraction
from math import comb

import oracles
import pytest
import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get
from maxpo_bench.estimators.order_statistic import weights_of

N = 5
GRADED = [[0.3, -1.2, 2.5, 0.7, 0.1], [5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 0.5, 1.0, 0.5, 0.5], [2.0, 2.0, 1.0, 1.0, 0.0]]
BINARY = [[float(x) for x in row] for row in itertools.product((0, 1), repeat=N)]
UNIT = [[0.0, 0.25, 1.0, 0.5, 0.125], [1.0, 0.5, 1.0, 0.5, 0.5], *BINARY]
FLAT = [[0.35] * N, [-7.7] * N]
ALL = GRADED + BINARY + FLAT
LENGTHS = [3, 1, 2, 7, 1]
KS = range(1, N)


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(found, wanted, tolerance=1e-12):
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    assert found.shape == wanted.shape
    assert ((found - wanted).abs() <= tolerance * wanted.abs().clamp(min=1)).all(), (found - wanted).abs().max()


def mean(values):
    return sum(values) / len(values)


def exactly(row):
    return [Fraction(x) for x in row]


def std(row, ddof=0):
    """Of exact fractions: 0 is 0."""
    m = mean(exactly(row))
    return math.sqrt(sum((x - m) ** 2 for x in exactly(row)) / (len(row) - ddof))


def others(row, i):
    return row[:i] + row[i + 1 :]


def weighted(row, weights):
    return float(sum(w * x for w, x in zip(weights, exactly(row), strict=True)) / sum(weights))


def loo_std(row):
    found = []
    for i, r in enumerate(row):
        s = std(others(row, i), 1)
        found.append(float(Fraction(r) - mean(exactly(others(row, i)))) / (s + 1e-6 if s > 0 else 1))
    return found


def passk_gap(row, k):
    first, second = sorted(row)[:-3:-1]
    return [(first - second) / (std(row, 1) + 1e-6) if r == first else 0.0 for r in row]


def entropic(row, k):
    e = [math.exp(2 * r) for r in row]
    return [x / mean(others(e, i)) - 1 for i, x in enumerate(e)]


def quantile_advantage(row, k):
    b = min(x for x in row if mean([y <= x for y in row]) >= 0.4)
    return [(r - b) / (std(row) + 1e-6) for r in row]


def virtual(row, k):
    more = [*row, 1.0]
    return [float(Fraction(r) - mean(exactly(more))) / (std(more, 1) + 1e-6) for r in row]


def median_advantage(row, k):
    middle = statistics.median_low(row)
    scale = statistics.median_low([abs(r - middle) for r in row]) + 1e-3
    found = [(r - middle) / scale for r in row]
    return [a * len(row) / max(1, sum(x != 0 for x in found)) for a in found]


def kalman(row, k):
    x, p, found = 0.0, 1.0, []
    for r in row:
        p += 1e-5
        gain = p / (p + 1e-2)
        x, p = x + gain * (r - x), (1 - gain) * p
        found.append((r - x) / (math.sqrt(p) + 1e-8))
    return found


def sum_of_maxpo(row, k, weight):
    return [
        float(sum(terms))
        for terms in zip(*[[weight(j) * a for a in oracles.leave_two_out(row, j)] for j in range(1, k + 1)], strict=True)
    ]


def statistic(row, k, weights):
    """k (q_i - v_-i) with sum of weights times the ranks of a subset in place of its max, over all subsets."""

    def worth(subset):
        return sum(w * x for w, x in zip(weights, sorted(exactly(subset), reverse=True), strict=True))

    found = []
    for i, r in enumerate(row):
        with_i = [worth((r, *rest)) for rest in itertools.combinations(others(row, i), k - 1)]
        without = [worth(subset) for subset in itertools.combinations(others(row, i), k)]
        found.append(float(k * (mean(with_i) - mean(without))))
    return found


def maclaurin(row, k):
    f = row.count(0.0)
    paid = sum(Fraction(comb(f - 1, j - 1), comb(N - 1, j - 1)) for j in range(2, min(k, f) + 1))
    return [1.0 if r else -float(paid) for r in row]


def subset_average(row, k):
    """MaxRL's estimator r_i k/c - 1 of a subset of k, averaged over the subsets that hold i, and the -1 over all."""
    found = []
    for i, r in enumerate(row):
        total = Fraction(0)
        for places in itertools.combinations(range(N), k):
            c = sum(row[j] for j in places)
            total += Fraction(int(r), int(c)) if i in places and c else 0
        found.append(float(N * total / comb(N, k)) - 1)
    return found


DEFINITIONS = {  # name: (rows, formula(row, k) -> advantages)
    "grpo_loo_std": (ALL, lambda row, k: loo_std(row)),
    "grpo_passk": (ALL, passk_gap),
    "mmpo": (ALL, lambda row, k: sum_of_maxpo(row, k, lambda j: 1)),
    "maxrl_order": (ALL, lambda row, k: sum_of_maxpo(row, k, lambda j: Fraction(1, j))),
    "order_statistic": (ALL, lambda row, k: statistic(row, k, [0] * (k - 1) + [1])),
    "maclaurin": (BINARY, maclaurin),
    "maxrl_subset": (BINARY, subset_average),
    "entropic_loo": (ALL, entropic),
    "qae": (ALL, quantile_advantage),
    "ngrpo": (ALL, virtual),
    "mc_grpo": (ALL, median_advantage),
    "krpo": (ALL, kalman),
    "psr": (BINARY, lambda row, k: row),
    "nsr": (BINARY, lambda row, k: [r - 1 for r in row]),
    "w_reinforce": (BINARY, lambda row, k: [0.1 if r else -1.0 for r in row]),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions(name):
    rows, formula = DEFINITIONS[name]
    for k in KS if get(name).uses_k else [1]:
        close(get(name)(tensor(rows), k=k), [formula(row, k) for row in rows], 1e-11 if name == "krpo" else 1e-12)


@pytest.mark.parametrize(
    "form, formula",
    {
        "focal": lambda r, m, a: (1 - m) ** 0.5 * a,
        "lead": lambda r, m, a: a * (0.4 + 1.1 / (1 + math.exp(10 * ((m if a > 0 else 1 - m) - 0.75)))),
        "mapo": lambda r, m, a: 4 * m * (1 - m) * a + (1 - 4 * m * (1 - m)) * (r - m) / (m or 1),
        "sqrt": lambda r, m, a: (r - m) / math.sqrt(m or 1),
        "clipped": lambda r, m, a: (r - m) / max(m, 1 / 8),
    }.items(),
)
def test_f_grpo(form, formula):
    wanted = []
    for row in UNIT:
        m = float(mean(exactly(row)))
        wanted.append([formula(r, m, (r - m) / (std(row) + 1e-6)) for r in row])
    close(get("f_grpo")(tensor(UNIT), form=form), wanted)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("name, side", [("opo", "lengths"), ("optimal_baseline", "score_norms")])
def test_weighted_baselines(name, side, leave_one_out):
    wanted = [
        [r - (weighted(others(row, i), others(LENGTHS, i)) if leave_one_out else weighted(row, LENGTHS)) for i, r in enumerate(row)]
        for row in ALL
    ]
    values = torch.tensor(LENGTHS).expand(len(ALL), -1)
    close(get(name)(tensor(ALL), leave_one_out=leave_one_out, **{side: values}), wanted)
    plain = get("rloo" if leave_one_out else "dr_grpo")(tensor(ALL))
    for same in (None, torch.full((len(ALL), N), 7.0)):
        close(get(name)(tensor(ALL), leave_one_out=leave_one_out, **{side: same}), plain)


def test_score_norms_of_which_only_one_counts():
    """A sample whose others have no score norm at all falls back on their mean; no 0/0."""
    rewards, norms = tensor([[1.0, 0.0, 0.0, 1.0]]), tensor([[2.0, 0.0, 0.0, 0.0]])
    close(get("optimal_baseline")(rewards, score_norms=norms), [[1 - 1 / 3, -1.0, -1.0, 0.0]])


BATCHES = [GRADED[:3], BINARY[3:7], [[0.0] * N, BINARY[9], [1.0] * N, BINARY[30]], [BINARY[9], FLAT[0]], FLAT]


def over_batch(rows, length=None):
    """(mean, std with ddof 1) of all rewards; with lengths a reward counts once per token."""
    values = [x for row in rows for x, repeat in zip(exactly(row), length or [1] * N, strict=True) for _ in range(repeat)]
    m = mean(values)
    return float(m), math.sqrt(sum((x - m) ** 2 for x in values) / (len(values) - 1))


@pytest.mark.parametrize("rows", BATCHES)
def test_whitening_over_the_batch(rows):
    centred = [[x - mean(exactly(row)) for x in exactly(row)] for row in rows]
    lengths = torch.tensor(LENGTHS).expand(len(rows), -1)
    for token_weighted in (False, True):
        length = LENGTHS if token_weighted else None
        m, s = over_batch(rows, length)
        found = get("reinforce_pp")(tensor(rows), lengths=lengths, token_weighted=token_weighted)
        close(found, [[(r - m) / (s + 1e-8) for r in row] for row in rows], 1e-9)
        m, s = over_batch(centred, length)
        found = get("reinforce_pp_baseline")(tensor(rows), lengths=lengths, token_weighted=token_weighted)
        shift = m if token_weighted else 0.0
        close(found, [[(float(r) - shift) / (s + 1e-8) for r in row] for row in centred], 1e-9)
    found = get("reinforce_pp_baseline")(tensor(rows), std_of="rewards", eps=1e-4)
    close(found, [[float(r) / (over_batch(rows)[1] + 1e-4) for r in row] for row in centred])


@pytest.mark.parametrize("size", [1e-5, 1e-4, 1.0])
def test_guards_of_the_variance(size):
    """Added inside the root (verl), or its least value (OpenRLHF): both decide where a batch is nearly flat."""
    rows = [[float(x) * size for x in row] for row in GRADED[:3]]
    m, s = over_batch(rows)
    for guard, root in (
        ({"variance_eps": 1e-8}, math.sqrt(s**2 + 1e-8)),
        ({"least_variance": 1e-8}, math.sqrt(max(s**2, 1e-8))),
    ):
        found = get("reinforce_pp")(tensor(rows), eps=0.0, **guard)
        close(found, [[(r - m) / root for r in row] for row in rows], 1e-9)
    centred = [[n / (n - 1) * (r - sum(row) / n) for r in row] for row, n in ((row, len(row)) for row in rows)]
    s = math.sqrt(sum(x * x for row in centred for x in row) / (len(rows) * len(rows[0]) - 1))
    found = get("reinforce_pp_baseline")(tensor(rows), leave_one_out=True, eps=0.0, variance_eps=1e-8)
    close(found, [[x / math.sqrt(s**2 + 1e-8) for x in row] for row in centred], 1e-9)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("rows", [*BATCHES, [GRADED[0]]])
def test_james_stein(rows, k):
    """w from the other groups: jackknife variance of their v, which is var/N at k = 1, and the variance between them."""
    wanted = []
    for b, row in enumerate(rows):
        include, leave = oracles.include_one(row, k), oracles.leave_one_out(row, k)
        foreign = [oracles.leave_one_out(other, k) for other in others(rows, b)]
        if foreign:
            middles = [mean(values) for values in foreign]
            v = mean([Fraction(N - 1, N) * sum((x - m) ** 2 for x in values) for values, m in zip(foreign, middles, strict=True)])
            s = mean([(m - mean(middles)) ** 2 for m in middles])
            if k == 1:
                var = [statistics.variance(exactly(other)) for other in others(rows, b)]
                assert v == mean(var) / N and middles == [mean(exactly(other)) for other in others(rows, b)]
            w = float(v) / (float(v) + float(s) + 1e-6)
            leave = [float(x) + w * float(mean(middles) - x) for x in leave]
        wanted.append([k * (float(q) - float(x)) for q, x in zip(include, leave, strict=True)])
    close(get("jspo_max")(tensor(rows), k=k), wanted, 1e-10)
    if k == 1:
        close(get("jspo")(tensor(rows)), wanted, 1e-10)


@pytest.mark.parametrize("rows", BATCHES[1:3])
def test_bnpo(rows):
    means = [float(mean(exactly(row))) for row in rows]
    middle, var = mean(means), statistics.variance(means)
    size = middle * (1 - middle) / var - 1 if var else 0
    a, b = max(1, 1 + size * middle / 3), max(1, 1 + size * (1 - middle) / 3)
    wanted = []
    for row, m in zip(rows, means, strict=True):
        density = m ** (a - 1) * (1 - m) ** (b - 1) * math.gamma(a + b) / math.gamma(a) / math.gamma(b)
        wanted.append([(r - m) * min(1 / density if density else 1e6, 1e6) for r in row])
    close(get("bnpo")(tensor(rows)), wanted, 1e-10)


def test_bnpo_without_spread_is_dr_grpo():
    for rows in ([BINARY[1], BINARY[2], BINARY[4]], [BINARY[9]]):
        close(get("bnpo")(tensor(rows)), get("dr_grpo")(tensor(rows)))


@pytest.mark.parametrize("rows", BATCHES)
def test_dgpo_and_gpg(rows):
    live = [row for row in rows if len(set(row)) > 1]
    total = sum(math.exp(-float(mean(exactly(row))) / 2) for row in live)
    dgpo, groups, rewards = [], [], []
    count = sum(r != 0 for row in rows for r in row)
    for row in rows:
        m = float(mean(exactly(row)))
        u = len(live) * math.exp(-m / 2) / total if row in live else 0
        away = sum(abs(r - m) for r in row)
        dgpo.append([u * N * (r - m) / (away + 1e-4) for r in row])
        groups.append([(r - m) * len(rows) / len(live) if row in live else 0.0 for r in row])
        rewards.append([(r - m) * len(rows) * N / (count or 1) if row in live else 0.0 for r in row])
    close(get("dgpo")(tensor(rows)), dgpo)
    close(get("gpg")(tensor(rows)), groups)
    close(get("gpg")(tensor(rows), count="rewards"), rewards)


# Identities.


@pytest.mark.parametrize("k", KS)
def test_sums_of_maxpo(k):
    rows = tensor(ALL)
    close(get("mmpo")(rows, k=k), sum(get("maxpo")(rows, k=j) for j in range(1, k + 1)))
    close(get("maxrl_order")(rows, k=k), sum(get("maxpo")(rows, k=j) / j for j in range(1, k + 1)))
    close(get("mmpo")(rows, k=1), get("rloo")(rows))
    close(get("maxrl_order")(rows, k=N - 1), get("tailrl")(rows))


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("n", [6, 64])
def test_order_statistics_of_the_maximum_and_of_the_negated_minimum(n, k):
    rows = torch.rand(20, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    statistic_of = get("order_statistic")
    close(statistic_of(rows, k=k, weights="ReMax"), get("maxpo")(rows, k=k))
    close(statistic_of(rows, k=k), -get("maxpo")(-rows, k=k))
    close(statistic_of(rows, k=k, weights=f"TopM:{k}"), get("rloo")(rows))  # all ranks: the mean


@pytest.mark.parametrize(
    "k, weights, ranks",
    [
        (3, "TopM:2", (0.5, 0.5, 0)),
        (3, "Median", (0, 1, 0)),
        (4, "Median", (0, 0.5, 0.5, 0)),
        (4, "BotM:3", (0, 1, 1, 1)),
        (4, "LowerTailMean:0.25", (0, 0, 0, 1)),
        (4, "LowerTailMean:0.3", (0, 0, 0.5, 0.5)),
        (2, (3.0, -1.0), (3, -1)),
    ],
)
def test_presets_and_weights_over_all_subsets(k, weights, ranks):
    total = sum(ranks) if isinstance(weights, str) else 1
    wanted = [statistic(row, k, [w / total for w in ranks]) for row in ALL]
    close(get("order_statistic")(tensor(ALL), k=k, weights=weights), wanted)
    assert weights_of(weights, k) == pytest.approx([w / total for w in ranks])


def test_maxrl_subset_at_k_equal_to_n_is_maxrl_s_own_form():
    rows = tensor(BINARY)
    successes = rows.sum(-1, keepdim=True)
    close(get("maxrl_subset")(rows, k=N), torch.where(successes > 0, N * rows / successes.clamp(min=1), 0.0) - 1)


def test_batch_z_scored_rloo_is_reinforce_pp_baseline():
    rows = tensor(GRADED)
    advantages = get("rloo")(rows)
    z = (advantages - advantages.mean()) / advantages.std()
    close(get("reinforce_pp_baseline")(rows, eps=0), z)
    close(get("reinforce_pp")(advantages, eps=0), z)


@pytest.mark.parametrize("tau", [0.1, 0.3, 2.0])
def test_softmax_grpo_is_a_form_of_rs_grpo(tau):
    rows = tensor(ALL)
    close(get("rs_grpo")(rows, beta=1 / tau) / tau, N * torch.softmax(rows / tau, -1) - 1, 1e-11)


def test_psr_nsr_and_w_reinforce_are_reinforce_with_constant_baselines():
    rows = tensor(BINARY)
    close(get("psr")(rows), get("reinforce")(rows))
    close(get("nsr")(rows), get("reinforce")(rows) - 1)
    close(get("w_reinforce")(rows), 1.1 * (get("reinforce")(rows) - 1 / 1.1))
    close(get("w_reinforce")(rows, weight=0.0), get("nsr")(rows))


def test_grpo_passk_is_best_gap_over_n_and_std():
    rows = tensor(GRADED)
    close(get("grpo_passk")(rows, eps=0), get("best_gap")(rows, k=N) / N / rows.std(-1, keepdim=True))


def test_a_leave_one_out_mean_over_the_whole_group_s_std_is_grpo():
    """Why a trainer's leave-one-out switch does nothing once it divides by the std of the same advantages."""
    rows = get("rloo")(tensor(GRADED))
    close(get("grpo")(rows, eps=0, ddof=1), get("grpo")(tensor(GRADED), eps=0, ddof=1))


@pytest.mark.parametrize("gamma, wanted", [(0.0, "grpo")])
def test_f_grpo_at_zero_is_grpo(gamma, wanted):
    close(get("f_grpo")(tensor(UNIT), gamma=gamma), get(wanted)(tensor(UNIT)))


# What must not blow up.


@pytest.mark.parametrize("name", ["grpo_loo_std", "qae", "grpo_passk", "ngrpo", "dgpo", "entropic_loo"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_seven_equal_and_one_other(name, dtype):
    """The one sample's others are flat: no residue over residue. NeMo-RL 1518 and PR 4158 had -2075."""
    for value in (0.35, 0.1, 1 / 3, 1e6 + 0.1):
        rewards = torch.full((1, 8), value, dtype=dtype)
        rewards[0, 3] += 0.25
        advantages = get(name)(rewards)
        assert torch.isfinite(advantages).all() and advantages.abs().max() < 10
    if name == "grpo_loo_std":
        assert get(name)(torch.full((1, 8), 0.35).index_fill(1, torch.tensor(3), 0.6))[0, 3].item() == pytest.approx(0.25)


def test_a_lead_that_overflows_the_entropic_weight_is_held():
    advantages = get("entropic_loo")(tensor([[0.0, 0.0, 1000.0]]))
    assert torch.isfinite(advantages).all() and advantages[0].tolist() == [-1, -1, 1e12 - 1]


def test_the_adaptive_beta_is_ln_2_away_from_uniform():
    rows = tensor(GRADED + [[0.0, 0.0, 0.0, 0.0, 1e-3]])
    advantages = get("entropic_loo")(rows, beta="adaptive")
    for row, found in zip(rows, advantages, strict=True):
        low, high = 0.0, 1e6
        for _ in range(200):  # plain bisection
            beta = (low + high) / 2
            p = torch.softmax(beta * row, -1)
            low, high = (beta, high) if (p * (N * p).log()).nansum() < math.log(2) else (low, beta)
        e = torch.exp(high * (row - row.max())).tolist()
        close(found, [x / mean(others(e, i)) - 1 for i, x in enumerate(e)], 1e-7)
    assert not get("entropic_loo")(tensor(FLAT), beta="adaptive").any()


def test_mc_grpo_gives_a_lone_success_a_thousand_times_the_group():
    assert get("mc_grpo")(tensor([[0.0, 0.0, 0.0, 0.0, 1.0]]))[0, 4].item() == pytest.approx(5000)


def test_what_needs_other_rewards_is_refused():
    for name in ("psr", "nsr", "w_reinforce", "maclaurin", "maxrl_subset"):
        with pytest.raises(InputError, match=f"{name}: needs rewards that are 0 or 1, got 0.5"):
            get(name)(torch.tensor([0.0, 0.5, 1.0]))
    for name in ("f_grpo", "bnpo"):
        with pytest.raises(InputError, match=rf"{name}: needs rewards in \[0, 1\], got 1.5"):
            get(name)(torch.tensor([[0.0, 1.5, 1.0]]))
