"""Any gymnasium environment through its vector interface, with an MLP policy. All seeds side by side in one vector.

Row (s, g, n) of the vector is episode n of group g of seed s. The N episodes of a group start from the same state and
are whole: a row that has ended is ignored until the next sample. See envs/build.py for how resets are seeded.
"""

import gymnasium
import numpy as np
import torch

from maxpo_bench.errors import BadObservation, BadReward, Fault, InputError
from maxpo_bench.policies.mlp import MLPPolicy, output_scores
from maxpo_bench.problems import Evaluation, Problem
from maxpo_bench.problems.envs.actions import Actions
from maxpo_bench.problems.envs.build import GroupVectorEnv, Outcome, flattening, known_rewards, make_env, place, time_limit
from maxpo_bench.problems.envs.memory import refuse_memory, remembers
from maxpo_bench.training.streams import generator, seed_ints

CHUNK = 128  # time steps of noise drawn, and of observations laid out, at once; no number depends on it
ROWS = 1024  # steps of one seed per matrix product: fixed, so that a seed's sums do not depend on its neighbours


def gather(steps, where):
    """The chosen steps: array [T * S * B, ...], where [S, L] array of t * S * B + row -> tensor [S, L, ...].

    By numpy, which is several times faster than torch at picking narrow rows.
    """
    return torch.from_numpy(steps.take(where, axis=0))


