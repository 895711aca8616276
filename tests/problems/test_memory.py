"""Environments and wrappers that remember: made anew or refused, so that a seed has the same bytes whatever runs beside it."""

import gzip
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
import yaml

from maxpo_bench.errors import BadObservation, Fault, InputError
from maxpo_bench.problems import build
from maxpo_bench.problems.envs.memory import difference, refuse_memory, remembers

CARTPOLE = {"id": "CartPole-v1", "max_episode_steps": 40}
LAKE = {"id": "FrozenLake-v1", "max_episode_steps": 20}


class Noisy(gymnasium.Env):
    """Ends after five steps; where its noise, or its memory, comes from is its own affair."""

    observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    made = 0

    def __init__(self, source="own"):
        self.source, self.episodes = source, 0
        Noisy.made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age, self.episodes = 0, self.episodes + 1
        if self.source == "seeds the global one":
            np.random.seed(seed)
        if self.source == "start":
            return np.random.normal(size=2).astype(np.float32), {}
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.age += 1
        noise = {
            "own": self.np_random.random, "numpy": np.random.random, "random": random.random,
            "seeds the global one": np.random.random, "start": lambda: 0.0, "episodes": lambda: self.episodes,
            "instances": lambda: Noisy.made,
        }[self.source]()  # fmt: skip
        return np.full(2, noise, np.float32), float(noise), self.age == 5, False, {}


class Poisoned(gymnasium.ObservationWrapper):
    """The third observation of an episode has a value that is not finite; with a Box action the next step raises."""

    value = np.nan

    def reset(self, **arguments):
        self.seen = 0
        return super().reset(**arguments)

    def step(self, action):
        if not np.isfinite(np.asarray(action, dtype=np.float64)).all():
            raise ValueError("action is not finite")
        return super().step(action)

    def observation(self, observation):
        self.seen += 1
        observation = np.array(observation, dtype=np.float32)
        if self.seen == 3:
            observation[1] = self.value
        return observation


class Infinite(Poisoned):
    value = -np.inf


class Counting(gymnasium.RewardWrapper):
    """Pays more in every episode."""

    count = 0

    def reset(self, **arguments):
        self.count += 1
        return super().reset(**arguments)

    def reward(self, reward):
        return reward + self.count


if "TestNoisy-v0" not in gymnasium.registry:
    gymnasium.register("TestNoisy-v0", entry_point=Noisy, max_episode_steps=50)


@pytest.mark.parametrize("source", ["numpy", "random", "seeds the global one", "start", "instances"])
def test_randomness_that_reset_does_not_set_is_refused(make_task, source):
    problem = build(make_task("gymnasium", env={"id": "TestNoisy-v0", "kwargs": {"source": source}}), (0,))
    with pytest.raises(InputError, match="test.yaml: env.id: TestNoisy-v0: .*mend the environment") as caught:
        problem.prepare()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrappers, guilty",
    [
        (["gymnasium.wrappers:NormalizeObservation"], "gymnasium.wrappers:NormalizeObservation"),
        (["gymnasium.wrappers:NormalizeReward", "gymnasium.wrappers:FlattenObservation"], "gymnasium.wrappers:NormalizeReward"),
        (["gymnasium.wrappers:FlattenObservation", "mywrappers:Counting"], "mywrappers:Counting"),
    ],
    ids=str,
)
def test_the_wrapper_that_remembers_is_named(make_task, monkeypatch, wrappers, guilty):
    monkeypatch.setitem(sys.modules, "mywrappers", SimpleNamespace(Counting=Counting))
    problem = build(make_task("gymnasium", env={**CARTPOLE, "wrappers": wrappers}), (0,))
    with pytest.raises(InputError, match=f"test.yaml: env.wrappers: {guilty}: .*leave it out"):
        problem.prepare()


@pytest.mark.parametrize(
    "env",
    [
        CARTPOLE,
        LAKE,
        {"id": "Acrobot-v1", "max_episode_steps": 30},
        {"id": "TestNoisy-v0"},
        {**CARTPOLE, "wrappers": ["gymnasium.wrappers:FlattenObservation"]},
        {"id": "Blackjack-v1", "max_episode_steps": 9, "wrappers": ["gymnasium.wrappers:FlattenObservation"]},
    ],
    ids=str,
)
def test_environments_that_forget_pass(make_task, env):
    task = make_task("gymnasium", env=env, score={"success": -100.0})
    refuse_memory(task)
    assert not remembers(task) and difference(task) is None


def test_an_environment_that_counts_its_episodes_is_made_anew(make_task):
    """Every first episode of a new environment pays 1 a step, of an old one more."""
    task = make_task("gymnasium", env={"id": "TestNoisy-v0", "kwargs": {"source": "episodes"}})
    assert remembers(task) and "played again" in difference(task)
    problem = build(task, (0, 1))
    problem.prepare()
    for step in range(3):
        batch = problem.sample(problem.initial_policy(), step)
        assert (problem.reward(batch) == 5).all() and (batch["lengths"] == 5).all()


def test_box2d_gives_the_same_bytes_alone_and_after_others(make_task):
    """BipedalWalker keeps contacts between episodes: without new environments this differs."""
    pytest.importorskip("Box2D", reason="needs gymnasium[box2d]")
    env = {"id": "BipedalWalker-v3", "max_episode_steps": 60}
    task = make_task("gymnasium", env=env, groups=1, group_size=2, score={"success": 300.0})
    used, new = build(task, (3, 5)), build(task, (5,))
    used.sample(used.initial_policy(), 0)
    mine, theirs = new.sample(new.initial_policy(), 1), used.sample(used.initial_policy(), 1)
    assert torch.equal(new.reward(mine)[0], used.reward(theirs)[1])


