"""tinker-cookbook trains on the advantages of the ragged function after one line."""

from types import SimpleNamespace

import pytest
import torch

from maxpo_bench.adapters.groups import advantages

pytestmark = pytest.mark.peers


def test_tinker_cookbook(monkeypatch):
    train = pytest.importorskip("tinker_cookbook.rl.train", reason="needs tinker-cookbook: see .ci/peers")
    data = pytest.importorskip("tinker_cookbook.rl.data_processing")
    groups = [[0.0, 1.0, 0.0, 0.5], [1.0, 0.0, 1.0]]
    trajectories = [SimpleNamespace(get_total_rewards=group.copy) for group in groups]
    assert train.compute_advantages is data.compute_advantages  # the name that the line replaces is the one in use
    theirs = train.compute_advantages(trajectories)

    def replacement(batch):
        return advantages([group.get_total_rewards() for group in batch], "maxpo", k=2)

    monkeypatch.setattr(train, "compute_advantages", replacement)
    for found, wanted, plain in zip(train.compute_advantages(trajectories), advantages(groups, "maxpo", 2), theirs, strict=True):
        assert torch.equal(found, wanted) and found.dtype == plain.dtype and found.shape == plain.shape
    assert "compute_advantages(" in open(train.__file__).read()
