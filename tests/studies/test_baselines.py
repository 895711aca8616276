"""The two studies of baselines: their closed forms against enumeration and sampling, bytes that repeat, figures."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from maxpo_bench import studies
from maxpo_bench.estimators import get
from maxpo_bench.studies import mixed_groups, shrunk_baseline


@pytest.mark.parametrize(
    "n, p, bias",
    [
        (8, 0.01, 0.119),
        (8, 0.1, 0.076),
        (8, 0.25, 0.028),
        (8, 0.5, 0.0),
        (8, 0.9, -0.076),
        (2, 0.01, 0.49),
        (2, 0.1, 0.40),
        (2, 0.25, 0.25),
        (2, 0.5, 0.0),
        (2, 0.9, -0.40),
    ],
)
def test_the_published_biases_to_three_digits(n, p, bias):
    assert mixed_groups.conditional_mean(p, n) - p == pytest.approx(bias, abs=5e-4 if n == 8 else 5e-3)


@pytest.mark.parametrize("n, p", [(2, 0.3), (4, 0.9), (6, 0.05)])
def test_mixed_groups_by_enumeration(n, p):
    """The mean among mixed groups, and rloo's gradient in the success probability's logit: over all groups, and over them."""
    groups = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)
    chance = (groups * p + (1 - groups) * (1 - p)).prod(-1)
    mixed = (groups.sum(-1) > 0) & (groups.sum(-1) < n)
    assert chance[mixed].sum().item() == pytest.approx(mixed_groups.mixed(p, n), rel=1e-12)
    mean = (chance * groups.mean(-1))[mixed].sum() / chance[mixed].sum()
    assert mean.item() == pytest.approx(mixed_groups.conditional_mean(p, n), rel=1e-12)
    gradient = (get("rloo")(groups) * (groups - p)).mean(-1)
    assert (chance * gradient).sum().item() == pytest.approx(p * (1 - p), rel=1e-12)  # grad of p in its logit
    among = ((chance * gradient)[mixed].sum() / chance[mixed].sum()).item()
    row = mixed_groups.run().query("group_size == 4 and success_probability == 0.9").iloc[0]
    assert among == pytest.approx(p * (1 - p) / mixed_groups.mixed(p, n), rel=1e-12)
    assert row["gradient_factor"] == pytest.approx(1 / mixed_groups.mixed(0.9, 4), rel=1e-12)


def draw(share, n, num_groups, seed=0):
    noise, size = np.random.default_rng(seed), 1 / share - 1
    chance = noise.beta(0.3 * size, 0.7 * size, size=(num_groups, 1))
    return (noise.random((num_groups, n)) < chance).astype(float), chance


@pytest.mark.parametrize("share, n", [(0.1, 4), (0.6, 32), (0.9, 2)])
def test_limits_of_ebpo_and_of_known_moments_by_sampling(share, n):
    """EBPO as it is run: S from the variances of all rewards and of all group means, here over 200,000 groups."""
    rewards, chance = draw(share, n, 200_000)
    means = rewards.mean(1, keepdims=True)
    plain = ((means - chance) ** 2).mean()
    s = rewards.var() / n / (rewards.var() / n + means.var())
    found = (((1 - s) * means + s * rewards.mean() - chance) ** 2).mean() / plain
    assert found == pytest.approx(shrunk_baseline.ebpo(share, n), rel=0.03)
    within, between = (1 - share) * 0.21 / n, share * 0.21
    s = within / (within + between)
    found = (((1 - s) * means + s * 0.3 - chance) ** 2).mean() / plain
    assert found == pytest.approx(shrunk_baseline.known(share, n), rel=0.03) and found < 1


@pytest.mark.parametrize("share", [0.3, 0.5, 0.55, 0.6, 0.8])
def test_where_ebpo_reverses(share):
    n = np.arange(2, 400)
    worse = shrunk_baseline.ebpo(share, n) > 1 + 1e-12
    assert (worse == (n > shrunk_baseline.reversal(share) + 1e-9)).all()
    assert worse.any() == (share > 0.5)
    assert (shrunk_baseline.known(share, n) < 1).all()


def test_jspo_gains_with_many_groups_and_loses_with_few(monkeypatch):
    monkeypatch.setattr(shrunk_baseline, "NUM_BATCHES", 200)
    monkeypatch.setattr(shrunk_baseline, "SIZES", (4, 16))
    monkeypatch.setattr(shrunk_baseline, "SHARES", (0.1, 0.7))
    data = shrunk_baseline.run()
    assert data.equals(shrunk_baseline.run())
    rows = data[data["baseline"] == "jspo"].set_index(["groups", "share", "group_size"])
    assert (rows["low"] < rows["ratio"]).all() and (rows["ratio"] < rows["high"]).all()
    assert (rows["high"].loc[32] < 1).all() and rows["low"].loc[4, 0.7, 16] > 1 and rows["high"].loc[4, 0.1, 4] < 1
    text = shrunk_baseline.caption(data)
    assert "contradicts" in text and "share 0.7: N > 1.7" in text and "with 4 groups in a batch or fewer" in text
    assert len(shrunk_baseline.figure(data).axes) == 3


def test_the_baseline_of_jspo_is_measured_against_the_prompt_s_own_rate(monkeypatch):
    monkeypatch.setattr(shrunk_baseline, "NUM_BATCHES", 400)
    own, plain = shrunk_baseline.sampled(0.3, 8, 32)
    assert plain.mean() == pytest.approx(0.7 * 0.21 / 7, rel=0.05)  # sigma^2 / (N-1)
    assert own.mean() < plain.mean()


def test_mixed_groups_repeat_and_draw(tmp_path):
    for file in ("a.csv", "b.csv"):
        studies.run_study("mixed_groups", tmp_path / file)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    data = pd.read_csv(tmp_path / "a.csv")
    assert "p = 0.1: +0.076" in studies.caption("mixed_groups", data)
    assert len(mixed_groups.figure(data).axes) == 2
