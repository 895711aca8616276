"""Environments through the vector interface: groups, seeds, outcomes, gradients, and what bad environments lead to."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.estimators import get
from maxpo_bench.measure import variance
from maxpo_bench.policies.mlp import output_scores
from maxpo_bench.problems import build
from maxpo_bench.problems.envs.build import GroupVectorEnv
from maxpo_bench.settings import task_file
from maxpo_bench.training.loop import train

CARTPOLE = {"id": "CartPole-v1", "max_episode_steps": 40}
LAKE = {"id": "FrozenLake-v1", "max_episode_steps": 20}
PENDULUM = {"id": "Pendulum-v1", "max_episode_steps": 6}
CHOICES = {"id": "TestChoices-v0", "kwargs": {"space": "multi_discrete"}}
ANY = {"success": -1000.0}  # every episode passes


class Countdown(gymnasium.Env):
    """Counts `length` steps down and pays 1 on each; can be told to misbehave at the third."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2, start=1)

    def __init__(self, length=5, fault=None):
        self.length, self.fault = length, fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.first = self.length, self.np_random.random()
        return np.array([self.first, self.left], np.float32), {}

    def step(self, action):
        assert action in (1, 2)
        self.left -= 1
        third = self.left == self.length - 3
        if third and self.fault == "raise":
            raise OSError("disk on fire")
        reward = float("nan") if third and self.fault == "nan" else 1.0
        return np.array([self.first, self.np_random.random()], np.float32), reward, self.left == 0, False, {}


SPACES = {
    "multi_discrete": gymnasium.spaces.MultiDiscrete([3, 2, 4], start=[1, 0, -2]),
    "multi_discrete_2d": gymnasium.spaces.MultiDiscrete([[3, 2], [2, 5]]),
    "multi_binary": gymnasium.spaces.MultiBinary(3),
    "box_2d": gymnasium.spaces.Box(-0.5, 0.5, (2, 3), np.float32),
}


