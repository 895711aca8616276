"""Exact J_K = E[max of K independent samples], differentiable, where a problem allows it.

Two ingredients cover the bandit and every tabular finite-horizon problem:

1. expected_max: the maximum of K draws from a distribution on a few values, by order statistics.
2. return_plan + return_distribution: the distribution of an episode's total reward under a tabular policy. A forward
   dynamic program carries the joint distribution of (state, reward so far); that pair takes few values when the rewards
   do, and with P(R >= t) known for every t, J_K is exact for graded rewards too.

Everything is float64 and a function of the logits, so torch.autograd gives the exact gradient of J_K.
"""

from dataclasses import dataclass

import numpy as np
import torch

from maxpo_bench.errors import InputError
from maxpo_bench.machine import numerics


def expected_max(values, probabilities, k):
    """E[max of k independent draws] of a discrete distribution.

    values: [V] or [..., V], any order, ties allowed. probabilities: [..., V], summing to 1 over the last axis.
    Returns [...] float64, differentiable in probabilities. ValueError when k < 1.

    By order statistics P(max <= v) = F(v)^k; summed by parts over the sorted values the expectation is
    v_top - sum_j (v_{j+1} - v_j) F(v_j)^k, in which tied values have gap 0 and need no special case.
    """
    if k < 1:
        raise ValueError(f"expected_max: k={k}, must be at least 1")
    probabilities = torch.as_tensor(probabilities).double()
    values = torch.as_tensor(values, device=probabilities.device).double().expand(probabilities.shape)
    values, order = values.sort(dim=-1)
    cumulative = probabilities.gather(-1, order).cumsum(dim=-1)[..., :-1]  # F(v_j), the top value's F = 1 is not used
    return values[..., -1] - (values.diff(dim=-1) * cumulative**k).sum(dim=-1)


def probability_at_least(values, probabilities, threshold):
    """P(R >= threshold) of a discrete distribution: values [V], probabilities [..., V]. Returns [...] float64."""
    return (probabilities * (torch.as_tensor(values) >= threshold).double()).sum(dim=-1)


def arms_expected_max(logits, rewards, k):
    """J_k of a softmax policy over arms with fixed rewards.

    logits: [..., A]; rewards: [A] or [..., A], one per arm. Returns [...] float64, differentiable in the logits.
    """
    return expected_max(rewards, logits.double().softmax(dim=-1), k)


@dataclass
class ReturnPlan:
    """What of the dynamic program does not depend on the policy: which (state, reward so far) pairs lead where."""

    values: torch.Tensor
    """[V] float64, ascending: every total reward an episode can have."""
    start: torch.Tensor
    """[..., nS] float64, distribution of the first state."""
    steps: list
    """One dict of index tensors per time step, see return_plan."""
    num_actions: int