class Gymnasium(Problem):
    """kind: gymnasium. A batch is a dict: returns, last [S, G, N]; lengths [S, G * N]; and the steps that count, padded
    to L per seed: observations [S, L, d], actions [S, L], [S, L, H] or [S, L, A], episodes [S, L] (row of the vector), valid
    [S, L] float32 0/1, where [S, L] array (time * S * B + row); outputs, T of [S, B, out], are the sampling policy's.
    """

    def __init__(self, task, seeds, base=None):
        super().__init__(task, seeds, base)
        env = make_env(task)
        self.horizon = time_limit(env, task)
        self.actions, self.observations = Actions(env.action_space, f"{place(task)}: "), env.observation_space
        env.close()
        self.outcome = Outcome(task.section("outcome"))
        self.highest_reward = self.outcome.highest(*known_rewards(task, self.horizon), f"{place(task)}: ")
        self.one_hot = isinstance(self.observations, gymnasium.spaces.Discrete)
        if self.one_hot:
            self.width = int(self.observations.n)
            self.shape = (self.width,)  # of an observation as the steps are kept
        elif isinstance(self.observations, gymnasium.spaces.Box):
            self.width, self.shape = int(np.prod(self.observations.shape)), self.observations.shape
        else:
            wrapper = flattening(self.observations, task.section("env")["id"])
            how = f"a wrapper, for example env.wrappers: [{wrapper}]" if wrapper else "a wrapper of your own that makes one of it"
            kind = type(self.observations).__name__
            raise InputError(f"{place(task)}: env.id: observation space {kind} is not a vector; add {how}")
        if self.width == 0:
            raise InputError(f"{place(task)}: env.id: observation space {self.observations} is empty")
        self.scale = task.section("policy")["observation_scale"]
        self.as_they_come = not self.one_hot and self.scale == 1  # observations need no more than a cast
        self.envs = {}  # number of rows -> vector environment

    def prepare(self):
        refuse_memory(self.task)

    def initial_policy(self):
        options, actions = self.task.section("policy"), self.actions
        generators = [generator(self.task.name, seed, "policy") for seed in self.seeds]
        sizes = [self.width, *options["hidden"], actions.size]
        log_std = None if actions.heads else options["log_std"]
        return MLPPolicy.draw(generators, sizes, log_std, None if actions.single else actions.heads)

    def _vector(self, num_rows):
        if num_rows not in self.envs:
            self.envs[num_rows] = GroupVectorEnv(self.task, num_rows, anew=remembers(self.task))
        return self.envs[num_rows]

    def _encode(self, observations, x):
        """Write observations of the vector environment [S * B, ...] into x [S * B, ...] float32, one-hot [S * B, d]."""
        if self.one_hot:
            index = observations - self.observations.start
            if ((index < 0) | (index >= self.width)).any():
                raise Fault(f"{place(self.task)}: env.id: an observation is not in {self.observations}")
            x[:] = 0
            x[np.arange(len(x)), index] = 1
        else:
            x[:] = observations
        if self.scale != 1:
            x *= np.float32(self.scale)

    @torch.no_grad()
    def _play(self, policy, start_seeds, num_members, purpose, step):
        """start_seeds: [S, G] int. Plays num_members episodes from each start. Returns the batch dict."""
        name, num_seeds = self.task.name, len(self.seeds)
        num_groups = start_seeds.shape[1]
        num_rows = num_groups * num_members  # B, per seed
        width = self.actions.width
        env = self._vector(num_seeds * num_rows)

        def dynamics():
            return np.concatenate([seed_ints(name, s, f"{purpose} dynamics", step, num_rows) for s in self.seeds])

        observations = env.reset(start_seeds.ravel(), num_members, dynamics)
        generators = [generator(name, seed, purpose, step) for seed in self.seeds]
        alive = np.ones(num_seeds * num_rows, dtype=bool)
        layers = policy.layers()
        outputs, steps_alive, chunks = [], [], []  # of each time step; (inputs, actions, rewards) of CHUNK of them
        for t in range(self.horizon):
            i = t % CHUNK
            if i == 0:
                length = min(CHUNK, self.horizon - t)
                noise = self._noise(generators, length, num_rows)
                x = np.empty((length, len(alive), *self.shape), dtype=np.float32)
                actions = np.empty((length, len(alive), *width), dtype=self.actions.dtype)
                rewards = np.empty((length, len(alive)))
                chunks.append((x, actions, rewards))
                xs = torch.from_numpy(x).view(length, num_seeds, num_rows, self.width).unbind(0)
                drawn = torch.from_numpy(actions).view(length, num_seeds, num_rows, *width).unbind(0)
            if self.as_they_come:
                x[i] = observations
            else:
                self._encode(observations, x[i])
            outputs.append(policy.forward(xs[i], layers))
            policy.act(outputs[t], noise[i], out=drawn[i])
            steps_alive.append(alive)
            try:
                observations, rewards[i], ended = env.step(self.actions.decode(actions[i]))
            except Fault:  # of a NaN action, perhaps, that comes of a NaN observation
                seen = torch.from_numpy(x[i][alive].reshape(-1, self.width))
                self._refuse_observations(seen, lambda row, t=t: f"step {t} of an episode")
                raise
            alive = alive > ended
            if not np.count_nonzero(alive):  # three times as fast as any()
                break
            env.retire(ended)
        x, actions, rewards = (a[0] if len(a) == 1 else np.concatenate(a) for a in zip(*chunks, strict=True))
        alive, rewards = np.concatenate(steps_alive).reshape(-1, len(alive)), rewards[: len(outputs)]  # [T, S * B]
        lengths = alive.sum(0)
        returns = rewards.sum(0, where=alive)
        last = rewards[lengths - 1, np.arange(len(lengths))]
        shape = (num_seeds, num_groups, num_members)
        batch = self._pack(x, actions, alive.reshape(-1, num_seeds, num_rows), lengths.reshape(num_seeds, num_rows))
        self._refuse_observations(batch["observations"].flatten(0, 1), lambda row: self._when(batch, row, step))
        if not np.isfinite(returns).all():
            raise BadReward(f"{place(self.task)}: env.id: {env.env_id} gave a reward that is not finite")
        batch["outputs"] = outputs
        batch.update(returns=torch.as_tensor(returns).view(shape), last=torch.as_tensor(last).view(shape))
        batch["log_std"] = None if self.actions.heads else policy.log_std.detach().clone()
        return batch

    def _refuse_observations(self, observations, when):
        """BadObservation when one of observations [L, d] is not finite, lest the policy diverge and be blamed for it.

        when(row) -> words that say where it stands.
        """
        if torch.isfinite(observations.sum()) or torch.isfinite(observations).all():  # a finite sum is the quick answer
            return
        row, entry = (~torch.isfinite(observations)).nonzero()[0].tolist()
        value = observations[row, entry].item()
        name = self.task.section("env")["id"]
        raise BadObservation(
            f"{place(self.task)}: env.id: {name} gave an observation that is not finite: {value} in entry {entry}, {when(row)}"
        )

    def _when(self, batch, row, step):
        """Of a row of the flattened steps [S * L]: seed, training step, and step of its episode."""
        s, i = divmod(row, batch["episodes"].shape[1])
        before = int((batch["episodes"][s, :i] == batch["episodes"][s, i]).sum())
        return f"step {before} of an episode (seed {self.seeds[s]}, training step {step})"

    def _noise(self, generators, num_steps, num_rows):
        """Noise of some time steps, one tensor each: uniform [S, B] or [S, B, H], or normal [S, B, A]."""
        drawn = np.empty((len(generators), num_steps, num_rows, *self.actions.width), dtype=np.float32)
        for g, numbers in zip(generators, drawn, strict=True):
            (g.random if self.actions.heads else g.standard_normal)(out=numbers, dtype=np.float32)
        return torch.from_numpy(drawn).unbind(1)

    def _pack(self, inputs, actions, alive, lengths):
        """The steps that count, in time order, padded per seed to L, a multiple of ROWS.

        inputs, actions: [at least T, S * B, ...]; alive: [T, S, B] bool; lengths: [S, B].
        """
        num_steps, num_seeds, num_rows = alive.shape
        counts, first_row = lengths.sum(1)[:, None], np.arange(num_seeds)[:, None] * num_rows  # [S, 1]
        slots = np.arange(-(-int(counts.max()) // ROWS) * ROWS)  # [L]
        valid = slots < counts
        places = np.flatnonzero(alive.swapaxes(0, 1))  # (seed * T + time) * B + row, sorted by seed, then by time
        places = places.take(slots + (counts.cumsum(0) - counts), mode="clip") - first_row * num_steps  # time * B + row
        places *= valid
        times = places // num_rows
        where = places + times * (num_rows * (num_seeds - 1)) + first_row
        episodes = where - times * (num_rows * num_seeds)
        return {
            "observations": gather(inputs.reshape(-1, self.width), where),
            "where": where,
            "actions": gather(actions.reshape(-1, *actions.shape[2:]), where),
            "episodes": torch.from_numpy(episodes),
            "valid": torch.from_numpy(valid).float(),
            "lengths": torch.from_numpy(lengths),
        }

    def sample(self, policy, step, purpose="train", groups=None, group_size=None):
        num_groups = groups or self.task.groups
        starts = [seed_ints(self.task.name, seed, f"{purpose} starts", step, num_groups) for seed in self.seeds]
        return self._play(policy, np.stack(starts), group_size or self.task.group_size, purpose, step)

    def reward(self, batch):
        return self.outcome(batch["returns"], batch["last"])

    def _by_episode(self, batch, values):
        """Sum of values [S, L], one per step, over the steps of each episode: [S, G, N] float64, differentiable."""
        values = (values * batch["valid"]).flatten().double()
        total = values.new_zeros(batch["returns"].numel())
        return total.index_add(0, batch["episodes"].flatten(), values).view(batch["returns"].shape)

    def log_probs(self, policy, batch, rows=None):
        steps = zip(batch["observations"].split(ROWS, 1), batch["actions"].split(ROWS, 1), strict=True)
        log_probs = torch.cat([policy.log_prob(policy.forward(x), actions) for x, actions in steps], dim=1)
        log_probs = self._by_episode(batch, log_probs)
        return log_probs if rows is None else log_probs.flatten()[rows]

    @torch.no_grad()
    def score_norms(self, batch):
        """In the network's outputs (logits or means), as they were when the actions were drawn."""
        outputs = gather(torch.stack(batch["outputs"]).flatten(0, 2).numpy(), batch["where"])  # [S, L, out]
        steps = zip(outputs.split(ROWS, 1), batch["actions"].split(ROWS, 1), strict=True)
        heads = None if self.actions.single else self.actions.heads
        norms = [output_scores(*step, batch["log_std"], heads)[0].square().sum(-1) for step in steps]
        return self._by_episode(batch, torch.cat(norms, dim=1))

    def lengths(self, batch):
        return batch["lengths"].view(batch["returns"].shape)

    @torch.no_grad()
    def scores(self, policy, batch):
        num_parameters = sum(parameter[0].numel() for parameter in policy.parameters())
        total = torch.zeros(batch["returns"].numel(), num_parameters)
        steps = [batch[name].split(ROWS, 1) for name in ("observations", "actions", "valid", "episodes")]
        for x, actions, valid, episodes in zip(*steps, strict=True):
            scores = policy.step_scores(x, actions) * valid.unsqueeze(-1)
            total.index_add_(0, episodes.flatten(), scores.flatten(0, 1))
        return total.view(len(self.seeds), -1, num_parameters)

    def evaluate(self, policy, step, prompts, samples):
        """The held-out start states are the same for all seeds and all steps."""
        starts = seed_ints(self.task.name, 0, "held-out starts", 0, prompts)
        batch = self._play(policy, np.tile(starts, (len(self.seeds), 1)), samples, "evaluation", step)
        return Evaluation(self.reward(batch).numpy(), {"episode_length": batch["lengths"].double().mean(1).tolist()})


PROBLEM = Gymnasium
