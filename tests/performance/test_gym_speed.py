"""How fast the gym half is. Ratios of CPU times of one process, best of several: a busy machine matters little."""

import time
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from maxpo_bench.estimators import get
from maxpo_bench.problems import build
from maxpo_bench.settings import task_file
from maxpo_bench.training.loop import train

pytestmark = pytest.mark.performance
GYM_HALF = ("bandit", "local_optimum", "maze", "frozenlake", "cliffwalking", "cartpole")
NUM_ESTIMATORS, NUM_CORES, START_UP = 9, 2, 4.0  # seconds a cell's process needs before it samples


def best(run, repeats):
    """Least CPU seconds of `repeats` runs, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        times.append(time.process_time() - start)
    return min(times), result


def tabular_seconds_per_step():
    """CPU seconds of the tensor walk per environment step on FrozenLake 8x8, policy sampling included."""
    problem = build(task_file.load("frozenlake"), tuple(range(100, 110)))
    policy = problem.initial_policy()
    seconds, batch = best(lambda: problem.sample(policy, 0, groups=32), 10)
    return seconds / len(batch["pairs"])


def act_uniformly(rng, observations, table=np.tile([0.25, 0.5, 0.75], (64, 1))):  # noqa: B008
    """Inverse CDF over the policy's rows, as the vector environments' users do."""
    return (rng.random(len(observations))[:, None] >= table[observations]).sum(1).astype(np.int64)


def test_tabular_stepping_against_gymnasiums_sync_vector_environment():
    vector = gymnasium.make_vec("FrozenLake8x8-v1", 256, "sync")
    observations, rng = vector.reset(seed=0)[0], np.random.default_rng(0)

    def steps():
        nonlocal observations
        for _ in range(20):
            observations = vector.step(act_uniformly(rng, observations))[0]

    ratio = best(steps, 5)[0] / (20 * 256) / tabular_seconds_per_step()
    print(f"tabular stepping: {ratio:.0f} x SyncVectorEnv")
    assert ratio >= 50


def test_tabular_stepping_against_envpool():
    envpool = pytest.importorskip("envpool", reason="needs the extra envpool")
    pool = envpool.make("FrozenLake8x8-v1", env_type="gymnasium", num_envs=1024, num_threads=1, seed=0)
    observations, rng = pool.reset()[0], np.random.default_rng(0)

    def steps():
        nonlocal observations
        for _ in range(20):
            observations = pool.step(act_uniformly(rng, observations))[0]

    ratio = best(steps, 5)[0] / (20 * 1024) / tabular_seconds_per_step()
    print(f"tabular stepping: {ratio:.1f} x EnvPool")
    assert ratio >= 10


@pytest.mark.parametrize("name, limit", [("frozenlake", 2.5), ("cartpole", 4.0)])
def test_ten_seeds_against_one(name, limit):
    task, steps = task_file.load(name), {}
    for num_seeds in (1, 10):
        problem = build(task, tuple(range(100, 100 + num_seeds)))
        policy = problem.initial_policy()

        def step(problem=problem, policy=policy):
            batch = problem.sample(policy, 0)
            advantages = get("maxpo")(problem.reward(batch), k=task.k)
            (-(advantages * problem.log_probs(policy, batch)).mean((1, 2)).sum()).backward()

        steps[num_seeds] = step
    seconds = {1: [], 10: []}
    for _ in range(50):  # in turn, so that a neighbour on the same core slows both
        for num_seeds, step in steps.items():
            seconds[num_seeds].append(best(step, 1)[0])
    ratio = min(seconds[10]) / min(seconds[1])
    print(f"{name}: ten seeds cost {ratio:.2f} x one seed")
    assert ratio <= limit


@pytest.mark.parametrize("name, limit", [("frozenlake", 2.5), ("cartpole", 4.0)])
def test_ten_seeds_against_one_in_a_whole_training(name, limit):
    """train() as a cell runs it, first and last evaluation included, cut to 6 steps."""
    task = replace(task_file.load(name), steps=6)
    problems = {num_seeds: build(task, tuple(range(100, 100 + num_seeds))) for num_seeds in (1, 10)}
    seconds = {1: [], 10: []}
    for _ in range(8):  # in turn, so that a neighbour on the same core slows both
        for num_seeds, problem in problems.items():
            seconds[num_seeds].append(best(lambda problem=problem: train(task, get("maxpo"), problem), 1)[0])
    ratio = min(seconds[10]) / min(seconds[1])
    print(f"{name}: a training of ten seeds costs {ratio:.2f} x one of one seed")
    assert ratio <= limit


def shares_outside(monkeypatch, problem, policy, exempt, num_steps=20):
    """Share of each step of the loop spent outside the methods exempt, [(class or object, name)].

    By perf_counter: process_time is a system call, and a hundred of them per sample would be measured as overhead.
    """
    inside, depth, shares = 0.0, 0, []

    def timed(function):
        def run(*args, **kwargs):
            nonlocal inside, depth
            depth += 1
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1
                if not depth:  # one in another counts once
                    inside += time.perf_counter() - start

        return run

    with monkeypatch.context() as patch:
        for owner, name in exempt:
            patch.setattr(owner, name, timed(getattr(owner, name)))
        for step in range(num_steps):
            inside = 0.0
            start = time.perf_counter()
            batch = problem.sample(policy, step)
            advantages = get("maxpo")(problem.reward(batch), k=4)
            (-(advantages * problem.log_probs(policy, batch)).mean((1, 2)).sum()).backward()
            shares.append(1 - inside / (time.perf_counter() - start))
    return float(np.median(shares))


def test_overhead_on_a_native_vector_environment(monkeypatch):
    """Everything but the vector environment's own step and reset and the policy's forward and backward, as a share of the
    loop. The scalar resets that give a group its start, and all else that GroupVectorEnv does, are the suite's.
    """
    problem = build(task_file.load("cartpole"), tuple(range(100, 105)))
    policy = problem.initial_policy()
    problem.sample(policy, 0)
    (vector,) = problem.envs.values()
    exempt = [
        (type(policy), "forward"),
        (type(policy), "act"),
        (type(policy), "log_prob"),
        (torch.Tensor, "backward"),
        (vector.env, "step"),
        (vector.env, "reset"),
    ]
    share = float(np.median([shares_outside(monkeypatch, problem, policy, exempt) for _ in range(5)]))
    print(f"overhead on CartPole: {share:.1%} of the loop")
    assert share <= 0.15


def test_the_whole_gym_half():
    """One cell of each default task, half its seeds as in one worker; every cell of the half costs about the same."""
    total = 0.0
    for name in GYM_HALF:
        task = task_file.load(name)
        problem = build(task, tuple(range(100, 100 + task.seeds // NUM_CORES)))
        seconds, _ = best(lambda task=task, problem=problem: train(task, get("maxpo"), problem), 1)
        print(f"{name}: {seconds:.1f} s of CPU for {len(problem.seeds)} seeds")
        total += NUM_ESTIMATORS * (seconds + START_UP)
    print(f"gym half, {NUM_ESTIMATORS} estimators on {NUM_CORES} cores: {total / 60:.1f} min")
    assert total <= 360
