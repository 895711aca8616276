"""Statistics: rliable's numbers on a fixed array, coverage at the seeds used here, and no interval out of nothing."""

import math

import numpy as np
import pytest
from scipy import stats

from maxpo_bench.measure import statistics

# 5 seeds x 6 tasks. The expected numbers were computed once with rliable 1.2.0 (pandas 2), 50,000 resamples.
FIRST = np.array(
    [
        [0.426, 0.343, 0.338, 0.558, 0.617, 0.398],
        [0.649, 0.596, 0.259, 0.505, 0.874, 0.447],
        [0.128, 0.46, 0.421, 0.341, 0.898, 0.321],
        [0.564, 0.722, 0.652, 0.38, 0.56, 0.687],
        [0.109, 0.838, 0.605, 0.639, 0.5, 0.765],
    ]
)


def by_task(array):
    return statistics.strata(array, ("seed", "task"))


def test_iqm_and_interval_are_rliables():
    assert statistics.iqm(by_task(FIRST)) == pytest.approx(0.5203125, abs=1e-12)
    found = statistics.iqm_interval(by_task(FIRST), 50_000, np.random.default_rng(1), correct=False)
    assert (found.low, found.high) == pytest.approx((0.4483125, 0.5908141), abs=2e-3)


def test_probability_of_improvement_is_rliables_definition():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 5, (7, 4)), rng.integers(0, 5, (6, 4))  # ties on purpose
    expected = np.mean([stats.mannwhitneyu(x[:, t], y[:, t], alternative="greater")[0] / 42 for t in range(4)])
    assert statistics.probability_of_improvement(by_task(x), by_task(y)) == pytest.approx(expected, abs=1e-12)
    found = statistics.probability_of_improvement_interval(by_task(x), by_task(y))
    assert found.low < expected < found.high


def test_named_axes_are_checked():
    rows = by_task(FIRST)
    turned = statistics.strata(FIRST.T, ("task", "seed"))
    assert all(np.array_equal(rows[t], turned[t]) for t in rows)
    with pytest.raises(ValueError, match="must name 'seed' and 'task'"):
        statistics.strata(FIRST, ("run", "task"))
    with pytest.raises(ValueError, match="5 task names for a task axis of length 6"):
        statistics.strata(FIRST, ("seed", "task"), tasks="abcde")


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


@pytest.mark.parametrize("num_seeds", [4, 10])
@pytest.mark.parametrize("design", DESIGNS)
def test_paired_interval_covers(num_seeds, design):
    draw, truth = DESIGNS[design]
    rng = np.random.default_rng(11)
    found = [statistics.mean_interval(draw(rng, num_seeds)) for _ in range(3000)]
    assert 0.92 <= np.mean([f.low <= truth <= f.high for f in found]) <= 0.97


def test_bca_covers_from_20_seeds_on():
    rng = np.random.default_rng(5)
    found = [statistics.mean_interval(rng.gamma(2, 1, 20), np.random.default_rng(i)) for i in range(600)]
    assert 0.905 <= np.mean([f.low <= 2.0 <= f.high for f in found]) <= 0.97


def mixed(rng):
    """Ten tasks as here: six with 10 seeds, four with 4, each with its own level and spread."""
    return {t: rng.beta(2 + t, 4, 10 if t < 6 else 4) for t in range(10)}


def test_overall_intervals_cover():
    truth_mean = np.mean([(2 + t) / (6 + t) for t in range(10)])
    rng = np.random.default_rng(2)
    samples = [mixed(rng) for _ in range(1000)]
    hits = [f.low <= truth_mean <= f.high for f in map(statistics.task_mean_interval, samples)]
    assert 0.92 <= np.mean(hits) <= 0.97
    parts = [rng.beta(2 + t, 4, (10 if t < 6 else 4) * 20_000) for t in range(10)]
    truth_iqm = statistics.iqm(np.concatenate(parts))
    hits = [
        f.low <= truth_iqm <= f.high
        for f in (statistics.iqm_interval(s, 400, np.random.default_rng(i)) for i, s in enumerate(samples))
    ]
    assert 0.92 <= np.mean(hits) <= 0.97


def improvement_coverage(num_draws, shared, paired):
    """Share of intervals that hold P(first > second): normal runs on the ten tasks, a share of their variance common by seed."""
    gaps, sizes = np.linspace(-0.3, 1.2, 10), [10] * 6 + [4] * 4
    truth = stats.norm.cdf(gaps / np.sqrt(2)).mean()  # of two runs of different seeds
    rng, hits = np.random.default_rng(7), 0
    for draw in range(num_draws):
        first, second = {}, {}
        for t, (gap, n) in enumerate(zip(gaps, sizes, strict=True)):
            common = np.sqrt(shared) * rng.normal(size=n)
            first[t] = gap + common + np.sqrt(1 - shared) * rng.normal(size=n)
            second[t] = common + np.sqrt(1 - shared) * rng.normal(size=n)
        found = statistics.probability_of_improvement_interval(first, second, 300, np.random.default_rng(draw), paired=paired)
        hits += found.low <= truth <= found.high
    return hits / num_draws


def test_probability_of_improvement_covers():
    assert 0.92 <= improvement_coverage(600, shared=0.0, paired=False) <= 0.97
    assert 0.92 <= improvement_coverage(600, shared=0.0, paired=True) <= 0.97
    assert 0.92 <= improvement_coverage(600, shared=0.6, paired=True) <= 0.97  # noise common to both, as in the report
    assert improvement_coverage(200, shared=0.6, paired=False) >= 0.97  # resampled apart it only widens it


def test_paired_improvement_wants_the_same_seeds():
    with pytest.raises(ValueError, match="not paired by seed"):
        statistics.probability_of_improvement_interval({"a": [1.0] * 4}, {"a": [0.5] * 5}, paired=True)


def test_intervals_repeat():
    one, two = (statistics.iqm_interval(by_task(FIRST), 500) for _ in range(2))
    assert one == two


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


def test_overall_leaves_short_tasks_out_and_says_so():
    found = statistics.task_mean_interval({"a": [0.1, 0.2, 0.3, 0.4], "b": [5.0, 9.0]})
    assert found.estimate == pytest.approx(0.25)
    assert "b" in found.reason and found.num_pairs == 4
    one_task = statistics.mean_interval([0.1, 0.2, 0.3, 0.4])
    assert (found.low, found.high) == pytest.approx((one_task.low, one_task.high))
    equal = statistics.task_mean_interval({"a": [0.1] * 4, "b": [0.2] * 4})
    assert equal.low is None and "no spread" in equal.reason


def test_holm():
    assert statistics.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert statistics.holm([None]) == [None]
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    rng = np.random.default_rng(0)
    false = sum(min(statistics.holm(rng.uniform(size=20))) < 0.05 for _ in range(1000))
    assert false < 70  # 5% of families, not of tests
