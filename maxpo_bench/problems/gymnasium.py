"""Any gymnasium environment through its vector interface, with an MLP policy. All seeds side by side in one vector.

Row (s, g, n) of the vector is episode n of group g of seed s. The N episodes of a group start from the same state and
are whole: a row that has ended is ignored until the next sample. See envs/build.py for how resets are seeded.
"""

import gymnasium
import numpy as np
import torch

from maxpo_bench.envs.build import GroupVectorEnv, Outcome, make_env, place, time_limit
from maxpo_bench.errors import BadReward, Fault, InputError
from maxpo_bench.policies.mlp import MLPPolicy, output_scores
from maxpo_bench.problems import Evaluation, Problem
from maxpo_bench.streams import generator, seed_ints

CHUNK = 32  # time steps of noise drawn, and of observations laid out, at once; no number depends on it
ROWS = 1024  # steps of one seed per matrix product: fixed, so that a seed's sums do not depend on its neighbours


def gather(steps, where):
    """The chosen steps of [T, S, B, ...]: where [S, L], t * S * B + row -> [S, L, ...]."""
    flat = steps.flatten(0, 2)
    return flat.index_select(0, where.flatten()).view(*where.shape, *flat.shape[1:])


class Gymnasium(Problem):
    """kind: gymnasium. A batch is a dict: returns, last [S, G, N]; lengths [S, G * N]; and the steps that count, padded
    to L per seed: observations [S, L, d], actions [S, L] or [S, L, A], episodes [S, L] (row of the vector), valid
    [S, L] float32 0/1, where [S, L] (time * S * B + row); outputs, T of [S, B, out], are the sampling policy's.
    """

    def __init__(self, task, seeds, base=None):
        super().__init__(task, seeds, base)
        env = make_env(task)
        self.horizon = time_limit(env, task)
        self.actions, self.observations = env.action_space, env.observation_space
        env.close()
        self.outcome = Outcome(task.section("outcome"))
        self.discrete = isinstance(self.actions, gymnasium.spaces.Discrete)
        if not self.discrete and not (isinstance(self.actions, gymnasium.spaces.Box) and len(self.actions.shape) == 1):
            raise InputError(f"{place(task)}: env.id: action space {self.actions} is neither Discrete nor a vector Box")
        self.first_action = int(self.actions.start) if self.discrete else 0
        self.one_hot = isinstance(self.observations, gymnasium.spaces.Discrete)
        if self.one_hot:
            self.width = int(self.observations.n)
        elif isinstance(self.observations, gymnasium.spaces.Box):
            self.width = int(np.prod(self.observations.shape))
        else:
            raise InputError(
                f"{place(task)}: env.id: observation space {type(self.observations).__name__} is not a vector; add a "
                "wrapper, for example env.wrappers: [gymnasium.wrappers:FlattenObservation]"
            )
        self.scale = task.section("policy")["observation_scale"]
        self.envs = {}  # number of rows -> vector environment

    def initial_policy(self):
        options = self.task.section("policy")
        outputs = int(self.actions.n) if self.discrete else self.actions.shape[0]
        generators = [generator(self.task.name, seed, "policy") for seed in self.seeds]
        sizes = [self.width, *options["hidden"], outputs]
        return MLPPolicy.draw(generators, sizes, None if self.discrete else options["log_std"])

    def _vector(self, num_rows):
        if num_rows not in self.envs:
            self.envs[num_rows] = GroupVectorEnv(self.task, num_rows)
        return self.envs[num_rows]

    def _encode(self, observations, x):
        """Write observations of the vector environment [S * B, ...] as float32 into x [S * B, d]."""
        if self.one_hot:
            index = observations - self.observations.start
            if ((index < 0) | (index >= self.width)).any():
                raise Fault(f"{place(self.task)}: env.id: an observation is not in {self.observations}")
            x[:] = 0
            x[np.arange(len(x)), index] = 1
        else:
            x.reshape(observations.shape)[...] = observations
        if self.scale != 1:
            x *= np.float32(self.scale)

    def _decode(self, actions):
        """Actions [S, B] or [S, B, A] -> numpy, as the vector environment wants them."""
        if self.discrete:
            actions = actions.view(-1).numpy()
            return actions + self.first_action if self.first_action else actions
        actions = actions.flatten(0, 1).numpy()
        return np.clip(actions, self.actions.low, self.actions.high).astype(self.actions.dtype)

    @torch.no_grad()
    def _play(self, policy, start_seeds, num_members, purpose, step):
        """start_seeds: [S, G] int. Plays num_members episodes from each start. Returns the batch dict."""
        name, num_seeds = self.task.name, len(self.seeds)
        num_groups = start_seeds.shape[1]
        num_rows = num_groups * num_members  # B, per seed
        env = self._vector(num_seeds * num_rows)

        def dynamics():
            return np.concatenate([seed_ints(name, s, f"{purpose} dynamics", step, num_rows) for s in self.seeds])

        observations = env.reset(np.repeat(start_seeds, num_members, axis=1).ravel(), dynamics)
        generators = [generator(name, seed, purpose, step) for seed in self.seeds]
        alive = np.ones(num_seeds * num_rows, dtype=bool)
        layers = policy.layers()
        inputs, steps, steps_alive, steps_rewards = [], [], [], []  # steps: (actions, policy outputs) of a time step
        for t in range(self.horizon):
            if t % CHUNK == 0:
                noise = self._noise(generators, num_rows)
                chunk = np.empty((CHUNK, len(alive), self.width), dtype=np.float32)
                inputs.append(torch.from_numpy(chunk).view(CHUNK, num_seeds, num_rows, self.width))
                xs = inputs[-1].unbind(0)
            self._encode(observations, chunk[t % CHUNK])
            outputs = policy.forward(xs[t % CHUNK], layers)
            actions = policy.act(outputs, noise[t % CHUNK])
            steps.append((actions, outputs))
            steps_alive.append(alive)
            observations, rewards, ended = env.step(self._decode(actions))
            steps_rewards.append(rewards)
            alive = alive > ended
            if not alive.any():
                break
            env.retire(ended)
        alive, rewards = np.stack(steps_alive), np.stack(steps_rewards)  # [T, S * B]
        lengths = alive.sum(0)
        returns = np.where(alive, rewards, 0.0).sum(0)
        last = rewards[lengths - 1, np.arange(len(lengths))]
        if not np.isfinite(returns).all():
            raise BadReward(f"{place(self.task)}: env.id: {env.env_id} gave a reward that is not finite")
        shape = (num_seeds, num_groups, num_members)
        batch = self._pack(torch.cat(inputs), steps, alive.reshape(-1, num_seeds, num_rows), lengths.reshape(num_seeds, num_rows))
        batch.update(returns=torch.as_tensor(returns).view(shape), last=torch.as_tensor(last).view(shape))
        batch["log_std"] = None if self.discrete else policy.log_std.detach().clone()
        return batch

    def _noise(self, generators, num_rows):
        """Noise of CHUNK time steps, one tensor each: uniform [S, B], or normal [S, B, A]."""
        if self.discrete:
            drawn = [g.random((CHUNK, num_rows), dtype=np.float32) for g in generators]
        else:
            size = (CHUNK, num_rows, self.actions.shape[0])
            drawn = [g.standard_normal(size, dtype=np.float32) for g in generators]
        return torch.as_tensor(np.stack(drawn, axis=1)).unbind(0)

    def _pack(self, inputs, steps, alive, lengths):
        """The steps that count, in time order, padded per seed to L, a multiple of ROWS.

        inputs: [at least T, S, B, d]; steps: T of (actions, outputs); alive: [T, S, B] bool; lengths: [S, B].
        Index arithmetic in numpy, which is several times faster at it here.
        """
        num_steps, num_seeds, num_rows = alive.shape
        counts = lengths.sum(1)  # [S]
        length = -(-int(counts.max()) // ROWS) * ROWS
        valid = np.arange(length) < counts[:, None]
        flat = np.flatnonzero(alive.swapaxes(0, 1))  # (seed * T + time) * B + row, sorted by seed, then by time
        line = flat // num_rows  # seed * T + time
        seed, time = np.divmod(np.arange(num_seeds * num_steps), num_steps)  # of each line
        row = flat + ((seed - np.arange(len(seed))) * num_rows)[line]  # of the vector: seed * B + row
        where, episodes = np.zeros(valid.shape, np.int64), np.repeat(np.arange(num_seeds)[:, None] * num_rows, length, 1)
        where[valid], episodes[valid] = row + (time * (num_seeds * num_rows))[line], row
        actions, outputs = zip(*steps, strict=True)
        where = torch.from_numpy(where)
        return {
            "observations": gather(inputs, where), "actions": gather(torch.stack(actions), where), "where": where,
            "outputs": outputs,
            "episodes": torch.from_numpy(episodes), "valid": torch.from_numpy(valid).float(),
            "lengths": torch.from_numpy(lengths),
        }

    def sample(self, policy, step, purpose="train", groups=None, group_size=None):
        num_groups = groups or self.task.groups
        starts = [seed_ints(self.task.name, seed, f"{purpose} starts", step, num_groups) for seed in self.seeds]
        return self._play(policy, np.stack(starts), group_size or self.task.group_size, purpose, step)

    def reward(self, batch):
        return self.outcome(batch["returns"], batch["last"])

    def _by_episode(self, batch, per_step, width=()):
        """Sum over the steps of each episode of per_step(slice) [S, ROWS, *width]: [S * B, *width], differentiable."""
        num_seeds, length = batch["valid"].shape
        num_rows = batch["returns"][0].numel()
        total = torch.zeros(num_seeds * num_rows, *width, dtype=torch.float64 if not width else torch.float32)
        for begin in range(0, length, ROWS):
            rows = slice(begin, begin + ROWS)
            valid = batch["valid"][:, rows]
            values = per_step(rows) * (valid if not width else valid.unsqueeze(-1))
            total = total.index_add(0, batch["episodes"][:, rows].flatten(), values.flatten(0, 1).to(total.dtype))
        return total

    def log_probs(self, policy, batch, rows=None):
        def per_step(cut):
            return policy.log_prob(policy(batch["observations"][:, cut]), batch["actions"][:, cut])

        log_probs = self._by_episode(batch, per_step)
        return log_probs.view(batch["returns"].shape) if rows is None else log_probs[rows]

    @torch.no_grad()
    def score_norms(self, batch):
        """In the network's outputs (logits or means), as they were when the actions were drawn."""

        outputs = gather(torch.stack(batch["outputs"]), batch["where"])  # [S, L, out]

        def per_step(cut):
            score, _ = output_scores(outputs[:, cut], batch["actions"][:, cut], batch["log_std"])
            return score.square().sum(-1)

        return self._by_episode(batch, per_step).view(batch["returns"].shape)

    @torch.no_grad()
    def scores(self, policy, batch):
        def per_step(cut):
            return policy.step_scores(batch["observations"][:, cut], batch["actions"][:, cut])

        num_parameters = sum(parameter[0].numel() for parameter in policy.parameters())
        return self._by_episode(batch, per_step, (num_parameters,)).view(len(self.seeds), -1, num_parameters)

    def evaluate(self, policy, step, prompts, samples):
        """The held-out start states are the same for all seeds and all steps."""
        starts = seed_ints(self.task.name, 0, "held-out starts", 0, prompts)
        batch = self._play(policy, np.tile(starts, (len(self.seeds), 1)), samples, "evaluation", step)
        return Evaluation(self.reward(batch).numpy(), {"episode_length": batch["lengths"].double().mean(1).tolist()})


PROBLEM = Gymnasium
