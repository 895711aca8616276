"""fitted_blend: exactly unbiased by enumeration of whole batches, its limits, its invariances, and that it adapts."""

import itertools
from fractions import Fraction

import oracles
import pytest
import torch

from maxpo_bench.estimators import get
from maxpo_bench.measure import exact

fitted_blend, baseline_blend, pkpo, maxpo = (get(name) for name in ("fitted_blend", "baseline_blend", "pkpo", "maxpo"))


def expected_gradient(num_groups, n, k, num_arms, estimator=None, norms=False):
    """(E[g], exact gradient) over every batch of num_groups prompts with policies and rewards of their own: [G, A]."""
    generator = torch.Generator().manual_seed(num_groups * 100 + n * 10 + k)
    logits, arms = torch.randn(2, num_groups, num_arms, dtype=torch.float64, generator=generator)
    policy = logits.softmax(-1)
    actions = torch.tensor(list(itertools.product(range(num_arms), repeat=num_groups * n))).view(-1, num_groups, n)
    probability = torch.stack([policy[g][actions[:, g]] for g in range(num_groups)], 1).prod(-1).prod(-1)
    rewards = torch.stack([arms[g][actions[:, g]] for g in range(num_groups)], 1)
    score = torch.nn.functional.one_hot(actions, num_arms).double() - policy[:, None]  # [B, G, N, A]
    advantages = (estimator or fitted_blend)(rewards, k=k, score_norms=score.square().sum(-1) if norms else None)
    gradient = torch.einsum("b,bgn,bgna->ga", probability, advantages, score) / n
    logits.requires_grad_()
    exact.arms_expected_max(logits, arms, k).sum().backward()
    return gradient, logits.grad


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("num_groups, n, k, num_arms", [(2, 3, 2, 3), (2, 4, 3, 2), (3, 3, 1, 2), (3, 3, 2, 2), (4, 3, 2, 2)])
def test_exactly_unbiased_over_every_batch(num_groups, n, k, num_arms, norms):
    found, truth = expected_gradient(num_groups, n, k, num_arms, norms=norms)
    assert (found - truth).abs().max() < 1e-13


def test_the_enumeration_catches_weights_that_look_at_their_own_group():
    def leaky(rewards, k, score_norms=None):
        means = rewards.mean(-1, keepdim=True)  # a group's own mean decides how its baseline is blended
        w = (means > means.mean(-2, keepdim=True)).double()
        return w * maxpo(rewards, k=k) + (1 - w) * pkpo(rewards, k=k)

    found, truth = expected_gradient(2, 3, 2, 3, estimator=leaky)
    assert (found - truth).abs().max() > 1e-3


