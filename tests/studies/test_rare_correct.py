"""The categorical simulation: the sampled actions alone give what all 128,000 would, Adam is torch's, the published start."""

import numpy as np
import pandas as pd
import pytest
import torch

from maxpo_bench import studies
from maxpo_bench.studies import rare_correct


@pytest.fixture
def small(monkeypatch):
    for name, value in {"NUM_ACTIONS": 60, "NUM_CORRECT": 12, "STEPS": 25, "LR": 0.1, "ANCHOR": 2.0, "LOGITS": (1.0, 0.0)}.items():
        monkeypatch.setattr(rare_correct, name, value)


def test_the_start_is_the_published_one():
    mass, retained, anchor = rare_correct.Policy().correct_mass()
    assert mass == pytest.approx(0.63, abs=5e-3) and anchor == pytest.approx(4.7e-4, rel=0.02) and retained == 1
    assert np.exp(3) / np.exp(5) * anchor == pytest.approx(6.3e-5, rel=0.01)  # of one of the other correct actions


def dense(n, gamma, seed):
    """All actions, each with a logit, torch's Adam on the surrogate, torch's own sampling."""
    r = rare_correct
    generator = torch.Generator().manual_seed(seed)
    logits = torch.zeros(r.NUM_ACTIONS, dtype=torch.float64)
    logits[: r.NUM_CORRECT], logits[0] = r.LOGITS[0], r.ANCHOR
    logits.requires_grad_()
    start = logits.detach().softmax(0)[: r.NUM_CORRECT]
    adam = torch.optim.Adam([logits], lr=r.LR)
    for _ in range(r.STEPS):
        p = logits.softmax(0)
        picks = torch.multinomial(p.detach(), n, replacement=True, generator=generator)
        rewards = torch.where(picks < r.NUM_CORRECT, 1.0, -1.0).double()
        share = (picks < r.NUM_CORRECT).double().mean()
        advantages = (1 - share) ** gamma * (rewards - rewards.mean())
        adam.zero_grad()
        (-(advantages * p[picks] / p[picks].detach()).mean()).backward()
        adam.step()
    p = logits.detach().softmax(0)[: r.NUM_CORRECT]
    return p.sum().item(), (1 - (start - p).clamp(min=0).sum() / start.sum()).item(), p[0].item()


@pytest.mark.parametrize("n, gamma", [(4, 0), (32, 0), (32, 1)])
def test_counting_what_was_not_sampled_changes_nothing_in_distribution(small, n, gamma):
    noise = np.random.default_rng(0)
    found = np.array([rare_correct.train(n, gamma, noise) for _ in range(150)])
    wanted = np.array([dense(n, gamma, seed) for seed in range(150)])
    error = np.sqrt(found.var(0) / len(found) + wanted.var(0) / len(wanted))
    assert (np.abs(found.mean(0) - wanted.mean(0)) < 4 * error).all(), (found.mean(0), wanted.mean(0), error)
    assert (np.abs(found.std(0) - wanted.std(0)) < 0.3 * wanted.std(0) + 5e-3).all() and (error < 0.02).all()


def test_the_steps_are_adam_s_on_log_p(small):
    """The same counts: the sampled actions' logits are torch's, the others' stay."""
    policy, noise = rare_correct.Policy(), np.random.default_rng(1)
    logits = torch.zeros(rare_correct.NUM_ACTIONS, dtype=torch.float64)
    logits[0] = rare_correct.ANCHOR
    logits.requires_grad_()
    adam = torch.optim.Adam([logits], lr=rare_correct.LR)
    for _ in range(20):
        counts, known = policy.sample(8, noise), policy.num
        assert counts.sum() == 8 and len(counts) == known
        with torch.no_grad():  # an action first sampled now had its own first logit all along
            untouched = (logits.grad is None or logits.grad[:known] == 0) & (torch.from_numpy(policy.first[:known]) == 0)
            logits[:known] = torch.where(untouched, torch.from_numpy(policy.logits[:known]).double(), logits[:known])
        policy.climb(counts, 8, 1)
        share = float(counts @ policy.correct[:known]) / 8
        advantages = (1 - share) * 2 * (torch.from_numpy(policy.correct[:known]).double() - share)
        adam.zero_grad()
        loss = -(torch.from_numpy(counts).double() / 8 * advantages * logits.log_softmax(0)[:known]).sum()
        loss.backward()
        adam.step()
    assert policy.num > 15
    np.testing.assert_allclose(policy.logits[: policy.num], logits.detach()[: policy.num], atol=2e-5)
    assert (logits.grad[policy.num :].abs() < 1e-15).all()  # what is not sampled has no gradient
    assert policy.left[0] + policy.left[1] + policy.num == 60 and (policy.correct[: policy.num].sum() + policy.left[0]) == 12


def test_masses_are_a_distribution_and_nothing_is_lost_at_the_start(small):
    policy = rare_correct.Policy()
    noise = np.random.default_rng(0)
    counts = policy.sample(10_000, noise)
    assert policy.num == 60 and policy.left == [0, 0]
    wanted = policy.masses()[:-2] / policy.masses().sum()
    assert np.abs(counts / 10_000 - wanted).max() < 5 * np.sqrt(0.25 / 10_000)
    assert policy.correct_mass()[1] == pytest.approx(1, abs=1e-6)


def test_rows_repeat_and_the_caption_says_what_they_say(small, monkeypatch, tmp_path):
    monkeypatch.setattr(rare_correct, "SIZES", (2, 16))
    monkeypatch.setattr(rare_correct, "STEPS", 5)
    for file in ("a.csv", "b.csv"):
        studies.run_study("rare_correct", tmp_path / file)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    data = pd.read_csv(tmp_path / "a.csv")
    assert list(zip(data["group_size"], data["gamma"], strict=True)) == [(2, 0), (2, 1), (16, 0), (16, 1)]
    assert (data["retained_low"] <= data["retained"]).all() and data.notna().all().all()
    text = studies.caption("rare_correct", data)
    assert "M = 4 runs" in text and "95% intervals" in text
    assert len(rare_correct.figure(data).axes) == 2
