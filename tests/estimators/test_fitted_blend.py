"""fitted_blend: exactly unbiased by enumeration of whole batches, its limits, its invariances, and that it adapts."""

import importlib
import itertools

import pytest
import torch

from maxpo_bench.estimators import get
from maxpo_bench.measure import exact

fitted_blend, baseline_blend, pkpo, maxpo = (get(name) for name in ("fitted_blend", "baseline_blend", "pkpo", "maxpo"))


def expected_gradient(num_groups, n, k, num_arms, estimator=None, norms=False, scores=False):
    """(E[g], exact gradient) over every batch of num_groups prompts with policies and rewards of their own: [G, A]."""
    generator = torch.Generator().manual_seed(num_groups * 100 + n * 10 + k)
    logits, arms = torch.randn(2, num_groups, num_arms, dtype=torch.float64, generator=generator)
    policy = logits.softmax(-1)
    actions = torch.tensor(list(itertools.product(range(num_arms), repeat=num_groups * n))).view(-1, num_groups, n)
    probability = torch.stack([policy[g][actions[:, g]] for g in range(num_groups)], 1).prod(-1).prod(-1)
    rewards = torch.stack([arms[g][actions[:, g]] for g in range(num_groups)], 1)
    score = torch.nn.functional.one_hot(actions, num_arms).double() - policy[:, None]  # [B, G, N, A]
    options = {"score_norms": score.square().sum(-1) if norms else None}
    if scores:  # the policy of each prompt has parameters of its own: whole scores are block vectors
        whole = torch.zeros(*score.shape[:-1], num_groups, num_arms, dtype=torch.float64)
        for g in range(num_groups):
            whole[:, g, :, g] = score[:, g]
        options["scores"] = whole.flatten(-2)
    advantages = (estimator or fitted_blend)(rewards, k=k, **options)
    gradient = torch.einsum("b,bgn,bgna->ga", probability, advantages, score) / n
    logits.requires_grad_()
    exact.arms_expected_max(logits, arms, k).sum().backward()
    return gradient, logits.grad


@pytest.mark.parametrize("mode", ["rewards", "norms", "scores"])
@pytest.mark.parametrize("num_groups, n, k, num_arms",
                         [(2, 3, 2, 3), (2, 4, 3, 2), (3, 3, 1, 2), (3, 3, 2, 2), (4, 3, 2, 2)])
def test_exactly_unbiased_over_every_batch(num_groups, n, k, num_arms, mode):
    found, truth = expected_gradient(num_groups, n, k, num_arms, norms=mode == "norms", scores=mode == "scores")
    assert (found - truth).abs().max() < 1e-13


