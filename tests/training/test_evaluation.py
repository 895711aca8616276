"""pass@k and max@k against the mean over all subsets, and their unbiasedness by enumeration."""

from itertools import combinations, product

import numpy as np
import pytest

from maxpo_bench.training.evaluation import ladder, max_at_k, pass_at_k, rungs


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_max_at_k_is_the_mean_over_all_subsets(n):
    rewards = np.random.default_rng(0).integers(-3, 4, size=(3, n)).astype(float)  # ties and negatives
    for k in range(1, n + 1):
        brute = np.mean([rewards[:, list(subset)].max(axis=1) for subset in combinations(range(n), k)], axis=0)
        np.testing.assert_allclose(max_at_k(rewards, k), brute, atol=1e-12)


def test_pass_at_k_is_max_at_k_of_binary_rewards():
    for n, k in product((1, 4, 9), (1, 2, 4)):
        for c in range(n + 1):
            if k <= n:
                binary = np.array([1.0] * c + [0.0] * (n - c))
                assert pass_at_k(c, n, k) == pytest.approx(max_at_k(binary, k), abs=1e-12)


def test_pass_at_k_is_unbiased_by_enumeration():
    p, n, k = 0.3, 6, 3
    chance = [np.prod([p if hit else 1 - p for hit in draw]) for draw in product((0, 1), repeat=n)]
    estimate = [pass_at_k(sum(draw), n, k) for draw in product((0, 1), repeat=n)]
    assert np.dot(chance, estimate) == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_thousands_of_samples_do_not_overflow():
    assert pass_at_k(1, 20_000, 10_000) == pytest.approx(0.5, rel=1e-9)
    assert max_at_k(np.arange(5000.0), 5000) == 4999.0


def test_k_outside_its_range_is_an_error():
    for k in (0, 5):
        with pytest.raises(ValueError, match="1 <= k <= n"):
            max_at_k(np.zeros(4), k)
        with pytest.raises(ValueError, match="1 <= k <= n"):
            pass_at_k(0, 4, k)


def test_ladder_counts_a_sample_as_passed_at_the_threshold():
    rewards = np.array([[[0.1 + 0.2, 0.0, 0.0, 1.0]]])  # [S=1, P=1, n=4]; .1 + .2 is a hair above .3
    passes, maxima = ladder(rewards, 0.3, [1, 2])
    assert passes[1][0] == pytest.approx(0.5) and maxima[1][0] == pytest.approx(1.3 / 4)
    passes, _ = ladder(1 - rewards, 0.7, [1])  # 1 - .30000000000000004 is a hair below .7 and counts
    assert passes[1][0] == pytest.approx(0.75)


def test_rungs_stop_at_half_the_samples():
    assert rungs(64) == [1, 2, 4, 8, 16, 32] and rungs(10) == [1, 2, 4] and rungs(2) == [1]
