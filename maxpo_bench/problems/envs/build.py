"""Environments from a task file's `env` section, with one clear line for everything that can be wrong with it.

Groups need two things a plain vector reset does not give: the members of a group start from the same state, and what
happens to them after that is independent.
"""

import importlib
from contextlib import contextmanager

import gymnasium
import numpy as np

import maxpo_bench.problems.envs  # noqa: F401  registers the suite's own environments
from maxpo_bench.errors import Fault, InputError, did_you_mean

EXTRAS = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid"}  # id prefix -> extra that registers it when imported


def extra(module, name):
    """Import an optional module; InputError that says what to install when it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        hint = f"pip install 'maxpo-bench[{module}]'"
        raise InputError(f"{name} needs {module}, which is not installed: {hint}") from None


def place(task):
    """The task file as messages name it: folder/name.yaml."""
    return f"{task.path.parent.name}/{task.path.name}"


def env_arguments(task, num_wrappers=None):
    """(id, keyword arguments of gymnasium.make, list of wrapper classes) of a task, checked against the registry.

    An id "module:Id" imports the module, which registers Id, as in gymnasium.make. num_wrappers: only the first so many.
    """
    section, where = task.section("env"), place(task)
    kwargs = dict(section["kwargs"])
    module, _, env_id = section["id"].rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # a module's own code: any exception type
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(f"{where}: env.id: {section['id']}: importing {module} failed: {reason}") from None
    for prefix, package in EXTRAS.items():
        if env_id.startswith(prefix):
            extra(package, f"{where}: env.id: {env_id}")
    if env_id not in gymnasium.registry:
        raise InputError(f"{where}: env.id: unknown environment {env_id!r}{did_you_mean(env_id, gymnasium.registry)}")
    if section["backend"] == "envpool":
        pool = extra("envpool", f"{where}: env.backend: envpool")
        if section["wrappers"] or env_id not in pool.list_all_envs():
            raise InputError(f"{where}: env.backend: EnvPool has no {env_id}, or not with wrappers; use gymnasium")
    wrappers = []
    for text in section["wrappers"][:num_wrappers]:
        module, _, name = str(text).partition(":")
        try:
            wrappers.append(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"{where}: env.wrappers: {text!r}: {error}; write module:Class") from None
    if section["max_episode_steps"]:
        kwargs["max_episode_steps"] = section["max_episode_steps"]
    return env_id, kwargs, wrappers


def make_env(task, num_wrappers=None):
    """One environment of a task. InputError when it cannot be made."""
    env_id, kwargs, wrappers = env_arguments(task, num_wrappers)
    env = _guarded(task, lambda: gymnasium.make(env_id, **kwargs))
    for text, wrapper in zip(task.section("env")["wrappers"], wrappers, strict=False):
        env = _guarded(task, lambda env=env, wrapper=wrapper: wrapper(env), f"env.wrappers: {text}")
    return env


def flattening(space, env_id):
    """The wrapper, as module:Class, that makes a vector of an observation space; None when none is known to."""
    if env_id.rpartition(":")[2].startswith(tuple(EXTRAS)):
        return "minigrid.wrappers:ImgObsWrapper"
    return "gymnasium.wrappers:FlattenObservation" if space.is_np_flattenable else None


def _guarded(task, build, what=""):
    """build(), with whatever an environment's constructor raises turned into one InputError. what: the key to blame."""
    try:
        return build()
    except InputError:
        raise
    except Exception as error:  # an environment's own code: any exception type
        reason = str(error).splitlines()[0] if str(error) else ""
        if not reason or isinstance(error, (KeyError, ArithmeticError)):  # their texts say little
            reason = f"{type(error).__name__}: {reason}".rstrip(": ")
            reason += f" with env.kwargs {task.section('env')['kwargs']}"
        raise InputError(f"{place(task)}: {what or 'env.id: ' + task.section('env')['id']}: {reason}") from None


def time_limit(env, task):
    """Steps after which an episode is cut. InputError when neither the task nor the environment says."""
    limit = task.section("env")["max_episode_steps"] or (env.spec and env.spec.max_episode_steps)
    if not limit:
        raise InputError(
            f"{place(task)}: env.max_episode_steps: {task.section('env')['id']} has no time limit of its own "
            "and may never end; set one"
        )
    return int(limit)


HIGHEST = {  # id without its version -> the largest reward of a step; and of an episode, None: that of each of its steps
    "CartPole": (1.0, None), "Acrobot": (0.0, 0.0), "MountainCar": (-1.0, -1.0), "MountainCarContinuous": (100.0, 100.0),
    "Pendulum": (0.0, 0.0), "Blackjack": (1.5, 1.5), "MiniGrid": (1.0, 1.0), "BabyAI": (1.0, 1.0),
}  # fmt: skip


def known_rewards(task, horizon):
    """(largest return, largest reward) of an environment whose rewards are known and untouched by a wrapper; else None twice."""
    env_id, kwargs, wrappers = env_arguments(task)
    name = env_id.split("-")[0]
    harmless = all(isinstance(wrapper, type) and issubclass(wrapper, gymnasium.ObservationWrapper) for wrapper in wrappers)
    if name not in HIGHEST or not harmless:
        return None, None
    reward, total = HIGHEST[name]
    if name == "Blackjack" and not kwargs.get("natural"):
        reward = total = 1.0
    return reward * horizon if total is None else total, reward


