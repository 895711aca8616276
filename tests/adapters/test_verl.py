"""verl's calling convention without verl: a stand-in registry."""

import sys
import types

import numpy as np
import pytest
import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names


@pytest.fixture
def core_algos(monkeypatch):
    """A registry like verl's, under its name; the adapter imported anew."""
    module = types.ModuleType("verl.trainer.ppo.core_algos")
    module.ADV_ESTIMATOR_REGISTRY = {}
    module.register_adv_est = lambda name: lambda function: module.ADV_ESTIMATOR_REGISTRY.setdefault(name, function)
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["verl.trainer.ppo"].core_algos = module
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.9.1")
    monkeypatch.delitem(sys.modules, "maxpo_bench.adapters.verl", raising=False)
    yield module
    sys.modules.pop("maxpo_bench.adapters.verl", None)


def batch():
    """(token_level_rewards [7, 4], response_mask [7, 4], uids): groups of 4 and 3, interleaved, ragged masks."""
    lengths = torch.tensor([4, 1, 2, 3, 4, 2, 1])
    mask = (torch.arange(4) < lengths[:, None]).float()
    rewards = torch.zeros(7, 4).scatter_(1, lengths[:, None] - 1, torch.tensor([[0.0], [1], [0.5], [0], [1], [0.25], [1]]))
    return rewards, mask, np.array(["a", "b", "a", "b", "a", "b", "a"], dtype=object)


def test_importing_it_registers_every_estimator(core_algos):
    import maxpo_bench.adapters.verl  # noqa: F401

    assert sorted(core_algos.ADV_ESTIMATOR_REGISTRY) == [f"maxpo_bench.{name}" for name in names()]


@pytest.mark.parametrize("name, k", [("maxpo", 2), ("rloo", 1), ("opo", 1)])
def test_interleaved_ragged_groups(core_algos, name, k):
    from maxpo_bench.adapters.verl import advantage_estimator

    rewards, mask, uids = batch()
    found, returns = advantage_estimator(name, k)(token_level_rewards=rewards, response_mask=mask, index=uids, config=None)
    assert found is returns and found.dtype == rewards.dtype
    for prompt in "ab":
        rows = torch.tensor(uids == prompt)
        wanted = get(name)(rewards[rows].double().sum(-1), k=k, lengths=mask[rows].sum(-1))
        torch.testing.assert_close(found[rows].double(), wanted[:, None] * mask[rows].double(), rtol=1e-6, atol=1e-6)


def test_the_section_of_the_config_says_k(core_algos, caplog):
    from maxpo_bench.adapters.verl import advantage_estimator

    rewards, mask, uids = batch()
    function = advantage_estimator("maxpo")
    direct, _ = advantage_estimator("maxpo", 2)(rewards, mask, uids)
    torch.testing.assert_close(function(rewards, mask, uids, {"maxpo_bench": {"k": 2}})[0], direct)
    with pytest.raises(InputError, match=r"k = 3 does not fit group 1 of 3.*prompts in order: a, b"):
        function(rewards, mask, uids, {"maxpo_bench": {"k": 3}})
    function(rewards, mask, uids, {"maxpo_bench": {"k": 3, "clip_k": True}})
    assert "k = 3 clipped in 1 of 2 groups" in caplog.text
    with pytest.raises(InputError, match="algorithm.maxpo_bench: unknown key 'clip', did you mean 'clip_k'"):
        function(rewards, mask, uids, {"maxpo_bench": {"clip": True}})
    with pytest.raises(InputError, match="non_tensor_batch"):
        function(rewards, mask)


def test_an_untested_verl_is_said_when_it_is_used(core_algos, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.10.0")
    import maxpo_bench.adapters.verl  # noqa: F401

    with pytest.raises(InputError, match=r"tested with verl >=0.9,<0.10, found verl 0.10.0"):
        core_algos.ADV_ESTIMATOR_REGISTRY["maxpo_bench.maxpo"](*batch())
