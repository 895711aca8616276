"""Speed of the estimators as ratios inside one run, so that the machine's noise cancels. One thread.

Run alone: pytest -m performance tests/performance/test_estimator_speed.py
"""

import math
import time

import pytest
import torch

from maxpo_bench.estimators import get, names
from maxpo_bench.studies.cost import draw, peak_memory

pytestmark = pytest.mark.performance


NUM_BATCHES = 8  # different rewards in turn, so that no branch predictor learns to sort them


def interleaved(functions, rounds, budget=10.0):
    """Fewest CPU seconds of each function(turn) over `rounds` turns, all functions in every turn: [len(functions)].

    CPU time of this thread: on a busy machine a call longer than a time slice never finishes uninterrupted, and the
    wall times of a sort just below the slice and of an estimator just above it compare as 1 to 2.5.
    """
    fastest = [math.inf] * len(functions)
    for function in functions:
        function(NUM_BATCHES - 1)
    start = time.thread_time()
    for turn in range(rounds):
        for place, function in enumerate(functions):
            before = time.thread_time()
            function(turn % NUM_BATCHES)
            fastest[place] = min(fastest[place], time.thread_time() - before)
        if time.thread_time() - start > budget:
            break
    return fastest


def batches_of(shape):
    return torch.rand(NUM_BATCHES, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1024, 64), (64, 1024)])
@pytest.mark.parametrize("name", ["maxpo", "pkpo"])
def test_time_beside_one_sort(benchmark, name, shape):
    estimator, batches = get(name), batches_of(shape)
    benchmark.group = f"advantages {list(shape)}"
    benchmark.pedantic(estimator, (batches[0],), {"k": 4}, rounds=10, warmup_rounds=2)
    sort, whole = interleaved([lambda i: batches[i].sort(-1), lambda i: estimator(batches[i], k=4)], 150)
    benchmark.extra_info["ratio_to_sort"] = whole / sort
    assert whole <= 1.5 * sort, f"{name} {shape}: {whole / sort:.2f} sorts"


@pytest.mark.parametrize("name", ["maxpo", "pkpo"])
def test_overhead_on_a_small_batch(benchmark, name):
    estimator, batches = get(name), batches_of((32, 16))
    benchmark.group = "advantages [32, 16]"
    benchmark.pedantic(estimator, (batches[0],), {"k": 4}, rounds=50, warmup_rounds=5)
    sort, whole = interleaved([lambda i: batches[i].sort(-1), lambda i: estimator(batches[i], k=4)], 3000)
    benchmark.extra_info["beyond_sort_us"] = (whole - sort) * 1e6
    assert whole - sort <= 60e-6, f"{name}: {(whole - sort) * 1e6:.0f} µs beyond one sort"


SIZES = [2**j for j in range(8, 15)]


@pytest.mark.parametrize("name", [name for name in names() if name != "krpo"])  # a recursion along the group, N calls
def test_growth_with_the_group_size(benchmark, name):
    """Time per group ~ N^slope from N = 2^8 to 2^14 at fixed total work. One sort has slope 1.13 in comparisons."""
    estimator = get(name)
    functions, num_groups = [], []
    for n in SIZES:
        num_groups.append(4 if estimator.across_groups else 2**15 // n)  # where groups are work too, keep their number
        batches = [draw(name, num_groups[-1], n, seed) for seed in range(NUM_BATCHES)]
        k = 4 if 4 in estimator.valid_k(n) else n
        functions.append(lambda i, batches=batches, k=k: estimator(batches[i], k=k))
    benchmark.group = "growth"
    benchmark.pedantic(functions[0], (0,), rounds=3, warmup_rounds=1)
    per_group = [seconds / groups for seconds, groups in zip(interleaved(functions, 60), num_groups, strict=True)]
    x = [math.log(n) for n in SIZES]
    y = [math.log(seconds) for seconds in per_group]
    middle = sum(x) / len(x)
    slope = sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)
    benchmark.extra_info["slope"] = slope
    assert slope <= 1.15, f"{name}: time per group grows like N^{slope:.3f}"


@pytest.mark.parametrize("n", [64, 2**14])
@pytest.mark.parametrize("name", names())
def test_peak_memory(name, n):
    estimator, rewards = get(name), draw(name, 2**16 // n, n)
    k = 4 if 4 in estimator.valid_k(n) else n
    assert peak_memory(lambda: estimator(rewards, k=k)) <= 10 * rewards.nbytes


def test_weights_are_cached(benchmark):
    """The first call at a new (N, k) computes the weights, later ones only look them up."""
    from maxpo_bench.estimators.order_statistics import include_weights

    rewards = batches_of((2, 4096))[0]
    get("maxpo")(rewards, k=37)
    before = include_weights.cache_info()
    benchmark.pedantic(get("maxpo"), (rewards,), {"k": 37}, rounds=10)
    after = include_weights.cache_info()
    assert after.misses == before.misses and after.hits >= before.hits + 10