class Choices(gymnasium.Env):
    """Any action space; its observation is an image of a fixed size, its reward the sum of the action."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2, 2), np.float32)

    def __init__(self, space):
        self.action_space = SPACES[space]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age, self.x = 0, self.np_random.random((2, 2)).astype(np.float32)
        return self.x, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.age += 1
        return self.x + self.np_random.random((2, 2)).astype(np.float32), float(action.sum()), self.age == 4, False, {}


if "TestCountdown-v0" not in gymnasium.registry:
    gymnasium.register("TestChoices-v0", entry_point=Choices, max_episode_steps=50)
    gymnasium.register("TestCountdown-v0", entry_point=Countdown, max_episode_steps=50)
    gymnasium.register("TestEndless-v0", entry_point=Countdown)


def moved(problem):
    """The initial policy pushed off its near-uniform start, so that a mistake cannot hide."""
    policy = problem.initial_policy()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.linspace(-0.5, 0.5, parameter[0].numel()).view(parameter[0].shape))
    return policy


@pytest.mark.parametrize("env", [CARTPOLE, {"id": "Acrobot-v1", "max_episode_steps": 5}], ids=["native", "sync"])
def test_members_of_a_group_start_alike_and_groups_apart(make_task, env):
    problem = build(make_task("gymnasium", env=env, score=ANY), (0, 1))
    vector = problem._vector(12)
    first = vector.reset(np.array([11, 12, 13]), 4, lambda: np.arange(12))
    assert vector.mode == ("vector_entry_point" if env is CARTPOLE else "sync")
    groups = np.asarray(first).reshape(3, 4, -1)
    assert (groups == groups[:, :1]).all() and len(np.unique(groups[:, 0], axis=0)) == 3
    scalar = gymnasium.make(env["id"])
    assert np.allclose(scalar.reset(seed=12)[0], groups[1, 0])  # as the environment's own reset has it


def test_native_and_scalar_cartpole_play_the_same_episode(make_task):
    vector = GroupVectorEnv(make_task("gymnasium", env=CARTPOLE), 3)
    scalar = gymnasium.make(**CARTPOLE)
    vector.reset(np.array([5, 6, 5]), 1, None)
    scalar.reset(seed=6)
    for t in range(40):
        action = t % 2
        ours, reward, ended = vector.step(np.full(3, action))
        theirs, r, terminated, truncated, _ = scalar.step(action)
        assert np.allclose(ours[1], theirs, atol=1e-6) and reward[1] == r and ended[1] == (terminated or truncated)
        if ended[1]:
            break


def test_members_share_the_start_but_not_what_happens_next(make_task):
    vector = GroupVectorEnv(make_task("gymnasium", env=LAKE), 64)
    vector.reset(np.array([3]), 64, lambda: np.arange(64))
    after = vector.step(np.full(64, 2))[0]
    assert len(set(after.tolist())) == 3  # slippery: one action, three outcomes
    vector.reset(np.array([3]), 64, lambda: np.arange(64))
    assert (vector.step(np.full(64, 2))[0] == after).all()


@pytest.mark.parametrize("env", [CARTPOLE, LAKE, PENDULUM, CHOICES], ids=lambda env: env["id"])
def test_a_seed_does_not_depend_on_its_neighbours(make_task, env):
    task = make_task("gymnasium", env=env, score=ANY)
    alone, together = build(task, (5,)), build(task, (9, 5, 2))
    one, three = alone.initial_policy(), together.initial_policy()
    batch, batches = alone.sample(one, 4), together.sample(three, 4)
    assert torch.equal(together.reward(batches)[1], alone.reward(batch)[0])
    log_probs, all_log_probs = alone.log_probs(one, batch), together.log_probs(three, batches)
    assert torch.equal(all_log_probs[1], log_probs[0])
    log_probs.sum().backward()
    all_log_probs.sum().backward()
    for mine, theirs in zip(one.parameters(), three.parameters(), strict=True):
        assert torch.equal(theirs.grad[1], mine.grad[0])
    assert np.array_equal(together.evaluate(three, 1, 2, 4).rewards[1], alone.evaluate(one, 1, 2, 4).rewards[0])


@pytest.mark.parametrize("env", [CARTPOLE, PENDULUM], ids=["categorical", "gaussian"])
def test_scores_and_norms_match_autograd(make_task, env):
    problem = build(make_task("gymnasium", env=env, policy={"hidden": [5, 3]}, score=ANY), (0, 1))
    policy = moved(problem)
    batch = problem.sample(policy, 0)
    scores, log_probs = problem.scores(policy, batch), problem.log_probs(policy, batch).flatten(1)
    parameters = list(policy.parameters())
    for s, i in ((0, 0), (1, 20)):
        gradients = torch.autograd.grad(log_probs[s, i], parameters, retain_graph=True)
        expected = torch.cat([g[s].flatten() for g in gradients])
        assert torch.allclose(scores[s, i], expected, atol=1e-4, rtol=1e-4) and expected.abs().max() > 0.01
    outputs = policy(batch["observations"])
    steps, _ = output_scores(outputs, batch["actions"], policy.log_std)
    norms = (steps.square().sum(-1) * batch["valid"]).flatten()
    expected = torch.zeros(48).index_add(0, batch["episodes"].flatten(), norms)
    assert torch.allclose(problem.score_norms(batch).flatten().float(), expected, rtol=1e-4)


def test_lengths_are_the_steps_of_each_episode(make_task):
    """Cartpole pays 1 a step: the return counts them."""
    problem = build(make_task("gymnasium", env=CARTPOLE), (0, 3))
    batch = problem.sample(problem.initial_policy(), 0)
    lengths = problem.lengths(batch)
    assert torch.equal(lengths.double(), batch["returns"]) and lengths.unique().numel() > 3


def independent(problem, outputs, log_std):
    """The policy's distribution by torch.distributions: log_prob of actions [L, width] -> [L]."""
    distributions, heads = torch.distributions, problem.actions.heads
    if heads is None:
        return distributions.Independent(distributions.Normal(outputs, log_std.exp()), 1).log_prob
    parts = [distributions.Categorical(logits=part) for part in outputs.split(heads, -1)]
    return lambda actions: sum(part.log_prob(actions[:, h]) for h, part in enumerate(parts))


