"""Statistics: coverage and rates of the verdicts at the seeds used here, and no interval out of nothing."""

import math

import numpy as np
import pytest

from maxpo_bench.measure import statistics


def test_pairs_match_by_seed_not_by_position():
    found, seeds = statistics.pair({0: 1.0, 1: 2.0, 2: 5.0, 7: math.nan}, {2: 1.0, 0: 0.5, 7: 1.0, 9: 3.0})
    assert seeds == [0, 2]
    assert found.tolist() == [0.5, 4.0]


DESIGNS = {  # paired differences of the shapes met here, with their true mean
    "normal": (lambda rng, n: rng.normal(0.1, 1.0, n), 0.1),
    "two Betas": (lambda rng, n: rng.beta(8, 2, n) - rng.beta(6, 3, n), 0.8 - 2 / 3),
    "uniform": (lambda rng, n: rng.uniform(-1, 1, n), 0.0),
    "gamma": (lambda rng, n: rng.gamma(4, 1, n), 4.0),
}


@pytest.mark.parametrize("num_seeds", [4, 16, 100, 300])
@pytest.mark.parametrize("design", DESIGNS)
def test_paired_interval_covers(num_seeds, design):
    draw, truth = DESIGNS[design]
    rng = np.random.default_rng(11)
    found = [statistics.mean_interval(draw(rng, num_seeds)) for _ in range(2000)]
    assert 0.92 <= np.mean([f.low <= truth <= f.high for f in found]) <= 0.97


# Seeds as the pilot asks for them, and spreads of paired differences of max@K like those measured (300 of the maze give ±.025).
SEEDS = {"bandit": 200, "local_optimum": 300, "maze": 300, "frozenlake": 100, "cartpole": 50, "countdown3": 16, "text_maze": 16}
SPREADS = dict(zip(SEEDS, (0.06, 0.11, 0.22, 0.11, 0.02, 0.032, 0.04), strict=True))
GROUPS = (list(SEEDS)[:5], list(SEEDS)[5:], list(SEEDS))


def family(rng, gaps):
    """(intervals, truths) of one family as the report judges it: a rival for each gap, on two groups of tasks and on all."""
    found, truths = [], []
    for gap in gaps:
        draws = {t: rng.normal(gap, SPREADS[t], SEEDS[t]) for t in SEEDS}
        found += [statistics.task_mean_interval({t: draws[t] for t in group}) for group in GROUPS]
        truths += [gap] * len(GROUPS)
    return found, truths


def test_task_mean_covers_at_the_seeds_used():
    """Tasks of 16 and of 300 seeds weigh the same; Satterthwaite's degrees of freedom hold the interval."""
    rng = np.random.default_rng(2)
    hits = [[f.low <= t <= f.high for f, t in zip(*family(rng, [0.03]), strict=True)] for _ in range(1500)]
    assert np.all((np.mean(hits, axis=0) >= 0.935) & (np.mean(hits, axis=0) <= 0.965)), np.mean(hits, axis=0)


MARGIN = 0.02
OTHERS = [0.2, 0.15, 0.1, 0.08, 0.06, 0.1, 0.05]  # seven rivals that are decided, as most are
EXPECTED = {  # true difference -> lowest rate of each verdict, on bandit and gym and on all tasks
    0.0: {"equivalent": 0.95},
    0.01: {"equivalent": 0.4, "supported": 0.1},
    0.02: {"supported": 0.9},
    0.04: {"supported": 0.99},
    -0.04: {"contradicted": 0.99},
}


@pytest.mark.parametrize("truth", EXPECTED)
def test_rates_of_the_four_verdicts(truth):
    """At the seeds used: nothing is called equivalent that differs by the margin, nothing decided the wrong way, and power is
    there."""
    rng, num_draws = np.random.default_rng(3), 300
    decided = [statistics.decide(family(rng, [truth, *OTHERS])[0], MARGIN) for _ in range(num_draws)]
    for place in (0, 2):
        rates = rates_of(found[place][0] for found in decided)
        assert all(rates[verdict] >= low for verdict, low in EXPECTED[truth].items()), rates
        wrong = {"supported": truth <= 0, "contradicted": truth >= 0, "equivalent": abs(truth) >= MARGIN}
        assert sum(rates[verdict] for verdict, is_wrong in wrong.items() if is_wrong) <= 0.05, rates


def rates_of(verdicts):
    verdicts = list(verdicts)
    return {v: verdicts.count(v) / len(verdicts) for v in statistics.VERDICTS}


