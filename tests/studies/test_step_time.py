"""Steps that alternate: every estimator in every round, from the same policy, and a ratio that follows what is slow."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from maxpo_bench import estimators
from maxpo_bench.report import load
from maxpo_bench.settings import params, task_file
from maxpo_bench.studies import step_time
from tests.studies.test_power import BANDIT, WORDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(BANDIT)
    lists = {"tasks": ["tiny"], "estimators": ["rloo", "maxpo", "pkpo"], "studies": ["step_time"], "variance_policy": "maxpo"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(lists))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(step_time, "NUM_ROUNDS", 12)
    return tmp_path


class Slow:
    """An estimator that takes 20 ms more of the processor."""

    side = ()

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, rewards, k):
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        return self.inner(rewards, k=k)


def test_what_is_slow_is_seen_and_what_is_not_is_not(project, monkeypatch):
    get = estimators.get
    monkeypatch.setattr(estimators, "get", lambda name: Slow(get(name)) if name == "pkpo" else get(name))
    data = step_time.run()
    assert set(load.EXTRA_STUDIES["step_time"]) <= set(data) and (data["num_rounds"] == 12).all()
    rows = data.set_index("estimator")
    assert rows.loc["pkpo", "low"] > 2 and rows.loc["rloo", "high"] < rows.loc["pkpo", "low"]
    assert tuple(rows.loc["maxpo", ["ratio", "low", "high"]]) == (1, 1, 1)
    assert rows.loc["pkpo", "time_ms"] >= 20 > rows.loc["maxpo", "time_ms"]
    assert ((rows["low"] <= rows["ratio"]) & (rows["ratio"] <= rows["high"])).all()
    text = step_time.caption(data)
    assert "M = 12 rounds" in text and "16 seeds" in text and "95% interval" in text
    assert len(step_time.figure(data).axes) == 1


def test_every_estimator_takes_every_step_from_the_same_policy(project, monkeypatch):
    seen, step = [], step_time.one_step

    def spy(task, problem, run, estimator, number):
        before = problem.policy_states(run.policy)
        seconds = step(task, problem, run, estimator, number)
        after = problem.policy_states(run.policy)
        same = all(torch.equal(one[name], two[name]) for one, two in zip(before, after, strict=True) for name in one)
        seen.append((number, estimator.name, same))
        return seconds

    monkeypatch.setattr(step_time, "one_step", spy)
    step_time.measure(task_file.load("tiny"), ["rloo", "maxpo", "pkpo"])
    rounds = pd.DataFrame(seen, columns=["step", "estimator", "same"])
    assert rounds["same"].all()
    orders = rounds.groupby("step")["estimator"].agg(tuple)
    assert len(orders) == 12 + step_time.WARM_UP and all(sorted(order) == ["maxpo", "pkpo", "rloo"] for order in orders)
    assert len(set(orders)) > 2


def test_one_task_of_each_sort_is_timed(project, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert [task.name for task in step_time.one_of_each(params.read(ROOT)["tasks"])] == ["bandit", "maze", "cartpole", "countdown3"]
    (project / "tasks" / "words.yaml").write_text(WORDS)
    monkeypatch.chdir(project)
    times, num_seeds = step_time.measure(task_file.load("words"), ["maxpo", "rloo"])
    assert num_seeds == 1 and all(len(found) == 12 and (found > 0).all() for found in times.values())


def test_an_estimator_that_refuses_the_rewards_is_left_out(project, monkeypatch):
    from maxpo_bench.errors import InputError

    get = estimators.get

    class Refuses(Slow):
        def __call__(self, rewards, k):
            raise InputError("binary rewards only")

    monkeypatch.setattr(estimators, "get", lambda name: Refuses(get(name)) if name == "rloo" else get(name))
    assert set(step_time.run()["estimator"]) == {"maxpo", "pkpo"}


def test_the_interval_covers():
    rng, hits = np.random.default_rng(0), []
    for _ in range(200):
        busy = rng.exponential(0.3, 40)  # what the machine does in a round, it does to both
        times, reference = (level + busy + rng.exponential(0.2, 40) for level in (1.2, 1.0))
        truth = (1.2 + MEDIAN) / (1.0 + MEDIAN)
        _, low, high = step_time.ratio(times, reference, rng)
        hits.append(low <= truth <= high)
    assert 0.9 <= np.mean(hits) <= 0.99


NOISE = np.random.default_rng(9)
MEDIAN = float(np.median(NOISE.exponential(0.3, 10**6) + NOISE.exponential(0.2, 10**6)))