@pytest.mark.parametrize("wrapper, env, text", [
    ("Poisoned", CARTPOLE, "nan in entry 1, step 2 of an episode .seed 4, training step 2"),
    ("Infinite", CARTPOLE, "-inf in entry 1, step 2 of an episode .seed 4, training step 2"),
    ("Poisoned", {"id": "Pendulum-v1", "max_episode_steps": 6}, "nan in entry 1, step 2 of an episode"),
])  # fmt: skip
def test_an_observation_that_is_not_finite_is_the_environments_fault(make_task, monkeypatch, wrapper, env, text):
    monkeypatch.setitem(sys.modules, "poison", SimpleNamespace(Poisoned=Poisoned, Infinite=Infinite))
    task = make_task("gymnasium", env={**env, "wrappers": [f"poison:{wrapper}"]}, score={"success": -1000.0})
    problem = build(task, (4,))
    problem.prepare()  # a NaN that comes each time is no memory
    with pytest.raises(BadObservation, match=f"test.yaml: env.id: {env['id']} gave an observation .* finite: {text}") as caught:
        problem.sample(problem.initial_policy(), 2)
    assert isinstance(caught.value, Fault) and caught.value.exit_code == 2 and "\n" not in str(caught.value)


NORM = """
version: 1
kind: gymnasium
title: norm
env: {{id: "{id}", max_episode_steps: 20, wrappers: [{wrapper}]}}
k: 2
group_size: 4
groups: 2
steps: 2
seeds: 4
optimiser: {{lr: 0.01}}
evaluation: {{prompts: 2, samples: 4}}
score: {{success: 20}}
"""
OWN = """
import gymnasium, numpy as np

class Poisoned(gymnasium.ObservationWrapper):
    seen = 0
    def reset(self, **arguments):
        self.seen = 0
        return super().reset(**arguments)
    def observation(self, observation):
        self.seen += 1
        return np.full(4, np.nan, np.float32) if self.seen == 3 else observation

gymnasium.register("Own/Pole-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=500)
"""


@pytest.fixture
def folder(tmp_path):
    """An empty project with a module of its own on the path."""
    (tmp_path / "ownpkg.py").write_text(OWN)

    def write(env_id, wrapper=""):
        (tmp_path / "norm.yaml").write_text(NORM.format(id=env_id, wrapper=wrapper))
        return tmp_path

    return write


@pytest.fixture
def run_package(run_cli):
    """run_package(folder, *words, **env): `maxpo-bench words` in a folder without a copy of the code."""
    path = f"{Path(__file__).resolve().parents[2]}"
    return lambda folder, *words, **env: run_cli(folder, *words, PYTHONPATH=path, **env)


@pytest.mark.slow
def test_a_normaliser_is_refused_before_the_old_base_is_touched(folder, run_package):
    where = folder("CartPole-v1")
    assert run_package(where, "base", "norm.yaml").returncode == 0
    before = {path: path.read_bytes() for path in where.rglob("base/norm/*") if path.is_file()}
    folder("CartPole-v1", '"gymnasium.wrappers:NormalizeObservation"')
    done = run_package(where, "base", "norm.yaml")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "norm.yaml: env.wrappers: gymnasium.wrappers:NormalizeObservation" in done.stderr
    assert len(before) >= 2 and before == {path: path.read_bytes() for path in before}


@pytest.mark.slow
def test_nan_observations_end_in_failed_with_the_name(folder, run_package):
    where = folder("CartPole-v1", '"ownpkg:Poisoned"')
    done = run_package(where, "base", "norm.yaml")
    assert done.returncode == 2 and "failed: norm/norm.yaml" in done.stdout.replace(where.name, "norm")
    assert "CartPole-v1 gave an observation that is not finite" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_environment_of_a_module_runs_with_any_number_of_workers(folder, run_package):
    where, curves = folder("ownpkg:Own/Pole-v0"), []
    for workers in ("1", "2", "4"):
        assert run_package(where, "base", "norm.yaml", MAXPO_BENCH_WORKERS=workers).returncode == 0
        done = run_package(where, "train", "norm.yaml", "rloo", MAXPO_BENCH_WORKERS=workers)
        assert done.returncode == 0, done.stderr
        (curve,) = where.rglob("norm/rloo/curve.csv.gz")
        curves.append(curve.read_bytes())
    assert len(set(curves)) == 1 and len(gzip.decompress(curves[0]).splitlines()) == 9
    done = run_package(where, "new-task", "own_pole", "--env", "ownpkg:Own/Pole-v0")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((where / "tasks" / "own_pole.yaml").read_text())["env"]["id"] == "ownpkg:Own/Pole-v0"


@pytest.mark.parametrize("env_id, message", [
    ("no_such_module:X-v0", "importing no_such_module failed: ModuleNotFoundError"),
    ("gymnasium:CartPol-v1", "unknown environment 'CartPol-v1', did you mean 'CartPole-v1'"),
])  # fmt: skip
def test_a_module_that_cannot_be_imported_is_one_line(make_task, env_id, message):
    with pytest.raises(InputError, match=message):
        build(make_task("gymnasium", env={"id": env_id}), (0,))


def test_a_module_and_an_id_as_in_gymnasium_make(make_task):
    problem = build(make_task("gymnasium", env={"id": "gymnasium.envs:CartPole-v1", "max_episode_steps": 10}), (0,))
    assert problem.sample(problem.initial_policy(), 0)["returns"].max() <= 10
    tabular = build(make_task("tabular", env={"id": "gymnasium.envs:FrozenLake-v1"}), (0,))
    assert tabular.num_states == 16
