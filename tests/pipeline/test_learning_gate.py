"""`maxpo-bench compare` gates learning: planted mistakes in the loop and in an estimator are caught."""

import argparse
import copy
import shutil
import subprocess

import pytest

from maxpo_bench.estimators import get
from maxpo_bench.pipeline import base, cell, compare
from maxpo_bench.training import loop as training

TASK = """
version: 1
kind: bandit
title: Where the mean and the best of 2 want different arms
arms: {count: 16, rewards: risky}
k: 2
group_size: 8
groups: 8
steps: 150
seeds: 8
optimiser: {name: adam, lr: 0.1}
evaluation: {prompts: 32, samples: 64}
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A project whose results of bandit-maxpo are committed."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "bandit.yaml").write_text(TASK)
    (folder / "params.yaml").write_text("tasks: [bandit]\nestimators: [maxpo]\nstudies: []\nvariance_policy: maxpo\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert base.run_base("bandit") == 0 and cell.run_cell("bandit", "maxpo") == 0
    git = ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "published"], check=True)
    return folder


@pytest.fixture
def rerun(published, tmp_path, monkeypatch):
    """rerun() -> (exit code of `compare`, its lines of failure) after the cell ran again here."""
    folder = tmp_path / "here"
    shutil.copytree(published, folder)
    monkeypatch.chdir(folder)

    def run(task=TASK):
        if task != TASK:
            (folder / "tasks" / "bandit.yaml").write_text(task)
            assert base.run_base("bandit") == 0
        assert cell.run_cell("bandit", "maxpo") == 0
        return compare.main(argparse.Namespace(against="HEAD", results=None, all=False)), compare.compare(folder).failures

    return run


def test_the_same_code_passes(rerun):
    assert rerun() == (0, [])


def test_another_stream_of_random_numbers_passes(rerun, monkeypatch):
    """No byte is the same, and no drop is beyond chance."""
    from maxpo_bench.training import streams

    sequence = streams.sequence
    monkeypatch.setattr(streams, "sequence", lambda name, *key, **rest: sequence(f"other {name}", *key, **rest))
    code, failures = rerun()
    assert (code, failures) == (0, [])


def test_a_sign_error_in_the_loss_is_caught_by_what_is_learnt(rerun, monkeypatch):
    monkeypatch.setattr(training, "surrogate", lambda log_probs, advantages, *rest: advantages * log_probs)
    code, failures = rerun()
    assert code == 1 and any("max@K" in line and "bandit" in line for line in failures), failures


def test_an_off_by_one_in_k_is_caught_by_what_is_learnt(rerun, monkeypatch):
    """In the loop, where the probe of the estimator does not see it."""
    train = training.train

    def off_by_one(task, estimator, *rest):
        mistaken = copy.copy(estimator)
        mistaken.function = lambda rewards, k: estimator.function(rewards, k=k - 1)
        return train(task, mistaken, *rest)

    monkeypatch.setattr(training, "train", off_by_one)
    code, failures = rerun()
    assert code == 1 and any("max@K" in line for line in failures), failures
    assert not any("probe" in line for line in failures)


@pytest.mark.parametrize("planted", [lambda r, k: -get("pkpo")(r, k=k), lambda r, k: get("pkpo")(r, k=k + 1)], ids=["sign", "k"])
def test_the_same_mistakes_in_the_estimator_are_caught_by_its_probe(planted, rerun, monkeypatch):
    monkeypatch.setattr(get("maxpo"), "function", planted)
    code, failures = rerun()
    assert code == 1 and any("probe" in line for line in failures), failures


def test_a_cell_that_no_longer_runs_is_caught(rerun, monkeypatch):
    monkeypatch.setattr(training, "surrogate", lambda log_probs, advantages, *rest: float("nan") * log_probs)
    code, failures = rerun()
    assert code == 1 and any("diverged" in line for line in failures), failures