@pytest.mark.parametrize("truth", [0.0, 0.01, 0.02])
def test_too_few_seeds_are_undecided(truth, monkeypatch):
    """With an eighth of the seeds the same differences are mostly left open, and hardly ever decided falsely."""
    monkeypatch.setattr(f"{__name__}.SEEDS", {t: max(3, n // 8) for t, n in SEEDS.items()})
    rng = np.random.default_rng(8)
    rates = rates_of(statistics.decide(family(rng, [truth, *OTHERS])[0], MARGIN)[2][0] for _ in range(200))
    assert rates["undecided"] >= 0.5 and rates["contradicted"] <= 0.03, rates


@pytest.mark.parametrize("gaps", [[0.0] * 8, [0.02] * 8, [0.0, 0.02] * 4, [0.0, 0.02, 0.03, 0.035] * 2, [0.0, *OTHERS]])
def test_a_family_holds_a_false_verdict_in_at_most_5_percent(gaps):
    """Whatever the truth: equal, at the margin, or mixed with large differences, whose certainty widens nobody's level too far."""
    rng, bad, num_draws = np.random.default_rng(5), 0, 400
    for _ in range(num_draws):
        intervals, truths = family(rng, gaps)
        for (verdict, _), truth in zip(statistics.decide(intervals, MARGIN), truths, strict=True):
            wrong = {"supported": truth <= 0, "contradicted": truth >= 0, "equivalent": abs(truth) >= MARGIN, "undecided": False}
            if wrong[verdict]:
                bad += 1
                break
    assert bad <= 0.05 * num_draws + 2 * (0.05 * 0.95 * num_draws) ** 0.5, bad / num_draws


def test_verdicts_of_planted_intervals():
    def at(estimate, error):
        return statistics.from_bounds(estimate, estimate - 1.96 * error, estimate + 1.96 * error)

    family = [at(0.1, 0.01), at(-0.1, 0.01), at(0.001, 0.002), at(0.012, 0.0005), at(0.01, 0.02), statistics.mean_interval([1.0])]
    found = statistics.decide(family, 0.02)
    words = [verdict for verdict, _ in found]
    assert words == ["supported", "contradicted", "equivalent", "equivalent", "undecided", "undecided"]
    assert found[4][1] == pytest.approx(0.05 / 2)  # judged beside the equivalent one, whose sign is open; the others left
    assert found[5] == ("undecided", None)  # no interval: not a member of the family
    alone, among = (statistics.decide([at(0.03, 0.014)] * n, 0.02)[0][0] for n in (1, 20))
    assert (alone, among) == ("supported", "undecided")


def test_the_seeds_it_would_take_are_those_that_decide():
    """An undecided comparison, run again with as many seeds as it asked for, is decided about as often as promised."""
    rng = np.random.default_rng(6)
    draws = rng.normal(0.0, 0.1, 20)
    found = statistics.mean_interval(draws - draws.mean() + 0.008)
    ((verdict, level),) = statistics.decide([found], 0.02)
    factor = statistics.seeds_factor(found, 0.02, level)
    assert verdict == "undecided" and factor > 1.5
    spread, shares = found.error * math.sqrt(20), []
    for num in (round(20 * factor), round(20 * factor / 3)):
        again = [statistics.mean_interval(rng.normal(found.estimate, spread, num)) for _ in range(400)]
        shares.append(np.mean([statistics.decide([f], 0.02)[0][0] != "undecided" for f in again]))
    assert shares[0] >= 0.78 > shares[1], shares


@pytest.mark.parametrize(
    "values, reason",
    [
        ([], "0 of the 3 seeds"),
        ([0.4], "1 of the 3 seeds"),
        ([0.4, 0.6], "2 of the 3 seeds"),
        ([0.25] * 10, "no spread"),
        ([0.1 + 0.2, 0.3, 0.3, 0.3], "no spread"),
        ([math.nan, math.nan, 1.0, 2.0], "2 of the 3 seeds"),
    ],
)
def test_never_invents_an_interval(values, reason):
    found = statistics.mean_interval(values)
    assert found.low is None and found.high is None and found.p is None
    assert reason in found.reason


def test_a_task_with_too_few_seeds_takes_the_interval_not_the_question():
    """Left out, the mean would be that of other tasks."""
    found = statistics.task_mean_interval({"a": [0.1, 0.2, 0.3, 0.4], "b": [5.0, 9.0]})
    assert found.estimate == pytest.approx((0.25 + 7.0) / 2) and found.low is None
    assert "fewer than 3 seeds on b" in found.reason and found.num_pairs == 6
    equal = statistics.task_mean_interval({"a": [0.1] * 4, "b": [0.2] * 4})
    assert equal.low is None and "no spread" in equal.reason
    assert statistics.task_mean_interval({}).reason == "no task with results of both"
    one = statistics.task_mean_interval({"a": [0.1, 0.2, 0.3, 0.4]})
    alone = statistics.mean_interval([0.1, 0.2, 0.3, 0.4])
    assert (one.low, one.high, one.dof) == pytest.approx((alone.low, alone.high, 3))


def test_holm():
    assert statistics.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert statistics.holm([None]) == [None]
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    rng = np.random.default_rng(0)
    false = sum(min(statistics.holm(rng.uniform(size=20))) < 0.05 for _ in range(1000))
    assert false < 70  # 5% of families, not of tests
