"""The pilot: trains as a cell does, spreads are of paired differences, and what is promised of verdicts is what decide() gives."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from maxpo_bench import problems, studies
from maxpo_bench.estimators import get
from maxpo_bench.measure import statistics
from maxpo_bench.settings import task_file
from maxpo_bench.studies import power
from maxpo_bench.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
BANDIT = """version: 1
kind: bandit
title: tiny
arms: {count: 8, rewards: risky}
k: 2
group_size: 4
steps: 6
seeds: 50
optimiser: {name: adam, lr: 0.1}
evaluation: {every: 2, prompts: 2, samples: 8}
score: {success: 0.5}
"""
WORDS = """version: 1
kind: subset_sum
title: tiny
data: {digits: 3}
model: {architecture: llama, hidden_size: 16, layers: 1, heads: 2, mlp_size: 16}
warm_start: {steps: 3, batch_size: 8, lr: 3e-3, warmup_steps: 1}
sampling: {max_new_tokens: 4}
k: 2
group_size: 4
groups: 4
steps: 2
seeds: 5
optimiser: {name: adam, lr: 1e-2}
evaluation: {prompts: 4, samples: 8}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(BANDIT)
    (tmp_path / "tasks" / "words.yaml").write_text(WORDS)
    lists = {"tasks": ["tiny", "words"], "estimators": ["rloo", "maxpo", "pkpo", "bon_mean"], "studies": ["power"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(lists | {"variance_policy": "maxpo"}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(power, "NUM_SEEDS", 4)
    monkeypatch.setattr(power, "NUM_LANGUAGE_SEEDS", 3)
    return tmp_path


def test_the_pilot_repeats_byte_for_byte_and_draws_its_figure(project):
    import pandas as pd

    for file in ("a.csv", "b.csv"):
        studies.run_study("power", project / file)
    assert (project / "a.csv").read_bytes() == (project / "b.csv").read_bytes()
    data = pd.read_csv(project / "a.csv")
    assert list(data["task"] + " " + data["rival"]) == ["tiny rloo", "tiny pkpo", "tiny bon_mean", "words rloo", "words pkpo"]
    assert list(data["num_seeds"]) == [4] * 3 + [3] * 2 and list(data["seeds"]) == [50] * 3 + [5] * 2
    known = data.dropna(subset=["spread"])
    assert len(known) >= 3 and ((known["low"] < known["spread"]) & (known["spread"] < known["high"])).all()
    assert "M = 3 to 4 seeds" in studies.caption("power", data)
    assert len(power.figure(data).axes) == 2 and power.figure(data[data["rival"] != "pkpo"]).axes


def test_the_pilot_trains_as_a_cell_does_on_seeds_that_are_never_reported(project):
    """Without the evaluations along training, and beside other seeds: the same numbers."""
    task = task_file.load("tiny")
    found = power.pilot([task], ["maxpo", "rloo"])["tiny"]
    seeds = (10000, 10001, 10002, 10003)
    assert tuple(found["maxpo"]) == seeds and not set(seeds) & set(task.reported_seeds)
    alone = train(task, get("maxpo"), problems.build(task, (10002,)))
    assert found["maxpo"][10002] == alone.rows[-1]["max_at_k"] and alone.rows[-1]["step"] == task.steps


def test_differences_pair_by_seed_on_the_scale_of_the_report():
    values = {"maxpo": {10000: 0.5, 10001: 0.9, 10002: 0.7}, "pkpo": {10002: 0.6, 10000: 0.2}}
    assert power.differences(values)["pkpo"] == pytest.approx([0.3, 0.1])
    wide = {name: {seed: 100 * v - 100 for seed, v in found.items()} for name, found in values.items()}
    assert power.differences(wide)["pkpo"] == pytest.approx([0.3 / 0.7, 0.1 / 0.7])


@pytest.mark.parametrize("spread, width", [(0.22, 0.012), (0.02, 0.02), (0.11, 0.02), (0.001, 0.02)])
def test_the_seeds_that_would_do_are_the_fewest(spread, width):
    n = power.seeds_for(spread, width)
    assert power.half_width(spread, n) <= width and (n == 3 or power.half_width(spread, n - 1) > width)
    draws = np.random.default_rng(0).normal(size=n)
    found = statistics.mean_interval(draws / draws.std(ddof=1) * spread)
    assert (found.high - found.low) / 2 == pytest.approx(power.half_width(spread, n))


@pytest.mark.parametrize("spread, seeds", [(0.02, 50), (0.03, 16), (0.03, 4), (0.22, 300)])
@pytest.mark.parametrize("truth", power.TRUTHS)
def test_rates_are_those_of_simulated_verdicts(truth, spread, seeds):
    rng, count = np.random.default_rng(1), 1500
    intervals = [statistics.mean_interval(rng.normal(truth, spread, seeds)) for _ in range(count)]
    seen = [statistics.decide([interval], power.MARGIN)[0][0] for interval in intervals]
    rates = power.verdict_rates(spread, seeds, truth)
    assert sum(rates.values()) == pytest.approx(1) and set(rates) == set(statistics.VERDICTS)
    for verdict, p in rates.items():
        assert abs(seen.count(verdict) / count - p) < 4 * (p * (1 - p) / count) ** 0.5 + 1.5 / count, (verdict, rates)


def test_without_spread_nothing_is_promised():
    task = task_file.load(ROOT / "tasks" / "bandit.yaml")
    row = power.row(task, "pkpo", np.array([0.1, 0.1, 0.1]))
    assert np.isnan([row["spread"], row["half_width"], row["seeds_for_it"], row["undecided at 0"]]).all()


def test_the_margin_is_that_of_the_claims():
    claims = yaml.safe_load((ROOT / "claims.yaml").read_text())["claims"]
    assert {claim["margin"] for claim in claims if claim["measure"] == "max@K"} == {power.MARGIN}
