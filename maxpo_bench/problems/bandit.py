"""One-state problems: a softmax over arms, each arm a distribution of rewards. Exact J_k for any k.

Every seed plays the same arms; the seeds differ in their noise. An arm pays one of M outcomes, so a policy is a
distribution over (arm, outcome) pairs and J_k is exact by order statistics (exact.py).
"""

import numpy as np
import torch

from maxpo_bench.measure import exact
from maxpo_bench.policies.tabular import TabularPolicy, entropy, table_score_norms, table_scores
from maxpo_bench.problems import Evaluation, Problem
from maxpo_bench.training.streams import generator


def arm_outcomes(task_name, count, rewards):
    """What the arms pay: (values [A, M], probabilities [A, M]) float64 arrays, M outcomes per arm.

    linear, exponential, gaussian: fixed rewards in [0, 1] (arXiv:2606.06096). local_optimum: arm 0 is worth .6, the
    last arm 1, the rest uniform in [0, .5] (arXiv:2509.24261). risky: arm i pays v_i with probability 1 - .85 v_i,
    else nothing, v evenly spaced in (0, 1]: the mean is best at v = .59, the maximum of 4 at v = .79.
    """
    grid = np.arange(1, count + 1) / count
    if rewards == "risky":
        chance = 1 - 0.85 * grid
        return np.stack([grid, np.zeros(count)], 1), np.stack([chance, 1 - chance], 1)
    noise = generator(task_name, 0, "arms")
    if rewards == "linear":
        values = grid
    elif rewards == "exponential":
        values = np.exp(4 * (grid - 1))
    elif rewards == "gaussian":
        values = np.sort(noise.normal(size=count))
        values = (values - values[0]) / (values[-1] - values[0])
    else:  # local_optimum
        values = noise.uniform(0, 0.5, size=count)
        values[0], values[-1] = 0.6, 1.0
    return values[:, None], np.ones((count, 1))


class Bandit(Problem):
    """kind: bandit. A batch is a dict: arms and rewards [S, G, N]; log_probs [S, 1, A] of the sampling policy."""

    def __init__(self, task, seeds, base=None):
        super().__init__(task, seeds, base)
        arms = task.section("arms")
        self.num_arms = arms["count"]
        values, chances = arm_outcomes(task.name, self.num_arms, arms["rewards"])
        self.values, self.chances = torch.as_tensor(values), torch.as_tensor(chances)  # [A, M]
        self.highest_reward = float(self.values.max())
        start = torch.zeros(1, self.num_arms, dtype=torch.float64)
        if arms["start"] == "local_optimum":  # arm 0 has probability start_prob, the others share the rest
            share = arms["start_prob"]
            start[0, 0] = np.log(share / (1 - share) * (self.num_arms - 1))
        self.start = start  # [1, A]

    def initial_policy(self):
        return TabularPolicy(self.start.repeat(len(self.seeds), 1, 1))

    @torch.no_grad()
    def sample(self, policy, step, purpose="train", groups=None, group_size=None):
        """One uniform number picks the pair (arm, outcome) by inverse CDF."""
        shape = (groups or self.task.groups, group_size or self.task.group_size)
        noise = [generator(self.task.name, seed, purpose, step).random(shape) for seed in self.seeds]
        noise = torch.as_tensor(np.stack(noise)).flatten(1)  # [S, G * N]
        log_probs = policy.log_probs()
        pairs = (log_probs.exp()[:, 0, :, None] * self.chances).flatten(1).cumsum(-1)  # [S, A * M]
        pick = torch.searchsorted(pairs / pairs[:, -1:], noise, right=True).view(len(self.seeds), *shape)
        rewards = self.values.flatten()[pick]
        return {"arms": pick // self.values.shape[1], "rewards": rewards, "log_probs": log_probs.clone()}

    def reward(self, batch):
        return batch["rewards"]

    def log_probs(self, policy, batch, rows=None):
        arms = batch["arms"]
        log_probs = policy.log_probs()[:, 0].gather(1, arms.flatten(1)).view(arms.shape)
        return log_probs if rows is None else log_probs.flatten()[rows]

    def score_norms(self, batch):
        norms = table_score_norms(batch["log_probs"])[:, 0]
        return norms.gather(1, batch["arms"].flatten(1)).view(batch["arms"].shape)

    @torch.no_grad()
    def scores(self, policy, batch):
        counts = torch.nn.functional.one_hot(batch["arms"].flatten(1), self.num_arms).double().unsqueeze(2)
        return table_scores(policy.log_probs(), counts)

    def evaluate(self, policy, step, prompts, samples):
        batch = self.sample(policy, step, "evaluation", prompts, samples)
        log_probs = policy.log_probs().detach()
        largest = self.values.max(1).values.argmax()
        extras = {"entropy": entropy(log_probs), "largest_payout_probability": log_probs[:, 0, largest].exp().tolist()}
        return Evaluation(batch["rewards"].numpy(), extras)

    def exact(self, policy, ks):
        probs = (policy.log_probs().exp()[:, 0, :, None] * self.chances).flatten(1)  # [S, A * M]
        return torch.stack([exact.expected_max(self.values.flatten(), probs, k) for k in ks], dim=1)

    def exact_gradient(self, policy, weights):
        with torch.enable_grad():
            value = self.exact(policy, list(weights)) @ torch.tensor(list(weights.values()), dtype=torch.float64)
            (gradient,) = torch.autograd.grad(value.sum(), policy.logits)
        return gradient.flatten(1)


PROBLEM = Bandit
