"""The sharing in variance.py pays: every estimator on the same samples costs at most 1.5 x one estimator."""

import statistics
import time

import pytest

from maxpo_bench import problems
from maxpo_bench.measure import variance
from maxpo_bench.settings.task_file import load

pytestmark = pytest.mark.performance


@pytest.mark.parametrize("name", ["maze", "cartpole", "countdown3"])
def test_all_estimators_cost_at_most_half_more_than_one(name):
    task = load(name)
    problem = problems.build(task, (0,))
    # A random language model is as slow to score as a trained one.
    policy = problem.untrained_policy() if hasattr(problem, "untrained_policy") else problem.initial_policy()
    num_batches = 2 if problem.row_wise else 16
    times = {"all": [], "one": []}
    variance.measure(problem, policy, task.k, num_batches)
    for _ in range(3):  # interleaved, so that a busy machine slows both
        for which, estimators in (("one", ["maxpo"]), ("all", None)):
            start = time.perf_counter()
            variance.measure(problem, policy, task.k, num_batches, estimators=estimators)
            times[which].append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(times["all"], times["one"], strict=True))
    print(f"variance of all estimators on {name}: {ratio:.2f} x that of one")
    assert ratio <= 1.5, f"{ratio:.2f} x"