@pytest.mark.parametrize("space", SPACES)
def test_every_action_space_is_a_product_whose_numbers_agree_with_torch(make_task, space):
    env = {"id": "TestChoices-v0", "kwargs": {"space": space}}
    problem = build(make_task("gymnasium", env=env, policy={"hidden": [5]}), (0, 1))
    policy = moved(problem)
    batch = problem.sample(policy, 0)
    valid = batch["valid"][1] > 0
    outputs = policy(batch["observations"])[1][valid]
    log_std = None if policy.log_std is None else policy.log_std[1]
    steps = independent(problem, outputs, log_std)(batch["actions"][1][valid])
    total = torch.zeros(24, dtype=torch.float64).index_add(0, batch["episodes"][1][valid] - 24, steps.double())
    log_probs = problem.log_probs(policy, batch)[1].flatten()
    assert torch.allclose(log_probs, total, atol=1e-4)
    gradients = torch.autograd.grad(log_probs[7], [*policy.parameters()], retain_graph=True)
    expected = torch.cat([g[1].flatten() for g in gradients])
    assert torch.allclose(problem.scores(policy, batch)[1, 7], expected, atol=1e-4) and expected.abs().max() > 0.01
    heads = None if problem.actions.single else problem.actions.heads
    mine = output_scores(outputs, batch["actions"][1][valid], log_std, heads)[0]
    (theirs,) = torch.autograd.grad(steps.sum(), outputs)
    assert torch.allclose(mine, theirs, atol=1e-5)
    norms = torch.zeros(24).index_add(0, batch["episodes"][1][valid] - 24, mine.square().sum(-1))
    assert torch.allclose(problem.score_norms(batch)[1].flatten().float(), norms, rtol=1e-4)
    assert torch.isfinite(torch.as_tensor(problem.evaluate(policy, 1, 2, 4).rewards)).all()
    rows = variance.measure(problem, policy, 2, 4, estimators=["rloo", "maxpo"])
    assert all(np.isfinite(row["trace_cov"]) and row["trace_cov"] > 0 for row in rows)
    run = train(problem.task, get("maxpo"), problem)
    assert run.step == 3 and not run.diverged


def test_each_head_is_drawn_as_often_as_its_softmax_says(make_task):
    problem = build(make_task("gymnasium", env={"id": "TestChoices-v0", "kwargs": {"space": "multi_discrete"}}), (0,))
    policy = moved(problem)
    outputs = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.0, 0.0, 2.0, -1.0, 0.0]).expand(1, 40_000, 9)
    noise = torch.from_numpy(np.random.default_rng(0).random((1, 40_000, 3), dtype=np.float32))
    actions = policy.act(outputs, noise)[0]
    for h, part in enumerate(outputs[0, 0].split(problem.actions.heads)):
        share = torch.bincount(actions[:, h], minlength=len(part)) / 40_000
        assert (share - part.softmax(-1)).abs().max() < 0.012  # 5 standard errors
    together = torch.corrcoef(actions.T.double())
    assert (together - torch.eye(3)).abs().max() < 0.03  # and independently of each other


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)] * 2),
        gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)}),
        gymnasium.spaces.Text(4),
    ],
    ids=lambda space: type(space).__name__,
)
def test_other_action_spaces_are_one_clear_line_at_load(make_task, monkeypatch, space):
    monkeypatch.setitem(SPACES, "other", space)
    with pytest.raises(InputError, match=f"test.yaml: env.id: action space {type(space).__name__} is not supported; Discrete"):
        build(make_task("gymnasium", env={"id": "TestChoices-v0", "kwargs": {"space": "other"}}), (0,))


def test_log_probs_against_torch_distributions(make_task):
    problem = build(make_task("gymnasium", env=PENDULUM, score=ANY), (0,))
    policy = moved(problem)
    batch = problem.sample(policy, 0)
    normal = torch.distributions.Normal(policy(batch["observations"]), policy.log_std.exp())
    steps = normal.log_prob(batch["actions"]).sum(-1)[0] * batch["valid"][0]
    total = torch.zeros(24).index_add(0, batch["episodes"][0], steps)
    assert torch.allclose(problem.log_probs(policy, batch).flatten().float(), total, atol=1e-4)


def test_sampled_actions_follow_the_policy(make_task):
    problem = build(make_task("gymnasium", env=CARTPOLE), (0,))
    policy = moved(problem)
    batch = problem.sample(policy, 0, groups=40, group_size=16)
    valid = batch["valid"][0] > 0
    p = policy(batch["observations"])[0].softmax(-1)[valid, 1].detach()
    taken = batch["actions"][0][valid].float()
    error = (p * (1 - p)).sum().sqrt()
    assert abs(taken.sum() - p.sum()) < 4 * error and abs(p.mean() - 0.5) > 0.02


