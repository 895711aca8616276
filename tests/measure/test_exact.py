"""exact.py against enumeration of every draw or trajectory, and against Monte Carlo on FrozenLake."""

import itertools

import numpy as np
import pytest
import torch

from maxpo_bench.errors import InputError
from maxpo_bench.measure import exact

# A 2 x 2 slippery maze: graded rewards, two ways to end, and episodes that are cut at the horizon.
# State 3 is the goal; action 0 moves right, action 1 moves down; with probability 0.2 the walker stays and pays 0.1.
NEXT = np.array([[[1, 0], [2, 0]], [[1, 1], [3, 1]], [[3, 2], [2, 2]], [[3, 3], [3, 3]]])
PROB = np.tile(np.array([0.8, 0.2]), (4, 2, 1))
REWARD = np.where(NEXT == 3, 1.0, 0.0) + np.array([0.0, -0.1])
DONE = NEXT == 3
REWARD[1, 0, 0], DONE[1, 0, 0] = 0.3, True  # walking off the right edge ends the episode with a consolation
START = np.array([0.7, 0.0, 0.3, 0.0])
HORIZON = 4


def enumerate_returns(logits, start=START):
    """{total reward: probability} by walking every trajectory."""
    policy = logits.softmax(-1).numpy()
    found = {}

    def walk(state, t, total, p):
        if t == HORIZON:
            found[round(total, 9)] = found.get(round(total, 9), 0) + p
            return
        for a, m in itertools.product(range(2), range(2)):
            q = p * policy[state, a] * PROB[state, a, m]
            if DONE[state, a, m]:
                key = round(total + REWARD[state, a, m], 9)
                found[key] = found.get(key, 0) + q
            else:
                walk(NEXT[state, a, m], t + 1, total + REWARD[state, a, m], q)

    for s in range(4):
        if start[s] > 0:
            walk(s, 0, 0.0, start[s])
    return found


def enumerate_max(values, probabilities, k):
    return sum(
        np.prod([probabilities[i] for i in draw]) * max(values[i] for i in draw)
        for draw in itertools.product(range(len(values)), repeat=k)
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_expected_max_equals_enumeration_of_all_draws(k):
    values, probabilities = [0.5, -1.0, 2.0, 0.5], [0.1, 0.2, 0.3, 0.4]
    got = exact.expected_max(torch.tensor(values), torch.tensor(probabilities, dtype=torch.float64), k)
    assert got.item() == pytest.approx(enumerate_max(values, probabilities, k), abs=1e-13)


def test_expected_max_rejects_k_0_and_handles_one_value():
    with pytest.raises(ValueError, match="k=0"):
        exact.expected_max(torch.tensor([1.0]), torch.tensor([1.0]), 0)
    assert exact.expected_max(torch.tensor([2.5]), torch.tensor([1.0]), 3).item() == 2.5


def test_arms_gradient_equals_finite_differences():
    rewards = torch.tensor([0.0, 1.0, 0.4, 0.4, -2.0])
    logits = torch.tensor([0.3, -1.0, 0.2, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: exact.arms_expected_max(x, rewards, 3), logits)


def test_return_distribution_equals_enumeration_of_all_trajectories():
    torch.manual_seed(0)
    logits = torch.randn(4, 2, dtype=torch.float64)
    values, probabilities = exact.episode_return_distribution(PROB, NEXT, REWARD, DONE, START, HORIZON, logits)
    truth = enumerate_returns(logits)
    assert sorted(truth) == pytest.approx(values.tolist(), abs=1e-12)
    assert [truth[v] for v in sorted(truth)] == pytest.approx(probabilities.tolist(), abs=1e-13)
    assert len(values) > 5  # graded: more than success and failure
    threshold = 0.85
    assert exact.probability_at_least(values, probabilities, threshold).item() == pytest.approx(
        sum(p for v, p in truth.items() if v >= threshold), abs=1e-13
    )


def test_tabular_gradient_equals_finite_differences_and_seeds_are_independent():
    plan = exact.return_plan(PROB, NEXT, REWARD, DONE, START, HORIZON)
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: exact.tabular_expected_max(plan, x, 4), logits)
    together = exact.tabular_expected_max(plan, logits, 4)
    alone = torch.stack([exact.tabular_expected_max(plan, row, 4) for row in logits])
    assert torch.equal(together, alone)


def test_several_starts_average_outside_the_maximum():
    torch.manual_seed(2)
    logits = torch.randn(2, 4, 2, dtype=torch.float64)
    starts = np.eye(4)[[0, 2]]
    got = exact.tabular_expected_max(exact.return_plan(PROB, NEXT, REWARD, DONE, starts, HORIZON), logits, 3)
    for row, value in zip(logits, got, strict=True):
        by_start = []
        for start in starts:
            truth = enumerate_returns(row, start)
            by_start.append(exact.expected_max(list(truth), torch.tensor(list(truth.values())), 3).item())
        assert value.item() == pytest.approx(np.mean(by_start), abs=1e-12)
    mixed = exact.tabular_expected_max(exact.return_plan(PROB, NEXT, REWARD, DONE, starts.mean(0), HORIZON), logits, 3)
    assert (mixed - got).abs().max() > 1e-3  # the other order of average and maximum is a different objective


def test_too_many_reward_values_is_one_clear_line():
    with pytest.raises(InputError, match="limit 3"):
        exact.return_plan(PROB, NEXT, REWARD, DONE, START, HORIZON, max_pairs=3)


def test_frozenlake_success_agrees_with_monte_carlo():
    gymnasium = pytest.importorskip("gymnasium")
    table = gymnasium.make("FrozenLake-v1", is_slippery=True).unwrapped.P
    num_states, num_actions, horizon = len(table), len(table[0]), 20
    prob, reward = np.zeros((num_states, num_actions, 3)), np.zeros((num_states, num_actions, 3))
    next_state, done = np.zeros(prob.shape, dtype=int), np.zeros(prob.shape, dtype=bool)
    for s, a in itertools.product(range(num_states), range(num_actions)):
        for m, (p, s2, r, d) in enumerate(table[s][a]):
            prob[s, a, m], next_state[s, a, m], reward[s, a, m], done[s, a, m] = p, s2, r, d
    torch.manual_seed(3)
    logits = torch.randn(num_states, num_actions, dtype=torch.float64)
    logits[:, 2] += 1.0
    values, probabilities = exact.episode_return_distribution(
        prob, next_state, reward, done, np.eye(num_states)[0], horizon, logits
    )
    assert values.tolist() == [0.0, 1.0]
    # Monte Carlo straight from the table, all episodes at once.
    generator, num_episodes = np.random.default_rng(0), 200_000
    cumulative = logits.softmax(-1).numpy().cumsum(-1)
    state, alive, total = np.zeros(num_episodes, int), np.ones(num_episodes, bool), np.zeros(num_episodes)
    for _ in range(horizon):
        action = (generator.random((num_episodes, 1)) > cumulative[state]).sum(-1).clip(max=num_actions - 1)
        outcome = (generator.random((num_episodes, 1)) > prob[state, action].cumsum(-1)).sum(-1).clip(max=2)
        total += alive * reward[state, action, outcome]
        ended = done[state, action, outcome]
        state, alive = next_state[state, action, outcome], alive & ~ended
    p = probabilities[1].item()
    assert p > 0.005
    assert abs(total.mean() - p) < 4 * np.sqrt(p * (1 - p) / num_episodes)