def test_the_enumeration_catches_weights_that_look_at_their_own_group():
    def leaky(rewards, k, score_norms=None):
        means = rewards.mean(-1, keepdim=True)  # a group's own mean decides how its baseline is blended
        w = (means > means.mean(-2, keepdim=True)).double()
        return w * maxpo(rewards, k=k) + (1 - w) * pkpo(rewards, k=k)

    found, truth = expected_gradient(2, 3, 2, 3, estimator=leaky)
    assert (found - truth).abs().max() > 1e-3


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_one_group_takes_the_bootstrap_weight(k):
    rewards = torch.randn(3, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(fitted_blend(rewards, k=k), baseline_blend(rewards, k=k, w=(8 - k) / 7), atol=1e-12, rtol=0)


@pytest.mark.parametrize("k", [1, 3])
def test_a_groups_weights_ignore_its_own_fold_and_batches_are_independent(k):
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(2, 12, 8, dtype=torch.float64, generator=generator)
    advantages = fitted_blend(rewards, k=k)
    changed = rewards.clone()
    changed[:, 8] += torch.randn(8, dtype=torch.float64, generator=generator)  # group 8 shares its fold with group 0
    moved = (fitted_blend(changed, k=k) - advantages).abs().amax(-1)
    assert (moved[:, 0] < 1e-14).all() and (moved[:, 8] > 1e-3).all()
    assert (moved[:, 1] > 1e-9).all()  # the other folds do look at group 8
    assert torch.equal(fitted_blend(rewards[1:], k=k), advantages[1:])


@pytest.mark.parametrize("k", [1, 2, 5])
def test_shift_scale_ties_and_constant_batches(k):
    rewards = torch.randint(0, 4, (6, 8), generator=torch.Generator().manual_seed(2)).double()
    advantages = fitted_blend(rewards, k=k)
    assert torch.allclose(fitted_blend(3 * rewards + 100, k=k), 3 * advantages, atol=1e-11, rtol=0)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(fitted_blend(rewards[:, order], k=k), advantages[:, order], atol=1e-12, rtol=0)
    for group, row in zip(rewards, advantages, strict=True):
        for value in group.unique():
            assert (row[group == value] - row[group == value][0]).abs().max() < 1e-12
    assert torch.equal(fitted_blend(torch.full((6, 8), 0.3), k=k), torch.zeros(6, 8))


def test_a_gram_factor_gives_what_whole_scores_give():
    generator = torch.Generator().manual_seed(4)
    rewards = torch.rand(5, 6, dtype=torch.float64, generator=generator)
    scores = torch.randn(5, 6, 200, dtype=torch.float64, generator=generator)
    flat = scores.flatten(0, 1)
    values, vectors = torch.linalg.eigh(flat @ flat.T)
    factor = (vectors * values.clamp(min=0).sqrt()).view(5, 6, 30)
    whole = fitted_blend(rewards, k=3, scores=scores)
    assert torch.allclose(fitted_blend(rewards, k=3, scores=factor), whole, atol=1e-10)


def test_adapts_in_both_directions():
    """E[norm A^2], the variance under orthogonal scores: near or below the better of maxpo and pkpo on either side."""
    generator = torch.Generator().manual_seed(5)

    def ratio(p, n, k, failure_norm=1.0):
        rewards = (torch.rand(100, 64, n, generator=generator) < p).double()
        norms = torch.where(rewards > 0, 1.0, failure_norm).double()
        fitted, peak, leave = ((norms * a.square()).mean().item() for a in (
            fitted_blend(rewards, k=k, score_norms=norms), pkpo(rewards, k=k), maxpo(rewards, k=k)))
        return fitted / min(peak, leave), leave / peak

    easy, easy_leave = ratio(0.8, 16, 4)
    rare, rare_leave = ratio(0.05, 16, 4, failure_norm=2.5)
    assert easy_leave < 0.4 and rare_leave > 1.1  # maxpo wins one, pkpo the other
    assert easy < 0.95 and rare < 1.0


def test_prompts_of_different_difficulty_are_not_pooled():
    p = torch.tensor([0.02, 0.9]).repeat(16)[:, None]
    rewards = (torch.rand(100, 32, 16, generator=torch.Generator().manual_seed(6)) < p).double()
    square = {name: e(rewards, k=4).square().mean().item() for name, e in
              (("fitted", fitted_blend), ("pkpo", pkpo), ("maxpo", maxpo))}
    assert square["fitted"] < 1.02 * min(square["pkpo"], square["maxpo"])


@pytest.mark.parametrize("k, n, p", [(2, 4, 0.05), (2, 4, 0.3), (4, 16, 0.05)])
def test_few_groups_fall_back_on_the_prior(k, n, p):
    """Four groups: drawing their samples again is little news. Counted in full: 1.30 x the better in the first case."""
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(4000, 4, n, generator=generator, dtype=torch.float64) < p).double()
    size = {name: get(name)(rewards, k=k).square().mean() for name in ("fitted_blend", "maxpo", "pkpo")}
    assert size["fitted_blend"] < 1.22 * min(size["maxpo"], size["pkpo"])


def test_blocks_of_a_large_batch_change_nothing(monkeypatch):
    """A batch from which nothing is drawn again has the same advantages whole and worked off in blocks of groups."""
    module = importlib.import_module("maxpo_bench.estimators.fitted_blend")
    rewards = torch.rand(40, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    norms = torch.rand(40, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    monkeypatch.setattr(module, "REDRAWN", 0)
    whole = get("fitted_blend")(rewards, k=3, score_norms=norms)
    monkeypatch.setattr(module, "LARGE", 8)
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 56)
    assert torch.allclose(get("fitted_blend")(rewards, k=3, score_norms=norms), whole, rtol=0, atol=1e-12)