@pytest.mark.parametrize("k", [2, 3])
def test_the_weight_is_least_squares_with_one_group_of_prior(k):
    """In exact fractions, sums over the other groups written out."""
    rows = [[0, 3, 1, 1, 2], [2, 2, 0, 1, 0], [1, 1, 1, 1, 1], [4, 0, 0, 0, 1]]
    norms = [[1, 2, 1, 3, 1], [2, 1, 1, 1, 4], [1, 1, 1, 1, 1], [1, 5, 2, 1, 1]]
    n, found = 5, fitted_blend(torch.tensor(rows).double(), k=k, score_norms=torch.tensor(norms).double())
    added = [oracles.added(row, k) for row in rows]
    control = [
        [d - (q - v) for d, q, v in zip(some, oracles.include_one(row, k), oracles.leave_one_out(row, k), strict=True)]
        for some, row in zip(added, rows, strict=True)
    ]
    for g, row in enumerate(rows):
        others = [h for h in range(4) if h != g]
        product = [sum(norms[h][i] * added[h][i] * control[h][i] for i in range(n)) for h in range(4)]
        square = [sum(norms[h][i] * control[h][i] ** 2 for i in range(n)) for h in range(4)]
        evidence = sum(square[h] for h in others)
        typical = sum(square[h] ** 2 for h in others) / evidence
        w = (sum(product[h] for h in others) + typical * Fraction(n - k, n - 1)) / (evidence + typical)
        for i in range(len(row)):
            assert found[g, i].item() == pytest.approx(float(k * (added[g][i] - w * control[g][i])), abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_one_group_takes_the_bootstrap_weight(k):
    rewards = torch.randn(3, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(fitted_blend(rewards, k=k), baseline_blend(rewards, k=k, w=(8 - k) / 7), atol=1e-12, rtol=0)


def test_a_group_is_a_blend_whose_weight_the_other_groups_decide():
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(2, 12, 8, dtype=torch.float64, generator=generator)
    advantages, ends = fitted_blend(rewards, k=3), [get(name)(rewards, k=3) for name in ("pkpo", "maxpo")]
    weights = (advantages - ends[0]) / (ends[1] - ends[0])
    assert (weights - weights.mean(-1, keepdim=True)).abs().max() < 1e-9  # one weight in a group
    assert weights[..., 0].flatten().unique().numel() == 24
    changed = rewards.clone()
    changed[:, 8] += torch.randn(8, dtype=torch.float64, generator=generator)
    moved = fitted_blend(changed, k=3)
    ends = [get(name)(changed[:, 8], k=3) for name in ("pkpo", "maxpo")]
    assert torch.allclose((moved[:, 8] - ends[0]) / (ends[1] - ends[0]), weights[:, 8], rtol=1e-9)  # its own is as it was
    assert ((moved - advantages).abs().amax(-1)[:, :8] > 1e-9).all()
    assert torch.equal(fitted_blend(rewards[1:], k=3), advantages[1:])  # batches are independent


@pytest.mark.parametrize("k", [1, 2, 5])
def test_shift_scale_ties_and_constant_batches(k):
    rewards = torch.randint(0, 4, (6, 8), generator=torch.Generator().manual_seed(2)).double()
    rewards[2] = 3.0
    advantages = fitted_blend(rewards, k=k)
    assert not advantages[2].any()  # a group without a difference stays silent beside others that have one
    assert torch.allclose(fitted_blend(3 * rewards + 100, k=k), 3 * advantages, atol=1e-11, rtol=0)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(fitted_blend(rewards[:, order], k=k), advantages[:, order], atol=1e-12, rtol=0)
    for group, row in zip(rewards, advantages, strict=True):
        for value in group.unique():
            assert (row[group == value] == row[group == value][0]).all()
    assert torch.equal(fitted_blend(torch.full((6, 8), 0.3), k=k), torch.zeros(6, 8))


def test_adapts_in_both_directions():
    """E[norm A^2], the variance under orthogonal scores: near or below the better of maxpo and pkpo on either side."""
    generator = torch.Generator().manual_seed(5)

    def ratio(p, n, k, failure_norm=1.0):
        rewards = (torch.rand(100, 64, n, generator=generator) < p).double()
        norms = torch.where(rewards > 0, 1.0, failure_norm).double()
        fitted, peak, leave = (
            (norms * a.square()).mean().item()
            for a in (fitted_blend(rewards, k=k, score_norms=norms), pkpo(rewards, k=k), maxpo(rewards, k=k))
        )
        return fitted / min(peak, leave), leave / peak

    easy, easy_leave = ratio(0.8, 16, 4)
    rare, rare_leave = ratio(0.05, 16, 4, failure_norm=2.5)
    assert easy_leave < 0.4 and rare_leave > 1.1  # maxpo wins one, pkpo the other
    assert easy < 1.03 and rare < 1.0, (easy, rare)


@pytest.mark.parametrize("k, n, p", [(2, 4, 0.05), (2, 4, 0.3), (4, 16, 0.05)])
def test_few_groups_lean_on_the_prior(k, n, p):
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(4000, 4, n, generator=generator, dtype=torch.float64) < p).double()
    size = {name: get(name)(rewards, k=k).square().mean() for name in ("fitted_blend", "maxpo", "pkpo")}
    assert size["fitted_blend"] < 1.1 * min(size["maxpo"], size["pkpo"]), size
