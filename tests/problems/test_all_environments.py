"""Every classic-control, toy-text and Box2D id through `new-task`, load, and a step, group and reward of what it wrote."""

import importlib.util

import gymnasium
import pytest
import torch

from maxpo_bench.problems import build
from maxpo_bench.problems.new_task import create
from maxpo_bench.settings import task_file

FAMILIES = ("classic_control", "toy_text", "box2d")
NOT_A_VECTOR = {"CarRacing-v3"}  # its observation is an image of 96 x 96 pixels
IDS = sorted(
    env_id for env_id, spec in gymnasium.registry.items()
    if isinstance(spec.entry_point, str) and spec.entry_point.split(".")[:2] == ["gymnasium", "envs"]
    and spec.entry_point.removeprefix("gymnasium.envs.").split(".")[0].split(":")[0] in FAMILIES and env_id not in NOT_A_VECTOR
)  # fmt: skip
GRIDS = ["MiniGrid-Empty-5x5-v0", "MiniGrid-DoorKey-5x5-v0", "MiniGrid-LavaGapS5-v0", "BabyAI-GoToRedBallGrey-v0"]


def test_the_list_is_whole():
    assert len(IDS) >= 16 and {"CartPole-v1", "Acrobot-v1", "Blackjack-v1", "Taxi-v4", "BipedalWalkerHardcore-v3"} <= set(IDS)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [*IDS, *GRIDS])
def test_an_environment_runs_as_new_task_writes_it(tmp_path, env_id):
    if env_id in GRIDS:
        pytest.importorskip("minigrid", reason="needs the extra minigrid")
    elif "box2d" in gymnasium.spec(env_id).entry_point and not importlib.util.find_spec("Box2D"):
        pytest.skip("needs gymnasium[box2d]")
    task = task_file.load(str(create("x", env_id, tmp_path)))
    problem = build(task, (0, 1))
    policy = problem.initial_policy()
    with torch.no_grad():
        batch = problem.sample(policy, 0, groups=1, group_size=2)
    rewards = problem.reward(batch)
    assert rewards.shape == (2, 1, 2) and torch.isfinite(rewards).all()
    if task.section("outcome")["type"] == "normalised":
        assert (rewards >= 0).all() and (rewards <= 1).all()
    log_probs = problem.log_probs(policy, batch)
    assert log_probs.shape == (2, 1, 2) and torch.isfinite(log_probs).all() and (log_probs != 0).any()
    log_probs.sum().backward()
    assert any(parameter.grad.abs().max() > 0 for parameter in policy.parameters())
    again = problem.sample(policy, 0, groups=1, group_size=2)
    assert torch.equal(problem.reward(again), rewards)
