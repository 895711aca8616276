"""Tabular environments: arrays against the environments' own steps, walk against arrays, exact against sampled."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import maxpo_bench.problems.envs  # noqa: F401  registers the maze
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get
from maxpo_bench.policies.tabular import TabularPolicy
from maxpo_bench.problems import build
from maxpo_bench.problems.envs.build import make_env
from maxpo_bench.problems.tabular import TabularVectorEnv, split_starts, transitions
from maxpo_bench.settings import task_file
from maxpo_bench.training.evaluation import max_at_k
from maxpo_bench.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_TASKS = ("maze", "frozenlake", "cliffwalking")
LAKE = {"id": "FrozenLake-v1", "kwargs": {"map_name": "4x4"}, "max_episode_steps": 30}
MAZE = {"id": "maxpo_bench/Maze-v0", "kwargs": {"size": 7}, "max_episode_steps": 30}
TAXI = {"id": "Taxi-v4", "max_episode_steps": 30}
CLIFF = {"id": "CliffWalking-v1", "kwargs": {"is_slippery": True}, "max_episode_steps": 20}


def random_policy(problem, scale=1.0):
    """Logits drawn at random, so that a mistake cannot hide behind uniform actions."""
    shape = (len(problem.seeds), problem.num_states, problem.num_actions)
    return TabularPolicy(torch.as_tensor(np.random.default_rng(0).normal(size=shape) * scale))


@pytest.mark.parametrize("env", [LAKE, MAZE, TAXI, CLIFF, *DEFAULT_TASKS], ids=str)
def test_every_state_and_action_agrees_with_the_environments_own_steps(make_task, env):
    task = task_file.load(str(ROOT / "tasks" / f"{env}.yaml")) if isinstance(env, str) else make_task("tabular", env=env)
    real = make_env(task).unwrapped
    arrays = transitions(real)
    assert np.allclose(arrays.prob.sum(-1), 1) and np.isclose(arrays.start.sum(), 1)
    real.reset(seed=0)
    num_states, num_actions, num_outcomes = arrays.prob.shape
    draws = 1 if num_outcomes == 1 else 200
    for state in range(num_states):
        for action in range(num_actions):
            if arrays.done[state, action].all() and (arrays.next_state[state, action] == state).all():
                continue  # a terminal state: nobody steps from it
            expected = {}
            for m in np.flatnonzero(arrays.prob[state, action]):
                at = (state, action, m)
                key = (arrays.next_state[at], arrays.reward[at], arrays.done[at])
                expected[key] = expected.get(key, 0) + arrays.prob[state, action, m]
            seen = {}
            for _ in range(draws):
                real.s = state
                observation, reward, done, _, _ = real.step(action)
                key = (int(observation), float(reward), bool(done))
                seen[key] = seen.get(key, 0) + 1 / draws
            assert set(seen) <= set(expected)
            for key, p in expected.items():  # 5 standard errors: about one false alarm in a million
                assert abs(seen.get(key, 0) - p) <= 5 * np.sqrt(p * (1 - p) / draws) + 1e-9


@pytest.mark.parametrize("env", [LAKE, MAZE, TAXI, CLIFF], ids=lambda env: env["id"])
def test_start_states_come_as_often_as_the_environments_own_reset_draws_them(make_task, env):
    real = make_env(make_task("tabular", env=env))
    start = transitions(real).start
    real.reset(seed=0)
    seen = np.bincount([int(real.reset()[0]) for _ in range(3000)], minlength=len(start)) / 3000
    assert (np.abs(seen - start) <= 5 * np.sqrt(start * (1 - start) / 3000) + 1e-9).all()


def test_taxi_as_shipped_learns():
    task = replace(task_file.load(str(ROOT / "tasks" / "taxi.yaml")), steps=40)
    task.evaluation.update(every=5)
    run = train(task, get("maxpo"), build(task, (0,)))
    assert run.step == 40 and not run.diverged
    assert run.rows[0]["step"] == 5 and run.rows[-1]["max_at_k"] > run.rows[0]["max_at_k"] + 0.05  # .004 -> .12


@pytest.mark.parametrize("env", [LAKE, MAZE, CLIFF], ids=lambda env: env["id"])
def test_walk_replayed_step_by_step(make_task, env):
    problem = build(make_task("tabular", env=env, score={"success": -1000}), (0, 1))
    policy = random_policy(problem)
    batch = problem.sample(policy, 2)
    arrays, shape = problem.arrays, batch["shape"]
    rewards = torch.zeros(shape).flatten()
    for episode in range(rewards.numel()):
        pairs = batch["pairs"][batch["episodes"] == episode]
        seed, states, actions = pairs // (problem.num_states * 4), pairs // 4 % problem.num_states, pairs % 4
        s, g = divmod(episode // shape[2], shape[1])
        assert (seed == s).all() and states[0] == batch["starts"][s, g] and len(pairs) <= problem.horizon
        for here, action, there in zip(states[:-1], actions[:-1], states[1:], strict=True):
            live = (arrays.prob[here, action] > 0) & ~arrays.done[here, action]
            assert there in arrays.next_state[here, action][live]
        if len(pairs) < problem.horizon:  # it ended, so its last step can end
            assert (arrays.done[states[-1], actions[-1]] & (arrays.prob[states[-1], actions[-1]] > 0)).any()
    logs = problem.log_probs(policy, batch).flatten()
    table = policy.log_probs().flatten()
    assert torch.allclose(logs[3], table[batch["pairs"][batch["episodes"] == 3]].sum())


@pytest.mark.parametrize(
    "env, outcome",
    [
        (LAKE, {}),
        (MAZE, {}),
        (MAZE, {"type": "final"}),
        (CLIFF, {"type": "normalised", "low": -100, "high": -13}),
        (CLIFF, {"type": "success", "threshold": -60}),
    ],
    ids=str,
)
def test_sampled_max_at_k_agrees_with_exact(make_task, env, outcome):
    problem = build(make_task("tabular", env=env, outcome=outcome), (0, 1))
    policy = random_policy(problem)
    prompts = 8 * len(problem.held_out)
    result = problem.evaluate(policy, 0, prompts, 128)
    for k in (1, 4):
        sampled = max_at_k(result.rewards, k)  # [S, P]
        by_start = sampled.reshape(2, 8, -1)  # the held-out starts in turn
        error = np.maximum(by_start.std(1, ddof=1).mean(-1) / np.sqrt(prompts), 2e-3)
        assert (np.abs(sampled.mean(1) - problem.exact(policy, [k])[:, 0].detach().numpy()) < 4 * error).all()


def test_many_start_states_have_no_exact_reference(make_task):
    problem = build(make_task("tabular", env=TAXI), (0,))
    assert problem.exact(random_policy(problem), [1]) is None


def test_final_reward_with_rewards_on_the_way_has_no_exact_reference(make_task):
    problem = build(make_task("tabular", env=CLIFF, outcome={"type": "final"}, score={"success": -1}), (0,))
    policy = random_policy(problem)
    assert problem.exact(policy, [1]) is None and problem.exact_gradient(policy, {1: 1.0}) is None
    assert set(problem.reward(problem.sample(policy, 0)).unique().tolist()) <= {-1.0, -100.0}


@pytest.mark.parametrize("name, k", [("rloo", 1), ("maxpo", 3)])
def test_mean_of_advantage_times_score_is_the_exact_gradient(make_task, name, k):
    problem = build(make_task("tabular", env=MAZE), (0,))
    policy = random_policy(problem, 0.3)
    batch = problem.sample(policy, 0, groups=4000, group_size=6)
    advantages = get(name)(problem.reward(batch), k=k).view(1, -1, 1)
    products = (advantages * problem.scores(policy, batch)).view(4000, 6, -1).mean(1)  # [G, D]
    error = (products.std(0) / np.sqrt(4000)).clamp(min=1e-12)
    off = (products.mean(0) - problem.exact_gradient(policy, {k: 1.0})[0]).abs() / error
    assert off.max() < 5 and problem.exact_gradient(policy, {k: 1.0}).abs().max() > 0.01


def test_scores_and_norms_match_autograd(make_task):
    problem = build(make_task("tabular", env=LAKE), (0, 1))
    policy = random_policy(problem)
    batch = problem.sample(policy, 0)
    scores, log_probs = problem.scores(policy, batch), problem.log_probs(policy, batch).flatten(1)
    for s, i in ((0, 0), (1, 20)):
        (gradient,) = torch.autograd.grad(log_probs[s, i], policy.logits, retain_graph=True)
        assert torch.allclose(scores[s, i], gradient[s].flatten(), atol=1e-12)
    pairs = batch["pairs"][batch["episodes"] == 5]
    probs = policy.log_probs().exp().reshape(-1, 4)[pairs // 4]
    norm = (torch.nn.functional.one_hot(pairs % 4, 4) - probs).square().sum()
    assert torch.allclose(problem.score_norms(batch).flatten()[5], norm)
    assert problem.lengths(batch).shape == problem.reward(batch).shape
    assert problem.lengths(batch).flatten()[5] == len(pairs) and problem.lengths(batch).unique().numel() > 2


@pytest.mark.parametrize("env", [LAKE, TAXI], ids=lambda env: env["id"])
def test_a_seed_does_not_depend_on_its_neighbours(make_task, env):
    task = make_task("tabular", env=env, outcome={"type": "normalised", "low": -30, "high": 1})
    alone, together = build(task, (5,)), build(task, (9, 5, 2))
    one, all_three = alone.initial_policy(), together.initial_policy()
    batch, batches = alone.sample(one, 4), together.sample(all_three, 4)
    assert torch.equal(together.reward(batches)[1], alone.reward(batch)[0])
    assert torch.equal(together.log_probs(all_three, batches)[1], alone.log_probs(one, batch)[0])
    assert np.array_equal(together.evaluate(all_three, 1, 4, 8).rewards[1], alone.evaluate(one, 1, 4, 8).rewards[0])


def test_groups_share_a_start_and_held_out_starts_are_never_trained_on(make_task):
    problem = build(make_task("tabular", env=TAXI), (0,))
    starts = problem.sample(problem.initial_policy(), 0, groups=500, group_size=2)["starts"]
    assert len(np.unique(starts)) > 100 and not np.isin(starts, problem.held_out).any()
    assert len(problem.held_out) == 75 and len(problem.train_starts) == 225
    assert split_starts(np.array([0.0, 1.0, 0.0]))[2].tolist() == [1]


def test_vector_environment_follows_the_same_dynamics():
    env = gymnasium.make("FrozenLake-v1", max_episode_steps=10)
    vector = TabularVectorEnv(env, 2000)
    assert vector.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.DISABLED
    observations, _ = vector.reset(seed=1)
    ended_before = np.zeros(2000, dtype=bool)
    actions = np.full(2000, 2)
    for t in range(10):
        before = observations
        observations, rewards, terminated, truncated, _ = vector.step(actions)
        assert (observations[ended_before] == before[ended_before]).all() and (rewards[ended_before] == 0).all()
        assert not (terminated & truncated).any() and truncated.any() == (t == 9)
        if t == 0:  # right on ice: right, up (wall: stays) or down, a third each
            assert np.allclose(np.bincount(observations, minlength=5)[[0, 1, 4]] / 2000, 1 / 3, atol=0.05)
        ended_before |= terminated | truncated
    assert ended_before.all()
    mask = np.arange(2000) < 7
    observations, _ = vector.reset(options={"reset_mask": mask})
    assert (observations[mask] == 0).all() and not vector.ended[mask].any() and vector.ended[~mask].all()


def test_a_table_whose_chances_do_not_add_up_is_refused():
    env = gymnasium.make("FrozenLake-v1")
    env.unwrapped.P[3][1] = [(0.6, 4, 0.0, False)]
    with pytest.raises(InputError, match="FrozenLake-v1: its transition table holds states or probabilities"):
        transitions(env)


def test_maze_is_what_it_says():
    maze = gymnasium.make("maxpo_bench/Maze-v0", size=9, layout=3).unwrapped
    again = gymnasium.make("maxpo_bench/Maze-v0", size=9, layout=3).unwrapped
    other = gymnasium.make("maxpo_bench/Maze-v0", size=9, layout=4).unwrapped
    assert maze.P == again.P and maze.P != other.P
    ends = {(r, p) for row in maze.P.values() for outcomes in row.values() for p, _, r, _ in outcomes if r > 0}
    assert ends == {(1.0, 0.4), (0.5, 1.0)}  # the guarded goal and the decoy, and nothing else pays
    assert maze.render().count("G") == maze.render().count("D") == 1 and "@" in maze.render()
    with pytest.raises(ValueError, match="size=4"):
        gymnasium.make("maxpo_bench/Maze-v0", size=4)


@pytest.mark.parametrize(
    "env, message",
    [
        ({"id": "FrozenLake-v9"}, "FrozenLake"),
        ({"id": "FrozenLak-v1"}, "did you mean 'FrozenLake-v1'"),
        ({"id": "FrozenLake-v1", "kwargs": {"map": "8x8"}}, "map"),
        ({"id": "CliffWalking-v1"}, "max_episode_steps: CliffWalking-v1 has no time limit"),
        ({"id": "CartPole-v1"}, "test.yaml: env.id: CartPole-v1 publishes no transition table"),
        ({"id": "FrozenLake-v1", "wrappers": ["gymnasium.wrappers:NormalizeReward"]}, "wrappers and envpool have no part"),
        ({"id": "FrozenLake-v1", "kwargs": {"map_name": "9x9"}}, "KeyError: '9x9' with env.kwargs"),
        ({"id": "maxpo_bench/Maze-v0", "kwargs": {"guard": 2}}, r"guard=2, .*must be in \[0, 1\]"),
        ({"id": "maxpo_bench/Maze-v0", "kwargs": {"num_starts": 0}}, "num_starts=0: at least 1"),
        ({"id": "Pendulum-v1"}, "kind tabular needs discrete actions"),
        ({"id": "MiniGrid-Empty-5x5-v0"}, r"needs minigrid, which is not installed: pip install 'maxpo-bench\[minigrid\]'"),
    ],
    ids=str,
)
def test_bad_environments_are_one_clear_line(make_task, env, message):
    if "MiniGrid" in env["id"] and importlib.util.find_spec("minigrid"):
        pytest.skip("minigrid is installed")
    with pytest.raises(InputError, match=message) as caught:
        build(make_task("tabular", env=env), (0,))
    assert "\n" not in str(caught.value)


def test_a_success_that_no_episode_can_reach_is_refused(make_task):
    """Every step along the cliff costs: without score.success the default of 1 would call all episodes failures."""
    with pytest.raises(InputError, match="score.success: 1 can never be reached"):
        build(make_task("tabular", env=CLIFF), (0,))
    build(make_task("tabular", env=CLIFF, score={"success": -50}), (0,))
