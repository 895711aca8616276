"""Random streams: keyed by all four parts, repeatable, and not overlapping as seed + i would."""

import itertools

import numpy as np

from maxpo_bench.training import streams


def test_each_part_of_the_key_gives_another_stream():
    keys = itertools.product(("maze", "bandit"), (0, 1), ("train", "evaluation"), (0, 1))
    draws = {streams.generator(*key).integers(2**63) for key in keys}
    assert len(draws) == 16


def test_the_same_key_gives_the_same_numbers_in_any_process():
    assert streams.generator("maze", 3, "train", 7).random() == streams.generator("maze", 3, "train", 7).random()
    # pinned: a change here changes every published number
    assert streams.generator("maze", 3, "train", 7).integers(1000, size=4).tolist() == PINNED


PINNED = [895, 222, 336, 871]


def test_seed_ints_of_neighbouring_seeds_are_not_shifted_copies():
    first, second = (streams.seed_ints("maze", seed, "reset", 0, 50) for seed in (0, 1))
    assert len(np.intersect1d(first, second)) == 0 and first.min() >= 0 and first.max() < 2**31
