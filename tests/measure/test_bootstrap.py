"""The bootstrap: draws with replacement, and intervals that hold what they say."""

import numpy as np
import pytest

from maxpo_bench.measure import bootstrap


def test_counts_and_picks_draw_with_replacement():
    counts = bootstrap.counts(np.random.default_rng(0), 5)
    assert counts.shape == (bootstrap.NUM_RESAMPLES, 5) and (counts.sum(1) == 5).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(0), 0.8, atol=0.1)  # 5 * 1/5 * 4/5
    picks = bootstrap.picks(np.random.default_rng(0), 5, resamples=4000)
    assert picks.shape == (4000, 5) and set(picks.flat) == set(range(5))
    np.testing.assert_allclose((picks == 2).sum(1).var(), 0.8, atol=0.1)


def test_bounds_are_the_central_95_percent_along_the_first_axis():
    draws = np.stack([np.arange(1001.0), np.arange(1001.0)[::-1] * 2], axis=1)
    low, high = bootstrap.bounds(draws)
    np.testing.assert_allclose([low, high], [[25, 50], [975, 1950]])


@pytest.mark.parametrize("way", ["counts", "picks"])
def test_an_interval_of_a_mean_covers_it(way):
    """Of 60 exponential observations the percentile bootstrap covers the mean in about 93 of 100 trials."""
    noise, hits = np.random.default_rng(1), 0
    for _ in range(400):
        values = noise.exponential(size=60)
        if way == "counts":
            draws = bootstrap.counts(noise, 60, 500) @ values / 60
        else:
            draws = values[bootstrap.picks(noise, 60, 500)].mean(1)
        low, high = bootstrap.bounds(draws)
        hits += low <= 1 <= high
    assert 355 <= hits <= 390