def return_plan(prob, next_state, reward, done, start, horizon, max_pairs=200_000):
    """Unrolls a tabular finite-horizon problem into the pairs (state, reward so far) an episode can visit.

    prob, reward: [nS, nA, M] float, the M outcomes of each action; unused outcomes have prob 0.
    next_state: [nS, nA, M] long; done: [nS, nA, M] bool, the outcome ends the episode.
    start: [nS], or [..., nS] for several start distributions that share the plan. horizon: steps after which an
    episode is cut, keeping the reward so far. Returns a ReturnPlan. O(horizon * pairs * nA * M), once per problem.
    InputError when more than max_pairs pairs are alive at a step: the rewards take too many values for this method.
    """
    prob, next_state, reward, done = (np.asarray(x) for x in (prob, next_state, reward, done))
    start = torch.as_tensor(np.asarray(start, dtype=np.float64))
    num_states, num_actions, _ = prob.shape
    # The pairs alive now. Sums of rewards are compared after rounding to 1e-9, so that 0.1 + 0.2 meets 0.3.
    states = np.flatnonzero(start.reshape(-1, num_states).sum(0).numpy() > 0)
    first_states, totals = states, np.zeros(len(states))
    steps, end_totals = [], []
    for t in range(horizon):
        # Every outcome of every action of every pair alive: an edge.
        pair, action, outcome = np.nonzero(prob[states] > 0)
        state = states[pair]
        total = np.round(totals[pair] + reward[state, action, outcome], 9)
        target = next_state[state, action, outcome]
        ends = done[state, action, outcome].astype(bool) | (t == horizon - 1)
        # A pair as one integer, state * number of totals + which total: sorting integers beats sorting rows.
        sums, which = numerics.unique(total[~ends])
        pairs, where = numerics.unique(target[~ends] * len(sums) + which)
        if len(pairs) > max_pairs:
            raise InputError(f"exact reference: {len(pairs)} pairs (state, reward so far) at step {t + 1}, limit {max_pairs}")
        steps.append(
            {
                "pair": pair,
                "row": state * num_actions + action,
                "prob": prob[state, action, outcome].astype(np.float64),
                "stays": np.flatnonzero(~ends),
                "target": where.reshape(-1),
                "num_pairs": len(pairs),
                "ends": np.flatnonzero(ends),
            }
        )
        end_totals.append(total[ends])
        if len(pairs) == 0:
            break
        states, totals = pairs // len(sums), sums[pairs % len(sums)]
    values, end_index = numerics.unique(np.concatenate(end_totals))
    end_index = np.split(end_index.reshape(-1), np.cumsum([len(e) for e in end_totals])[:-1])
    for step, index in zip(steps, end_index, strict=True):
        step["end_value"] = index
    steps = [{key: torch.as_tensor(x) if isinstance(x, np.ndarray) else x for key, x in step.items()} for step in steps]
    steps[0]["states"] = torch.as_tensor(first_states)
    return ReturnPlan(torch.as_tensor(values), start, steps, num_actions)


def return_distribution(plan, logits):
    """Distribution of the episode's total reward under the tabular softmax policy.

    logits: [..., nS, nA]; leading axes (seeds) are independent policies. Returns (values [V] float64 ascending,
    probabilities [..., V] float64), differentiable in the logits. A plan with start [B, nS] gives [..., B, V]:
    one distribution for each start.
    """
    policy = logits.double().softmax(dim=-1).flatten(-2)  # [..., nS * nA]
    num_starts = plan.start.dim() - 1
    policy = policy[(..., *([None] * num_starts), slice(None))]
    shape = torch.broadcast_shapes(policy.shape[:-1], plan.start.shape[:-1])
    mass = plan.start[..., plan.steps[0]["states"]].expand(*shape, -1)  # probability of each pair alive
    ended = policy.new_zeros(*shape, len(plan.values))
    for step in plan.steps:
        flow = mass[..., step["pair"]] * policy[..., step["row"]] * step["prob"]  # [..., edges]
        ended = ended.index_add(-1, step["end_value"], flow[..., step["ends"]])
        mass = policy.new_zeros(*shape, step["num_pairs"]).index_add(-1, step["target"], flow[..., step["stays"]])
    return plan.values, ended


def episode_return_distribution(prob, next_state, reward, done, start, horizon, logits):
    """return_distribution of a fresh return_plan, in one call: shapes as there. Returns (values, probabilities)."""
    return return_distribution(return_plan(prob, next_state, reward, done, start, horizon), logits)


def tabular_expected_max(plan, logits, k):
    """J_k of a tabular policy: expected_max of its episode return, averaged over the plan's starts.

    The average is taken outside the maximum, because a group shares its start state. logits: [..., nS, nA].
    Returns [...] float64, differentiable in the logits.
    """
    values, probabilities = return_distribution(plan, logits)
    by_start = expected_max(values, probabilities, k)
    return by_start.flatten(logits.dim() - 2).mean(-1) if plan.start.dim() > 1 else by_start
