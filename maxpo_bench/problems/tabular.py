"""Gymnasium environments that publish their transitions (env.unwrapped.P), stepped as tensors at memory speed.

The dictionary becomes arrays [nS, nA, M]; all seeds, groups and episodes are one flat list of rows that walks through
them. One uniform number per step picks action and outcome together, by inverse CDF. A group shares its start state.
"""

from dataclasses import dataclass

import gymnasium
import numpy as np
import torch

from maxpo_bench.errors import InputError
from maxpo_bench.measure import exact
from maxpo_bench.policies.tabular import TabularPolicy, entropy, table_score_norms, table_scores
from maxpo_bench.problems import Evaluation, Problem
from maxpo_bench.problems.envs.build import Outcome, make_env, place, time_limit
from maxpo_bench.training.streams import generator

NOISE_CHUNK = 32  # time steps of noise drawn at once; the stream's prefix does not depend on how many are needed
MAX_EXACT_STARTS = 16  # the exact reference carries a distribution per start; beyond this it costs more than training


@dataclass
class Transitions:
    """A tabular environment as arrays; the M outcomes of an action are padded with probability 0."""

    prob: np.ndarray
    """[nS, nA, M] float64"""
    next_state: np.ndarray
    """[nS, nA, M] int64"""
    reward: np.ndarray
    """[nS, nA, M] float64"""
    done: np.ndarray
    """[nS, nA, M] bool, the outcome ends the episode"""
    start: np.ndarray
    """[nS] float64, distribution of the first state"""


def transitions(env, where=""):
    """Transitions of a gymnasium environment. InputError when it publishes no P, a wrong one, or has other spaces.

    where: the task file, what a message begins with.
    """
    name = f"{where}env.id: {env.spec.id if env.spec else type(env.unwrapped).__name__}"
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        raise InputError(f"{name} has action space {env.action_space}; kind tabular needs discrete actions, use kind: gymnasium")
    table = getattr(env.unwrapped, "P", None)
    if not isinstance(table, dict) or not isinstance(env.observation_space, gymnasium.spaces.Discrete):
        raise InputError(f"{name} publishes no transition table (env.unwrapped.P); use kind: gymnasium")
    num_states, num_actions = int(env.observation_space.n), int(env.action_space.n)
    num_outcomes = max(len(outcomes) for row in table.values() for outcomes in row.values())
    shape = (num_states, num_actions, num_outcomes)
    prob, reward, done = np.zeros(shape), np.zeros(shape), np.ones(shape, dtype=bool)
    next_state = np.repeat(np.arange(num_states), num_actions * num_outcomes).reshape(shape)  # absent rows: absorbing
    for state, row in table.items():
        for action, outcomes in row.items():
            for m, (p, target, r, end) in enumerate(outcomes):
                prob[state, action, m], next_state[state, action, m] = p, target
                reward[state, action, m], done[state, action, m] = r, end
    prob[..., 0] += prob.sum(-1) == 0
    if not (prob >= 0).all() or not np.allclose(prob.sum(-1), 1) or not ((0 <= next_state) & (next_state < num_states)).all():
        raise InputError(f"{name}: its transition table holds states or probabilities that do not exist")
    if not np.isfinite(reward).all():
        raise InputError(f"{name}: its transition table holds rewards that are not finite")
    start = getattr(env.unwrapped, "initial_state_distrib", None)
    if start is None:  # unknown to the environment's class: ask its reset
        start = np.bincount([int(env.reset(seed=i)[0]) for i in range(1000)], minlength=num_states)
    start = np.asarray(start, dtype=np.float64)
    return Transitions(prob, next_state, reward, done, start / start.sum())


def best_return(arrays, horizon):
    """The largest return an episode of at most horizon steps can have, were every chance to fall well."""
    gain = np.where(arrays.prob > 0, arrays.reward, -np.inf)  # [nS, nA, M]
    value = np.zeros(len(arrays.start))
    for _ in range(horizon):
        value = (gain + np.where(arrays.done, 0.0, value[arrays.next_state])).max((1, 2))
    return float(value[arrays.start > 0].max())


