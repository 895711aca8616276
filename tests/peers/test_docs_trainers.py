"""The blocks of docs/trainers.md, pasted and run; those of trainers that cannot be installed are run beside stand-ins."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maxpo_bench.adapters.groups import advantages
from maxpo_bench.estimators import get

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "trainers.md").read_text()


def block(section, number=0):
    part = re.split(r"\n#+ ", TEXT.split(f"# {section}\n", 1)[1])[0]
    return re.findall(r"```python\n(.*?)```", part, re.DOTALL)[number]


def test_trl(tmp_path, monkeypatch, capsys):
    pytest.importorskip("trl")
    from maxpo_bench.policies import causal_lm, characters

    tokenizer = characters.tokenizer("0123456789+=")
    size = {"architecture": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 16}
    model = causal_lm.from_config(size, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, 64, 0)
    code = block("TRL")
    said = 'output_dir="out"'
    assert said in code
    few = "max_steps=2, logging_steps=1, max_completion_length=4"  # nothing that a machine without GPU would ask for
    code = code.replace(said, f"output_dir={str(tmp_path)!r}, {few}")
    space = {"model": model, "tokenizer": tokenizer}
    exec(code, space)
    trainer = space["trainer"]
    rewards = torch.tensor(trainer._logs["rewards"]["<lambda>"]).view(-1, 16)
    assert list(trainer._logs["advantages"]) == pytest.approx(get("maxpo")(rewards, k=4).flatten().tolist(), abs=1e-6)
    assert any(line.get("advantages/max", 0) > 0 for line in trainer.state.log_history)
    exec(block("TRL", 1), space)
    assert space["trainer_class"].compute.name == "centred"


def test_verl_by_hand():
    pytest.importorskip("verl")
    space = {}
    exec(block("verl"), space)
    wanted = get("maxpo")(torch.tensor([1.0, 0, 1, 0]), k=2)
    assert torch.allclose(space["advantages"][:, 0], wanted)


def test_ragged_groups():
    space = {}
    exec(block("Ragged groups"), space)
    assert [len(one) for one in space["found"]] == [3, 4]


def test_tinker_cookbook():
    train = pytest.importorskip("tinker_cookbook.rl.train")
    before = train.compute_advantages
    try:
        exec(block("tinker-cookbook"), {})
        groups = [SimpleNamespace(get_total_rewards=lambda: [0.0, 1.0, 0.0, 1.0, 0.0])]
        assert torch.equal(train.compute_advantages(groups)[0], get("maxpo")(torch.tensor([0.0, 1, 0, 1, 0]), k=4))
    finally:
        train.compute_advantages = before


REWARDS = [0.0, 1.0, 0.5, 0.0, 1.0, 1.0]
WANTED = get("maxpo")(torch.tensor(REWARDS), k=4)


def test_skyrl():
    pytest.importorskip("verl")
    from maxpo_bench.adapters.verl import advantage_estimator

    kept = {}
    registry = SimpleNamespace(register=lambda name, function: kept.update({name: function}))
    exec(block("SkyRL"), {"AdvantageEstimatorRegistry": registry, "advantage_estimator": advantage_estimator})
    tokens, mask = torch.tensor(REWARDS)[:, None], torch.ones(6, 1)
    further = {"values": None, "config": {}, "gamma": 1, "lambd": 1, "grpo_norm_by_std": True}
    found, _ = kept["maxpo"](token_level_rewards=tokens, response_mask=mask, index=["a"] * 6, **further)
    assert torch.allclose(found[:, 0], WANTED)


def test_rllm():
    space = {"register_rllm_adv_estimator": lambda name: lambda function: function, "advantages": advantages}
    exec(block("rLLM"), space)
    assert torch.allclose(space["maxpo"]([torch.tensor(REWARDS)], None, traj_groups=None)[0][0], WANTED)


def test_slime():
    space = {"advantages": advantages}
    exec(block("slime"), space)
    samples = [SimpleNamespace(get_reward_value=lambda args, value=value: value) for value in REWARDS]
    assert space["maxpo"](SimpleNamespace(n_samples_per_prompt=6), samples) == (REWARDS, pytest.approx(WANTED.tolist()))


def test_prime_rl():
    class Algorithm:
        def assign_advantages(self, trace, value):
            trace.advantage = value

    space = {"Algorithm": Algorithm, "advantages": advantages}
    exec(block("prime-rl"), space)
    traces = [SimpleNamespace(reward=value) for value in REWARDS]
    asyncio.run(space["MaxPO"]().score_group([SimpleNamespace(traces=[trace]) for trace in traces]))
    assert [trace.advantage for trace in traces] == pytest.approx(WANTED.tolist())


def test_nemo_rl():
    pytest.importorskip("verl")
    from maxpo_bench.adapters.verl import advantage_estimator

    space = {"torch": torch, "advantage_estimator": advantage_estimator}
    exec(block("NeMo-RL"), space)
    found = space["MaxPO"]().compute_advantage(torch.tensor([[3, 4]] * 6), torch.tensor(REWARDS), torch.ones(6, 2))
    assert torch.allclose(found, WANTED[:, None].expand(6, 2))
