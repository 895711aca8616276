"""Bandits: sampling, rewards, scores and exact references agree with each other."""

import numpy as np
import pytest
import torch

from maxpo_bench.estimators import get
from maxpo_bench.policies.tabular import TabularPolicy
from maxpo_bench.problems import build
from maxpo_bench.problems.bandit import arm_outcomes
from maxpo_bench.training.evaluation import max_at_k


@pytest.fixture
def risky(make_task):
    return make_task("bandit", arms={"count": 5, "rewards": "risky"})


def peaked(problem):
    """A policy away from uniform, different for each seed."""
    logits = torch.linspace(-1, 1, problem.num_arms).double() * torch.arange(1, len(problem.seeds) + 1).view(-1, 1, 1)
    return TabularPolicy(logits)


@pytest.mark.parametrize("rewards", ["linear", "exponential", "gaussian", "local_optimum", "risky"])
def test_arms_are_distributions_with_best_reward_one(rewards):
    values, chances = arm_outcomes("t", 12, rewards)
    assert values.shape == chances.shape and np.allclose(chances.sum(1), 1) and (chances >= 0).all()
    assert values.max() == 1 and values.min() >= 0
    assert np.array_equal(values, arm_outcomes("t", 12, rewards)[0])


def test_mean_and_maximum_of_four_want_different_risky_arms():
    values, chances = arm_outcomes("t", 16, "risky")
    success, worth = chances[:, 0], values[:, 0]
    assert np.argmax(worth * success) < np.argmax(worth * (1 - (1 - success) ** 4))


def test_local_optimum_starts_where_it_says(make_task):
    arms = {"count": 100, "rewards": "local_optimum", "start": "local_optimum", "start_prob": 0.8}
    problem = build(make_task("bandit", arms=arms), (0, 1))
    probs = problem.initial_policy().log_probs().exp()[:, 0]
    assert np.allclose(probs[:, 0].detach(), 0.8) and np.allclose(probs.sum(1).detach(), 1)
    assert problem.values[0] == 0.6 and problem.values.argmax() == 99


def test_sampled_frequencies_follow_policy_and_arm(risky):
    problem = build(risky, (3,))
    policy = peaked(problem)
    batch = problem.sample(policy, 0, groups=100, group_size=1000)
    arms, rewards = batch["arms"].flatten(), problem.reward(batch).flatten()
    probs = policy.log_probs().exp()[0, 0].detach()
    for arm in range(problem.num_arms):
        here = arms == arm
        assert abs(here.double().mean() - probs[arm]) < 5 * (probs[arm] / 1e5).sqrt()
        paid = (rewards[here] > 0).double().mean()
        chance = problem.chances[arm, 0]
        assert abs(paid - chance) < 5 * (0.25 / here.sum()).sqrt()


def test_sampled_max_at_k_agrees_with_exact(risky):
    problem = build(risky, (3, 4))
    policy = peaked(problem)
    result = problem.evaluate(policy, 0, 2000, 8)
    sampled = max_at_k(result.rewards, 4)
    error = sampled.std(1) / np.sqrt(2000)
    assert (np.abs(sampled.mean(1) - problem.exact(policy, [4])[:, 0].detach().numpy()) < 4 * error).all()


@pytest.mark.parametrize("name, k", [("rloo", 1), ("maxpo", 4), ("pkpo", 4)])
def test_mean_of_advantage_times_score_is_the_exact_gradient(risky, name, k):
    problem = build(risky, (0,))
    policy = peaked(problem)
    batch = problem.sample(policy, 0, groups=20000, group_size=8)
    advantages = get(name)(problem.reward(batch), k=k).view(1, -1, 1)
    products = (advantages * problem.scores(policy, batch)).view(20000, 8, -1).mean(1)  # [G, D]
    error = products.std(0) / np.sqrt(20000)
    assert ((products.mean(0) - problem.exact_gradient(policy, {k: 1.0})[0]).abs() < 5 * error).all()


def test_scores_are_the_gradient_of_log_probs(risky):
    problem = build(risky, (0, 1))
    policy = peaked(problem)
    batch = problem.sample(policy, 0)
    scores = problem.scores(policy, batch)
    log_probs = problem.log_probs(policy, batch).flatten(1)
    for s, i in ((0, 0), (1, 7)):
        (gradient,) = torch.autograd.grad(log_probs[s, i], policy.logits, retain_graph=True)
        assert torch.allclose(scores[s, i], gradient[s].flatten(), atol=1e-12)
    assert torch.allclose(problem.score_norms(batch).flatten(1), scores.square().sum(-1))


def test_a_seed_does_not_depend_on_its_neighbours(risky):
    alone, together = build(risky, (5,)), build(risky, (9, 5, 2))
    rewards = together.reward(together.sample(together.initial_policy(), 4))
    assert torch.equal(rewards[1], alone.reward(alone.sample(alone.initial_policy(), 4))[0])
    assert not torch.equal(rewards[1], rewards[0])