class Walker:
    """Tables of one environment, repeated for S seeds so that a row number seed * nS + state is all that is carried."""

    def __init__(self, arrays, num_seeds):
        self.num_states, self.num_actions, self.num_outcomes = arrays.prob.shape
        self.width = self.num_actions * self.num_outcomes  # an edge is row * width + action * M + outcome
        self.prob = torch.as_tensor(arrays.prob)  # [nS, nA, M]
        offset = torch.arange(num_seeds).view(-1, 1, 1, 1) * self.num_states
        next_row = torch.as_tensor(arrays.next_state) + offset
        # By edge. Look-ups, because dividing an int64 tensor is ten times slower than indexing it.
        self.next_row = torch.where(torch.as_tensor(arrays.done), -1, next_row).flatten()  # -1: the episode ends
        self.reward = torch.as_tensor(arrays.reward).repeat(num_seeds, 1, 1, 1).flatten()
        self.pair = torch.arange(len(self.reward) // self.num_outcomes).repeat_interleave(self.num_outcomes)

    def walk(self, log_probs, rows, horizon, noise):
        """Steps every row until it ends or the horizon cuts it.

        log_probs: [S, nS, nA]; rows: [B] long, seed * nS + start state; noise(t): uniform float32 [B] of step t, in
        [0, 1). Returns (edges [L], episodes [L]): L steps in all, in time order; episode = which of the B rows.
        """
        cdf = (log_probs.exp().unsqueeze(-1) * self.prob).reshape(-1, self.width).cumsum(-1)
        # Divided by the total, so that an outcome of probability 0 at the end of a row is never picked.
        cdf = (cdf / cdf[:, -1:]).float()  # [S * nS, width]
        episodes = torch.arange(len(rows))
        edges, visitors = [], []
        for t in range(horizon):
            u = noise(t) if len(episodes) == len(noise(t)) else noise(t).index_select(0, episodes)
            pick = torch.searchsorted(cdf.index_select(0, rows), u.unsqueeze(1), right=True).squeeze(1)
            edge = pick.add_(rows, alpha=self.width)
            edges.append(edge)
            visitors.append(episodes)
            rows = self.next_row.index_select(0, edge)
            stay = (rows >= 0).nonzero().squeeze(1)
            if len(stay) == 0:
                break
            if len(stay) < len(rows):
                rows, episodes = rows.index_select(0, stay), episodes.index_select(0, stay)
        return torch.cat(edges), torch.cat(visitors)


def noise_source(generators, num_episodes):
    """noise(t) -> float32 [S * num_episodes], drawn in chunks of time steps from one generator per seed."""
    chunks = []

    def noise(t):
        if t // NOISE_CHUNK == len(chunks):
            drawn = np.empty((len(generators), NOISE_CHUNK, num_episodes), dtype=np.float32)
            for g, numbers in zip(generators, drawn, strict=True):
                g.random(out=numbers, dtype=np.float32)
            chunks.append(torch.from_numpy(drawn).transpose(0, 1).flatten(1).unbind(0))
        return chunks[t // NOISE_CHUNK][t % NOISE_CHUNK]

    return noise


def split_starts(start):
    """Training and held-out start states: every fourth possible start is held out; a single one serves both.

    start: [nS] distribution. Returns (training states, training probabilities, held-out states).
    """
    states = np.flatnonzero(start > 0)
    if len(states) < 4:
        return states, start[states] / start[states].sum(), states
    held_out = states[3::4]
    training = np.setdiff1d(states, held_out)
    return training, start[training] / start[training].sum(), held_out


class Tabular(Problem):
    """kind: tabular. A batch is a dict: returns [S, G, N]; for each of the L steps its pair [L], a number (seed * nS +
    state) * nA + action, and episode [L]; starts [S, G]; log_probs [S, nS, nA] of the sampling policy.
    """

    def __init__(self, task, seeds, base=None):
        super().__init__(task, seeds, base)
        section = task.section("env")
        if section["wrappers"] or section["backend"] != "gymnasium":
            raise InputError(f"{place(task)}: env: kind tabular steps the published table, wrappers and envpool have no part in it")
        env = make_env(task)
        self.horizon = time_limit(env, task)
        self.arrays = transitions(env, f"{place(task)}: ")
        env.close()
        self.any_reward_midway = bool((self.arrays.reward[~self.arrays.done] != 0).any())
        self.outcome = Outcome(task.section("outcome"))
        best_reward = float(self.arrays.reward[self.arrays.prob > 0].max())
        self.highest_reward = self.outcome.highest(best_return(self.arrays, self.horizon), best_reward, f"{place(task)}: ")
        self.walker = Walker(self.arrays, len(self.seeds))
        self.num_states, self.num_actions = self.walker.num_states, self.walker.num_actions
        self.train_starts, self.train_chances, self.held_out = split_starts(self.arrays.start)
        self.plans = {}

    def initial_policy(self):
        return TabularPolicy(torch.zeros(len(self.seeds), self.num_states, self.num_actions, dtype=torch.float64))

    def _walk(self, policy, starts, num_members, generators):
        """starts: [S, G] int states. Returns the batch dict."""
        log_probs = policy.log_probs().detach()
        num_seeds, num_groups = starts.shape
        rows = torch.as_tensor(starts + np.arange(num_seeds)[:, None] * self.num_states)  # [S, G]
        rows = rows.repeat_interleave(num_members, dim=1)
        noise = noise_source(generators, num_groups * num_members)
        edges, episodes = self.walker.walk(log_probs, rows.flatten(), self.horizon, noise)
        rewards = self.walker.reward.index_select(0, edges)  # [L]
        num_episodes = num_seeds * num_groups * num_members
        batch = {
            "shape": (num_seeds, num_groups, num_members),
            "starts": starts,
            "log_probs": log_probs,
            "pairs": self.walker.pair.index_select(0, edges),
            "episodes": episodes,
            "returns": rewards.new_zeros(num_episodes).index_add_(0, episodes, rewards).view(num_seeds, num_groups, -1),
        }
        if self.outcome.type == "final":
            steps = torch.arange(len(edges))
            final = torch.zeros(num_episodes, dtype=torch.int64).scatter_reduce_(0, episodes, steps, "amax")
            batch["last"] = rewards[final].view(batch["shape"])
        return batch

    @torch.no_grad()
    def sample(self, policy, step, purpose="train", groups=None, group_size=None):
        generators = [generator(self.task.name, seed, purpose, step) for seed in self.seeds]
        num_groups = groups or self.task.groups
        starts = [g.choice(self.train_starts, size=num_groups, p=self.train_chances) for g in generators]
        return self._walk(policy, np.stack(starts), group_size or self.task.group_size, generators)

    def reward(self, batch):
        return self.outcome(batch["returns"], batch.get("last"))

    def _sum_by_episode(self, table, batch):
        """table: [S, nS, nA] -> its sum over the steps of every episode, [S, G, N]."""
        steps = table.flatten().index_select(0, batch["pairs"])  # [L]
        return table.new_zeros(batch["returns"].numel()).index_add(0, batch["episodes"], steps).view(batch["shape"])

    def log_probs(self, policy, batch, rows=None):
        log_probs = self._sum_by_episode(policy.log_probs(), batch)
        return log_probs if rows is None else log_probs.flatten()[rows]

    def score_norms(self, batch):
        return self._sum_by_episode(table_score_norms(batch["log_probs"]), batch)

    def lengths(self, batch):
        return torch.bincount(batch["episodes"], minlength=batch["returns"].numel()).view(batch["shape"])

    @torch.no_grad()
    def scores(self, policy, batch):
        num_seeds, num_groups, num_members = batch["shape"]
        width = self.num_states * self.num_actions
        counts = torch.zeros(num_seeds * num_groups * num_members * width, dtype=torch.float64)
        visits = batch["episodes"] * width + batch["pairs"] % width  # [L]
        counts.index_add_(0, visits, torch.ones(len(visits), dtype=torch.float64))
        counts = counts.view(num_seeds, num_groups * num_members, self.num_states, self.num_actions)
        return table_scores(policy.log_probs(), counts)

    def evaluation_starts(self, prompts):
        """The start states of an evaluation: the held-out ones in turn, [prompts] int."""
        return np.resize(self.held_out, prompts)

    @torch.no_grad()
    def evaluate(self, policy, step, prompts, samples):
        generators = [generator(self.task.name, seed, "evaluation", step) for seed in self.seeds]
        starts = np.tile(self.evaluation_starts(prompts), (len(self.seeds), 1))
        batch = self._walk(policy, starts, samples, generators)
        lengths = self.lengths(batch).double().mean((1, 2))
        extras = {"table_entropy": entropy(batch["log_probs"]), "episode_length": lengths.tolist()}
        return Evaluation(self.reward(batch).numpy(), extras)

    def _exact(self, policy, ks, starts, chances):
        """J_k averaged over start states (a group shares its start): [S, len(ks)].

        None when the outcome is not a function of the return, or the start states are more than MAX_EXACT_STARTS.
        """
        if len(starts) > MAX_EXACT_STARTS or not self.outcome.of_return(self.any_reward_midway):
            return None
        key = tuple(starts)
        if key not in self.plans:
            a = self.arrays
            one_hot = np.eye(self.num_states)[list(starts)]  # [B, nS]
            self.plans[key] = exact.return_plan(a.prob, a.next_state, a.reward, a.done, one_hot, self.horizon)
        values, probs = exact.return_distribution(self.plans[key], policy.logits)  # [V], [S, B, V]
        values = self.outcome(values, values)
        weights = torch.as_tensor(np.asarray(chances, dtype=np.float64))
        return torch.stack([(exact.expected_max(values, probs, k) * weights).sum(-1) for k in ks], dim=1)

    def exact(self, policy, ks):
        """Of the held-out start states that evaluate draws from, when it draws each of them equally often."""
        return self._exact(policy, ks, self.held_out, np.full(len(self.held_out), 1 / len(self.held_out)))

    def exact_gradient(self, policy, weights):
        """Of the training start states, which is what the samples' gradient estimates."""
        with torch.enable_grad():
            values = self._exact(policy, list(weights), self.train_starts, self.train_chances)
            if values is None:
                return None
            value = values @ torch.tensor(list(weights.values()), dtype=torch.float64)
            (gradient,) = torch.autograd.grad(value.sum(), policy.logits)
        return gradient.flatten(1)


class TabularVectorEnv(gymnasium.vector.VectorEnv):
    """The same dynamics behind gymnasium's vector interface. Autoreset is disabled: reset ended rows with a mask.

    A row that has ended stays where it is and pays 0 until it is reset. Actions and observations are int64 arrays.
    """

    def __init__(self, env, num_envs):
        """env: an environment that publishes P and has a time limit."""
        self.num_envs, self.arrays, self.horizon = num_envs, transitions(env), env.spec.max_episode_steps
        self.metadata = {**env.metadata, "autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(env.observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(env.action_space, num_envs)
        self.cdf = self.arrays.prob.cumsum(-1)  # [nS, nA, M]
        self.cdf /= self.cdf[..., -1:]
        self.states, self.ages = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.int64)
        self.ended = np.ones(num_envs, dtype=bool)

    def reset(self, *, seed=None, options=None):
        """seed: one int for the whole batch, or None to go on with the stream.

        options: {"reset_mask": bool array [num_envs]}, the rows to reset; default all.
        """
        super().reset(seed=seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        start = self.arrays.start
        self.states[mask] = self.np_random.choice(len(start), size=int(mask.sum()), p=start)
        self.ages[mask], self.ended[mask] = 0, False
        return self.states.copy(), {}

    def step(self, actions):
        noise = self.np_random.random(self.num_envs)
        outcome = (noise[:, None] >= self.cdf[self.states, actions]).sum(1)  # [num_envs]
        at = (self.states, actions, outcome)
        rewards = np.where(self.ended, 0.0, self.arrays.reward[at])
        terminated = self.arrays.done[at] & ~self.ended
        self.states = np.where(self.ended, self.states, self.arrays.next_state[at])
        self.ages += ~self.ended
        truncated = (self.ages >= self.horizon) & ~self.ended & ~terminated
        self.ended = self.ended | terminated | truncated
        return self.states.copy(), rewards, terminated, truncated, {}


PROBLEM = Tabular