@pytest.mark.parametrize(
    "outcome, expected",
    [
        ({}, 5.0),
        ({"type": "success", "threshold": 6}, 0.0),
        ({"type": "success", "threshold": 5}, 1.0),
        ({"type": "final"}, 1.0),
        ({"type": "normalised", "low": 0, "high": 10}, 0.5),
        ({"type": "normalised", "low": 0, "high": 4}, 1.0),
    ],
    ids=str,
)
def test_outcomes(make_task, outcome, expected):
    problem = build(make_task("gymnasium", env={"id": "TestCountdown-v0"}, outcome=outcome), (0,))
    batch = problem.sample(problem.initial_policy(), 0)
    assert (problem.reward(batch) == expected).all() and problem.reward(batch).dtype == torch.float64
    assert (batch["lengths"] == 5).all() and batch["valid"].sum() == 5 * 24


def test_time_limit_wrappers_and_kwargs(make_task):
    env = {
        "id": "TestCountdown-v0",
        "max_episode_steps": 4,
        "kwargs": {"length": 9},
        "wrappers": ["gymnasium.wrappers:FlattenObservation"],
    }
    problem = build(make_task("gymnasium", env=env), (0,))
    assert (problem.reward(problem.sample(problem.initial_policy(), 0)) == 4).all()


def test_a_function_may_wrap_and_rewards_it_may_change_are_not_known(make_task, monkeypatch):
    functions = SimpleNamespace(doubled=lambda env: gymnasium.wrappers.TransformReward(env, lambda reward: 2 * reward))
    monkeypatch.setitem(sys.modules, "functions", functions)
    task = make_task("gymnasium", env={**CARTPOLE, "wrappers": ["functions:doubled"]}, score={"success": 70})
    problem = build(task, (0,))
    batch = problem.sample(problem.initial_policy(), 0)
    assert problem.highest_reward is None and (problem.reward(batch).flatten() == 2 * batch["lengths"][0]).all()


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.MultiBinary(3),
        gymnasium.spaces.MultiDiscrete([2, 3]),
        gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)]),
        gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2), "b": gymnasium.spaces.Box(0, 1, (2, 2))}),
    ],
    ids=lambda space: type(space).__name__,
)
def test_other_observations_run_flattened_and_without_it_a_line_says_so(make_task, monkeypatch, space):
    monkeypatch.setattr(Choices, "observation_space", space)
    monkeypatch.setattr(Choices, "reset", lambda self, seed=None, options=None: (setattr(self, "age", 0), (space.sample(), {}))[1])
    monkeypatch.setattr(Choices, "step", lambda self, action: (space.sample(), 1.0, True, False, {}))
    with pytest.raises(InputError, match=r"is not a vector; add a wrapper, .*\[gymnasium.wrappers:FlattenObservation\]"):
        build(make_task("gymnasium", env=CHOICES), (0,))
    problem = build(make_task("gymnasium", env={**CHOICES, "wrappers": ["gymnasium.wrappers:FlattenObservation"]}), (0,))
    assert problem.width == gymnasium.spaces.flatdim(space)
    assert (problem.reward(problem.sample(problem.initial_policy(), 0)) == 1).all()


def test_held_out_starts_are_the_same_at_every_evaluation(make_task):
    problem = build(make_task("gymnasium", env={"id": "TestCountdown-v0"}), (0, 7))
    seen = []
    for step in (0, 3):
        problem.evaluate(problem.initial_policy(), step, 3, 4)
        seen.append(problem._vector(24).seeds)
    assert seen[0] == seen[1] and seen[0][:12] == seen[0][12:] and len(set(seen[0])) == 3


def test_environment_that_raises_is_a_fault_with_the_reason(make_task):
    problem = build(make_task("gymnasium", env={"id": "TestCountdown-v0", "kwargs": {"fault": "raise"}}), (0,))
    with pytest.raises(Fault, match="TestCountdown-v0 raised in step: OSError: disk on fire"):
        problem.sample(problem.initial_policy(), 0)


def test_reward_that_turns_nan_is_one_clear_line(make_task):
    problem = build(make_task("gymnasium", env={"id": "TestCountdown-v0", "kwargs": {"fault": "nan"}}), (0,))
    with pytest.raises(Fault, match="test.yaml: env.id: TestCountdown-v0 gave a reward that is not finite"):
        problem.sample(problem.initial_policy(), 0)


