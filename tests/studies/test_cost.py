"""The cost study measures what it says: slow forms that are right, memory that is counted."""

import pytest
import torch

from maxpo_bench.estimators import get, names
from maxpo_bench.studies import cost


@pytest.mark.parametrize("k", [2, 4, 8])
@pytest.mark.parametrize("slow", [cost.l2o_quadratic, cost.subset_brute_force])
def test_slow_forms_equal_maxpo(slow, k):
    rewards = torch.rand(3, 9, dtype=torch.float64)
    rewards[1] = (rewards[1] > 0.5).double()
    assert (slow(rewards, k) - get("maxpo")(rewards, k=k)).abs().max() < 1e-12


def test_peak_memory_counts_tensors_alive_together():
    megabyte = 2**20

    def two_then_one():
        first, second = torch.zeros(2, megabyte, dtype=torch.uint8), torch.zeros(megabyte, dtype=torch.uint8)
        del first
        return torch.zeros(megabyte, dtype=torch.uint8) + second

    assert cost.peak_memory(two_then_one) == pytest.approx(3 * megabyte, rel=0.01)


@pytest.mark.parametrize("name", names())
def test_peak_memory_of_every_estimator(name):
    row = cost.measure(name, get(name), 1024, total=2**14)
    assert 0.9 <= row["peak_memory_per_input"] <= 10


def test_study_has_a_row_for_each_contender_and_size(monkeypatch):
    monkeypatch.setattr(cost, "SIZES", (8,))
    monkeypatch.setattr(cost, "SLOW_SIZES", {"l2o_quadratic": (8, 16), "subset_brute_force": (8,)})
    monkeypatch.setattr(cost, "TOTAL", 256)
    data = cost.run()
    assert len(data) == len(names()) + 2 + 1
    assert (data["time_us_per_group"] > 0).all() and data.notna().all().all()
    left, right = cost.figure(data).axes
    assert "N" in left.get_xlabel() and "µs" in left.get_ylabel() and len(left.lines) >= 8
