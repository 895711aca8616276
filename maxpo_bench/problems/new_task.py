"""`maxpo-bench new-task NAME --env ID`: a task file for any gymnasium environment, fitted to random episodes."""

import math
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np

from maxpo_bench.errors import InputError
from maxpo_bench.problems import build
from maxpo_bench.problems.envs.build import make_env
from maxpo_bench.settings import task_file

NUM_EPISODES = 20
CUT = 200  # time limit given to an environment that has none
STEP_BUDGET = 4_000_000  # environment steps that a cell's training may take, for environments stepped in Python

TEMPLATE = """\
# yaml-language-server: $schema=schema.json
# Written by `maxpo-bench new-task`. {num_episodes} random episodes: return {low:g} to {high:g}, {length:.0f} steps.
version: 1
kind: {kind}
tags: [{tags}]
title: {env_id}
env:
  id: {env_id}
{wrappers}  max_episode_steps: {limit}
outcome: {outcome}
{policy}k: 4
group_size: 16
groups: {groups}
steps: {steps}
optimiser: {{name: adam, lr: {lr}}}
evaluation: {{every: {every}, prompts: 8, samples: 32}}
score: {{success: {success}}}
"""


def create(name, env_id, root):
    """Writes <root>/tasks/<name>.yaml for the environment and says how to add it to the pipeline. Returns its path.

    InputError: bad name, the file exists, the environment is unknown or unsuited. Then nothing is written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise InputError(f"task name {name!r}: letters, digits and _ only")
    path = Path(root) / "tasks" / f"{name}.yaml"
    if path.exists():
        raise InputError(f"tasks/{name}.yaml exists already; choose another name or edit the file")
    section = {"id": env_id, "kwargs": {}, "wrappers": [], "max_episode_steps": 0, "backend": "gymnasium"}
    env = make_env(SimpleNamespace(path=path, section=lambda _: section))
    limit = (env.spec and env.spec.max_episode_steps) or CUT
    returns, lengths = random_episodes(env, limit)
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    table = discrete and isinstance(getattr(env.unwrapped, "P", None), dict)
    nested = isinstance(env.observation_space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple))
    threshold = env.spec.reward_threshold if env.spec else None
    env.close()
    length = float(np.mean(lengths))
    groups = 16 if table else 4
    steps = 150 if table else int(np.clip(round(STEP_BUDGET / (10 * groups * 16 * length)), 20, 200))
    outcome, success = fit_outcome(returns, threshold)
    text = TEMPLATE.format(
        num_episodes=NUM_EPISODES, low=min(returns), high=max(returns), length=length, env_id=env_id, limit=limit,
        kind="tabular" if table else "gymnasium", tags="tabular" if table else "mlp",
        outcome=outcome, success=success,
        wrappers='  wrappers: ["gymnasium.wrappers:FlattenObservation"]\n' if nested else "",
        policy="" if table else "policy: {hidden: [32]}\n", groups=groups, steps=steps, lr=0.05 if table else 0.003,
        every=max(1, steps // 10),
    )
    with tempfile.TemporaryDirectory() as folder:  # the file must load and build before it takes its place
        draft = Path(folder) / "tasks" / path.name
        draft.parent.mkdir()
        draft.write_text(text)
        build(task_file.load(str(draft)), (0,))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"wrote tasks/{name}.yaml; add {name} to `tasks:` in params.yaml, then run: maxpo-bench repro {name}")
    return path


def random_episodes(env, limit):
    """(returns, lengths) of NUM_EPISODES episodes of random actions. InputError when a reward is not finite."""
    env.action_space.seed(0)
    returns, lengths = [], []
    for episode in range(NUM_EPISODES):
        env.reset(seed=episode)
        total, length, over = 0.0, 0, False
        while not over and length < limit:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, length, over = total + float(reward), length + 1, terminated or truncated
        if not math.isfinite(total):
            raise InputError(f"env.id: {env.spec.id} gave a reward that is not finite")
        returns.append(total)
        lengths.append(length)
    return returns, lengths


def fit_outcome(returns, threshold):
    """The `outcome` line and the success threshold: 0/1 returns as they are, others mapped to [0, 1].

    0 is the worst return seen. 1 is the environment's reward_threshold, or as far above the best return seen as the
    returns spread, though not above 0 when all are negative; then .8 counts as a success.
    """
    low, high = math.floor(min(returns)), max(returns)
    if set(returns) <= {0.0, 1.0}:
        return "{type: return}", 1.0
    if threshold is not None and threshold > low:
        return f"{{type: normalised, low: {low}, high: {threshold:g}}}", 1.0
    top = math.ceil(2 * high - low) if high > low else low + 1
    return f"{{type: normalised, low: {low}, high: {min(top, 0) if high < 0 else top}}}", 0.8
