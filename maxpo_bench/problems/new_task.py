"""`maxpo-bench new-task NAME --env ID`: a task file for any gymnasium environment, fitted to random episodes."""

import math
import re
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files
from maxpo_bench.problems import build
from maxpo_bench.problems.envs.build import flattening, known_rewards, make_env
from maxpo_bench.problems.tabular import best_return, transitions
from maxpo_bench.settings import task_file

NUM_EPISODES = 20
CUT = 200  # time limit given to an environment that has none
STEP_BUDGET = 4_000_000  # environment steps that a cell's training may take, for environments stepped in Python
API = "reset(seed=...) must do without options, and step give (observation, reward, terminated, truncated, info)"

TEMPLATE = """\
# yaml-language-server: $schema=schema.json
# Written by `maxpo-bench new-task`. {num_episodes} random episodes: return {low:g} to {high:g}, {length:.0f} steps.
{note}version: 1
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
evaluation: {{every: {every}, prompts: {prompts}, samples: {samples}}}
score: {{success: {success}}}
"""


def create(name, env_id, root):
    """Writes <root>/tasks/<name>.yaml for the environment and says how to add it to the pipeline. Returns its path.

    InputError: bad name, the file exists, the environment is unknown or unsuited. Then nothing is written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name):
        raise InputError(f"task name {name[:100]!r}: letters, digits and _ only, at most 100")
    path = Path(root) / "tasks" / f"{name}.yaml"
    if path.exists():
        raise InputError(f"tasks/{name}.yaml exists already; choose another name or edit the file")
    with warnings.catch_warnings():  # what gymnasium says about an environment is said here, in one line
        warnings.simplefilter("ignore")
        text, note = written(path, env_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, text.encode())
    print(f"wrote tasks/{name}.yaml; add {name} to `tasks:` in params.yaml, then run: maxpo-bench run {name}")
    if note:
        print(note)
    return path


def written(path, env_id):
    """(text of the task file, a remark or ""), tried as a task would use it. InputError as in create."""
    section = {"id": env_id, "kwargs": {}, "wrappers": [], "max_episode_steps": 0, "backend": "gymnasium"}
    stub = SimpleNamespace(path=path, section=lambda _: section)
    env = make_env(stub)
    if not isinstance(env.observation_space, (gymnasium.spaces.Box, gymnasium.spaces.Discrete)):
        wrapper = flattening(env.observation_space, env_id)
        if wrapper is None:
            kind = type(env.observation_space).__name__
            raise InputError(f"env.id: {env_id}: observation space {kind} cannot be made a vector; write a wrapper and a task file")
        section["wrappers"] = [wrapper]
        env.close()
        env = make_env(stub)
    limit = (env.spec and env.spec.max_episode_steps) or CUT
    returns, lengths = random_episodes(env, env_id, limit)
    table = (
        all(isinstance(space, gymnasium.spaces.Discrete) for space in (env.action_space, env.observation_space))
        and isinstance(getattr(env.unwrapped, "P", None), dict) and not section["wrappers"]
    )  # fmt: skip
    best = best_return(transitions(env), limit) if table else known_rewards(stub, limit)[0]
    if best is not None and best <= min(returns):
        raise InputError(f"env.id: {env_id}: every episode of at most {limit} steps is worth {best:g}; there is nothing to learn")
    threshold = env.spec.reward_threshold if env.spec else None
    env.close()
    length = float(np.mean(lengths))
    groups = 16 if table else 4
    steps = 150 if table else int(np.clip(round(STEP_BUDGET / (10 * groups * 16 * length)), 20, 200))
    points, prompts, samples = (10, 8, 32) if steps > 100 else (4, 4, 16)  # no more time than the training takes
    outcome, success = fit_outcome(returns, threshold, best)
    note = ""
    if min(returns) == max(returns):
        note = f"All random episodes had the same return: a policy may find nothing to learn from within {steps} steps."
    text = TEMPLATE.format(
        num_episodes=NUM_EPISODES, low=min(returns), high=max(returns), length=length, env_id=env_id, limit=limit,
        kind="tabular" if table else "gymnasium", tags="tabular" if table else "mlp",
        outcome=outcome, success=success, note=note and f"# {note}\n",
        wrappers=f"  wrappers: [\"{section['wrappers'][0]}\"]\n" if section["wrappers"] else "",
        policy="" if table else "policy: {hidden: [32]}\n", groups=groups, steps=steps, lr=0.05 if table else 0.003,
        every=max(1, steps // points), prompts=prompts, samples=samples,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "tasks" / path.name
        draft.parent.mkdir()
        draft.write_text(text)
        attempt(task_file.load(str(draft)))
    return text, note


def attempt(task):
    """One group of two through all that a cell does with samples. InputError when anything in it breaks."""
    try:
        problem = build(task, (0,))
        problem.prepare()
        policy = problem.initial_policy()
        batch = problem.sample(policy, 0, groups=1, group_size=2)
        problem.reward(batch)
        problem.log_probs(policy, batch)
    except InputError:
        raise
    except Fault as error:
        raise InputError(" ".join(str(error).split())) from None


def random_episodes(env, env_id, limit):
    """(returns, lengths) of NUM_EPISODES episodes of random actions. InputError when the environment breaks on the way."""
    env.action_space.seed(0)
    returns, lengths = [], []
    for episode in range(NUM_EPISODES):
        _ask(env_id, "reset", lambda episode=episode: env.reset(seed=episode))
        total, length, over = 0.0, 0, False
        while not over and length < limit:
            _, reward, terminated, truncated, _ = _ask(env_id, "step", lambda: _five(env.step(env.action_space.sample())))
            total, length, over = total + float(reward), length + 1, terminated or truncated
        if not math.isfinite(total):
            raise InputError(f"env.id: {env_id} gave a reward that is not finite")
        returns.append(total)
        lengths.append(length)
    return returns, lengths


def _ask(env_id, what, call):
    try:
        return call()
    except Exception as error:  # an environment's own code: any exception type
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"env.id: {env_id}: {what} ended in {type(error).__name__}: {reason} ({API})") from None


def _five(result):
    if not isinstance(result, tuple) or len(result) != 5:
        raise TypeError(f"it gave {len(result) if isinstance(result, tuple) else type(result).__name__} values")
    reward = np.asarray(result[1])
    if reward.ndim or reward.dtype.kind not in "biuf":
        raise TypeError(f"the reward is not a number but {type(result[1]).__name__} {str(result[1])[:50]}")
    return result


def fit_outcome(returns, threshold, best=None):
    """The `outcome` line and the success threshold: 0/1 returns as they are, others mapped to [0, 1].

    0 is the worst return seen. 1 is the environment's reward_threshold where random episodes stay below it; else as far
    above the best return seen as the returns spread, but not above `best`, the best return there is (None: unknown), nor
    above 0 when all are negative, nor above what several episodes have in common as their best. A success is what the best
    random episode reached, at 1 the threshold: both within reach. Where all returns are 0, any gain of .5 is one.
    """
    low, high = min(returns), max(returns)
    if set(returns) <= {0.0, 1.0}:
        return "{type: return}", 1.0 if high == 1 else 0.5
    spread = high - low
    unit = 10.0 ** min(0, math.floor(math.log10(spread)) - 1) if spread else 1.0  # small returns keep two digits
    low = math.floor(low / unit) * unit
    if threshold is not None and threshold > np.median(returns) and threshold > low and (best is None or threshold <= best):
        return f"{{type: normalised, low: {low:.6g}, high: {threshold:g}}}", 1.0
    if spread == 0:
        return f"{{type: normalised, low: {low:.6g}, high: {low + 1 if best is None else min(low + 1, best):.6g}}}", 0.8
    top = high if returns.count(high) > 1 else math.ceil((high + spread) / unit) * unit
    top = min(top, math.inf if best is None else best, 0.0 if high < 0 else math.inf)
    return f"{{type: normalised, low: {low:.6g}, high: {top:.6g}}}", math.floor(100 * (high - low) / (top - low)) / 100
