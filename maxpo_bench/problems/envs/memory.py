"""Does an environment remember? A group's episodes must not depend on what was played before or beside them.

A seed then has the same bytes whatever the number of workers, and a run that was killed goes on as if it had not been.
An environment that keeps something between its episodes (a physics engine's caches, say) is made anew for each of them.
What is left is refused: wrappers with running statistics (NormalizeObservation, NormalizeReward), which mean something
only while they last, and whatever draws from numpy's global generator.
"""

import contextlib

import gymnasium
import numpy as np

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.problems.envs.build import GroupVectorEnv, make_env, place

STEPS = 200  # of each episode at most
MEMBERS = 2
PAIR, OTHERS = (11, 12), (13, 14)  # start seeds of the groups
TRIED = {}  # environment -> whether it remembers


def refuse_memory(task):
    """InputError that names the wrapper or the environment whose groups differ when they are played again.

    Episodes of random actions, the same ones each time. Takes as long as 44 episodes of at most STEPS steps.
    """
    section, anew = task.section("env"), remembers(task)
    what = difference(task, anew=anew) if anew or section["wrappers"] else None
    if what is None:
        return
    names = [f"env.id: {section['id']}", *(f"env.wrappers: {name}" for name in section["wrappers"])]
    guilty = len(names) - 1
    for n in range(guilty):  # from the inside; what cannot run without the wrappers around it is not to blame alone
        with contextlib.suppress(Fault, InputError):
            if difference(task, n, anew) is not None:
                guilty = n
                break
    raise InputError(
        f"{place(task)}: {names[guilty]}: {what}: it keeps something between episodes or draws random numbers that "
        "reset(seed) does not set, so results would depend on the number of workers and on restarts; "
        + ("leave it out" if guilty else "mend the environment")
    )


def remembers(task):
    """True when the environment, without its wrappers, must be made anew for each reset. Tried once per process."""
    section = task.section("env")
    key = repr([section[name] for name in ("id", "kwargs", "max_episode_steps", "backend")])
    if key not in TRIED:
        try:
            TRIED[key] = difference(task, 0) is not None
        except (Fault, InputError):  # whoever steps it will say so
            TRIED[key] = False
    return TRIED[key]


def difference(task, num_wrappers=None, anew=False):
    """In words, how the same group differs when it is played again; None when it does not.

    num_wrappers: only that many of the task's wrappers, the innermost ones. anew: environments are made for each reset.
    """
    env = make_env(task, num_wrappers)
    actions = {}  # (start seed, member) -> its actions
    for start in (*PAIR, *OTHERS):
        for member in range(MEMBERS):
            env.action_space.seed(10 * start + member)
            actions[start, member] = [env.action_space.sample() for _ in range(STEPS)]
    made = [env]  # a class may count its instances too: the second vector is made after the first was used

    def vector(num_groups):
        made.append(GroupVectorEnv(task, num_groups * MEMBERS, num_wrappers, anew))
        return made[-1]

    try:
        pair = vector(len(PAIR))
        first = play(pair, env, PAIR, actions)
        if any(first[start, 0][0] != first[start, member][0] for start in PAIR for member in range(MEMBERS)):
            return "the members of a group do not start from the same observation"
        for starts, when in (
            (PAIR, "played again"), (PAIR[::-1], "played in another order"), (OTHERS, ""), (PAIR, "played after other groups"),
        ):  # fmt: skip
            if differs(first, play(pair, env, starts, actions)):
                return f"the same group gives other observations or rewards when {when}"
        alone = vector(1)
        if any(differs(first, play(alone, env, [start], actions)) for start in PAIR):
            return "the same group gives other observations or rewards when played without its neighbour"
    finally:
        for one in made:
            one.close()
    return None


def differs(first, again):
    return any(again[key] != first[key] for key in again.keys() & first.keys())


def play(vector, env, starts, actions):
    """(start seed, member) -> its episode: bytes of the observations and rewards of each step.

    vector: a GroupVectorEnv; env: one of its environments, for the spaces.
    """
    keys = [(start, member) for start in starts for member in range(MEMBERS)]
    observations = vector.reset(np.array(starts), MEMBERS, lambda: np.array([10 * start + member for start, member in keys]))
    episodes = {key: [content] for key, content in zip(keys, contents(env, observations, len(keys)), strict=True)}
    empty = gymnasium.vector.utils.create_empty_array(env.action_space, len(keys))
    alive = np.ones(len(keys), dtype=bool)
    for t in range(STEPS):
        chosen = gymnasium.vector.utils.concatenate(env.action_space, [actions[key][t] for key in keys], empty)
        observations, rewards, ended = vector.step(chosen)
        for row, content in enumerate(contents(env, observations, len(keys))):
            if alive[row]:
                episodes[keys[row]].append((content, float(rewards[row]).hex(), bool(ended[row])))
        alive &= ~ended
        if not alive.any():
            break
        vector.retire(ended)
    return episodes


def contents(env, observations, num_rows):
    """Observations of a vector environment as one comparable thing per row; NaN equals NaN."""
    if isinstance(observations, np.ndarray):
        return [row.tobytes() for row in observations]
    batched = gymnasium.vector.utils.batch_space(env.observation_space, num_rows)
    return [leaves(row) for row in gymnasium.vector.utils.iterate(batched, observations)]


def leaves(value):
    """The arrays of a nested observation as bytes, texts and other things as they print."""
    if isinstance(value, dict):
        return [leaves(value[key]) for key in sorted(value)]
    if isinstance(value, tuple | list):
        return [leaves(entry) for entry in value]
    return value.tobytes() if isinstance(value, np.ndarray | np.generic) and value.dtype != object else repr(value)