class Outcome:
    """The `outcome` section: what an episode is worth.

    return: the sum of rewards. success: 1 when the return reaches the threshold, else 0. final: the last reward.
    normalised: the return mapped so that low is 0 and high is 1, cut off at both ends.
    """

    def __init__(self, section):
        self.type, self.threshold = section["type"], section["threshold"]
        self.low, self.high = section["low"], section["high"]

    def __call__(self, returns, last):
        """returns, last: float64 tensors of one shape, an episode's sum of rewards and its last one."""
        if self.type == "success":
            return (returns >= self.threshold).double()
        if self.type == "normalised":
            return ((returns - self.low) / (self.high - self.low)).clamp(0, 1)
        return last if self.type == "final" else returns

    def highest(self, best_return, best_reward, where):
        """What no episode is worth more than, None when that is not known.

        best_return, best_reward: the largest return of an episode and reward of a step there are, None when not known.
        InputError (where: what it begins with) when outcome.threshold is out of reach.
        """
        if self.type == "success" and best_return is not None and best_return < self.threshold:
            raise InputError(
                f"{where}outcome.threshold: {self.threshold:g} can never be reached, the return is at most {best_return:g}"
            )
        if self.type == "normalised" and best_return is not None:
            return min(max((best_return - self.low) / (self.high - self.low), 0.0), 1.0)
        if self.type in ("success", "normalised"):
            return 1.0
        return best_reward if self.type == "final" else best_return

    def of_return(self, any_reward_midway):
        """True when the outcome is a function of the return alone."""
        return self.type != "final" or not any_reward_midway


@contextmanager
def faults(what):
    """Whatever an environment's own code raises becomes a Fault that names it."""
    try:
        yield
    except Exception as error:
        raise fault(what, error) from error


def fault(what, error):
    return Fault(f"{what}: {type(error).__name__}: {error}")


class GroupVectorEnv:
    """A gymnasium vector environment of num_envs rows, reset so that rows with one seed start alike.

    Native vector environments (a vector entry point, CartPole) are used where their state is an array [d, num_envs]
    of what the scalar environment calls state; everything else runs in SyncVectorEnv with AutoresetMode.DISABLED,
    where rows that have ended are reset by mask and then ignored, so that a group is a fixed set of whole episodes.
    With backend: envpool a pool is made for each reset, since EnvPool takes seeds only then; its rows of one seed share
    what happens after the start as well, so it suits environments that are random at the start only.
    With anew, environments are made for each reset: for those that keep something between episodes (envs/memory.py).
    Whatever the environment's own code raises becomes a Fault.
    """

    def __init__(self, task, num_envs, num_wrappers=None, anew=False):
        """num_wrappers: only so many of the task's wrappers, the innermost ones."""
        self.env_id, self.kwargs, wrappers = env_arguments(task, num_wrappers)
        self.num_envs, self.env = num_envs, None
        self.scalar = make_env(task, num_wrappers)
        if task.section("env")["backend"] == "envpool":
            self.mode = "envpool"
            return
        native = gymnasium.spec(self.env_id).vector_entry_point is not None and not wrappers
        native = native and hasattr(self.scalar.unwrapped, "state") and not self.env_id.startswith("phys2d/")
        self.mode = "vector_entry_point" if native else "sync"
        self.anew = anew and not native
        vector_kwargs = None if native else {"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}
        self.make = lambda: _guarded(task, lambda: gymnasium.make_vec(
            self.env_id, num_envs, self.mode, vector_kwargs, wrappers or None, **self.kwargs
        ))  # fmt: skip
        self.env = self.make()

    def reset(self, seeds, num_members, noise_seeds):
        """Start all rows, num_members side by side alike for each of the seeds. Returns observations [num_envs, ...].

        seeds: [num_envs / num_members] int array. noise_seeds() -> [num_envs] int, what drives each row after its start
        where rows are apart.
        """
        self.seeds = seeds.repeat(num_members).tolist()
        with faults(f"{self.env_id} raised in reset"):
            if self.mode == "vector_entry_point":
                return self._reset_native(seeds.tolist(), num_members)
            return self._reset_pool() if self.mode == "envpool" else self._reset_sync(noise_seeds)

    def _reset_sync(self, noise_seeds):
        if self.anew:
            self.env.close()
            self.env = self.make()
        observations, _ = self.env.reset(seed=self.seeds)
        for env, seed in zip(self.env.envs, noise_seeds(), strict=True):
            env.unwrapped.np_random = np.random.Generator(np.random.PCG64(int(seed)))
        return observations

    def _reset_native(self, seeds, num_members):
        self.env.reset(seed=0)
        vector, scalar, states = self.env.unwrapped, self.scalar.unwrapped, {}
        for seed in dict.fromkeys(seeds):
            scalar.reset(seed=seed)
            states[seed] = np.asarray(scalar.state, dtype=np.float64)
        vector.state = np.stack([states[seed] for seed in seeds], axis=1).repeat(num_members, axis=1)  # [d, num_envs]
        return vector.state.T.astype(vector.single_observation_space.dtype)

    def _reset_pool(self):
        self.env = importlib.import_module("envpool").make(
            self.env_id, env_type="gymnasium", num_envs=self.num_envs, num_threads=1, seed=self.seeds, **self.kwargs
        )
        return self.env.reset()[0]

    def step(self, actions):
        """actions: [num_envs, ...]. Returns (observations, rewards [num_envs], ended bool [num_envs])."""
        try:  # not `with faults`, which would cost as much as the rest of this method
            observations, rewards, terminated, truncated, _ = self.env.step(actions)
        except Exception as error:
            raise fault(f"{self.env_id} raised in step", error) from error
        return observations, rewards, terminated | truncated

    def retire(self, ended):
        """Make the rows in the mask legal to step again; what they do from now on is ignored."""
        if self.mode == "sync" and ended.any():
            with faults(f"{self.env_id} raised in reset"):
                self.env.reset(seed=self.seeds, options={"reset_mask": ended})

    def close(self):
        for env in (self.env, self.scalar):
            if env is not None:
                env.close()