@pytest.mark.parametrize(
    "env, message",
    [
        ({"id": "CartPol-v1"}, "unknown environment 'CartPol-v1', did you mean 'CartPole-v1'"),
        ({"id": "TestEndless-v0"}, "max_episode_steps: TestEndless-v0 has no time limit of its own"),
        ({"id": "Blackjack-v1", "max_episode_steps": 9}, "observation space Tuple is not a vector; add a wrapper"),
        ({"id": "CartPole-v1", "wrappers": ["gymnasium.wrappers:Nothing"]}, "write module:Class"),
        ({"id": "CartPole-v1", "kwargs": {"gravity": 3}}, "gravity"),
    ],
    ids=str,
)
def test_bad_environments_are_one_clear_line(make_task, env, message):
    with pytest.raises(InputError, match=message) as caught:
        build(make_task("gymnasium", env=env), (0,))
    assert "\n" not in str(caught.value) and "test.yaml" in str(caught.value)


def test_missing_envpool_is_one_clear_line(make_task):
    if importlib.util.find_spec("envpool"):
        pytest.skip("envpool is installed")
    with pytest.raises(InputError, match=r"envpool, which is not installed: pip install 'maxpo-bench\[envpool\]'"):
        build(make_task("gymnasium", env={**CARTPOLE, "backend": "envpool"}), (0,))


def test_envpool_groups_start_alike(make_task):
    pytest.importorskip("envpool", reason="needs the extra envpool")
    problem = build(make_task("gymnasium", env={**CARTPOLE, "backend": "envpool"}), (0,))
    batch = problem.sample(problem.initial_policy(), 0)
    first = batch["observations"][0, :24].view(3, 8, 4)
    assert (first == first[:, :1]).all() and len(first[:, 0].unique(dim=0)) == 3
    assert (problem.reward(batch) >= 8).all()


def test_minigrid_through_a_wrapper(make_task):
    pytest.importorskip("minigrid", reason="needs the extra minigrid")
    env = {"id": "MiniGrid-Empty-5x5-v0", "wrappers": ["minigrid.wrappers:ImgObsWrapper"], "max_episode_steps": 20}
    problem = build(make_task("gymnasium", env=env, policy={"observation_scale": 0.1}), (0,))
    assert problem.reward(problem.sample(problem.initial_policy(), 0)).max() <= 1


@pytest.mark.parametrize("name", ["acrobot", "minigrid_doorkey"])
def test_tasks_outside_the_default_list_train_as_shipped(name):
    """Shorter episodes and fewer of them; environment, wrappers, outcome and policy are the file's own."""
    if name.startswith("minigrid"):
        pytest.importorskip("minigrid", reason="needs the extra minigrid")
    task = task_file.load(str(Path(__file__).resolve().parents[2] / "tasks" / f"{name}.yaml"))
    task = replace(task, steps=2, groups=1, group_size=8)
    task.sections["env"]["max_episode_steps"] = 25
    task.evaluation.update(prompts=2, samples=4)
    problem = build(task, (0, 1))
    start = [parameter.clone() for parameter in problem.initial_policy().parameters()]
    estimator = get("maxpo")

    class Uneven:  # no return differs so early: rewards apart, so that the update is seen too
        side = ()

        def __call__(self, rewards, k):
            return estimator(rewards + torch.arange(8.0), k=k)

    run = train(task, Uneven(), problem)
    assert run.step == 2 and not run.diverged and [row["seed"] for row in run.rows] == [0, 1]
    assert all(0 <= row["max_at_k"] <= 1 and row["episode_length"] <= 25 for row in run.rows)
    assert all((a != b).flatten(1).any(1).all() for a, b in zip(start, run.policy.parameters(), strict=True))


def test_missing_minigrid_is_one_clear_line():
    if importlib.util.find_spec("minigrid"):
        pytest.skip("minigrid is installed")
    task = task_file.load(str(Path(__file__).resolve().parents[2] / "tasks" / "minigrid_doorkey.yaml"))
    with pytest.raises(InputError, match=r"needs minigrid, which is not installed: pip install 'maxpo-bench\[minigrid\]'"):
        build(task, (0,))


def test_an_observation_outside_its_space_is_a_fault(make_task):
    problem = build(make_task("gymnasium", env={"id": "FrozenLake-v1"}), (0,))
    x = np.empty((2, problem.width), dtype=np.float32)
    for wrong in (-1, problem.width):
        with pytest.raises(Fault, match="an observation is not in Discrete"):
            problem._encode(np.array([0, wrong]), x)


def test_ended_rows_wait_for_the_masked_reset(make_task):
    """Autoreset is off where rows are apart, so that a group is a fixed set of whole episodes."""
    vector = GroupVectorEnv(make_task("gymnasium", env={"id": "FrozenLake-v1"}), 2)
    assert vector.env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.DISABLED
