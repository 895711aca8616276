"""Studies that train: what they want, where a sweep goes on, and the rates that are read from it."""

import pandas as pd
import pytest

from maxpo_bench.errors import InputError
from maxpo_bench.settings import params, task_file
from maxpo_bench.studies import group_size, k_trained, learning_rate, off_policy, own_best, trainings

ROOT = task_file.root()


@pytest.fixture
def maze():
    return task_file.load(ROOT / "tasks" / "maze.yaml")


def sweep(curves, seeds=2, status="ok"):
    """The table of a sweep; curves: {estimator: {lr: mean max@K, or None for a rate at which a seed diverged}}."""
    rows = []
    for estimator, means in curves.items():
        for lr, mean in means.items():
            for s in range(seeds):
                value = None if mean is None and s == 0 else (mean or 0.0) + 0.01 * (s - (seeds - 1) / 2)
                rows.append({"estimator": estimator, "lr": lr, "seed": 10000 + s, "status": status, "max_at_k": value})
    return pd.DataFrame(rows, columns=["estimator", "lr", "seed", "status", "max_at_k"])


def run_sweep(task, curve):
    """What a sweep ends with where max@K is curve(estimator, lr); and how often it was asked."""
    table, asked = sweep({}), 0
    while True:
        asked += 1
        wanted = learning_rate.trainings(task, ["a", "b"], table)
        now = {}
        for t in wanted:
            lr = t.overrides["optimiser.lr"]
            now.setdefault(t.estimator, {})[lr] = curve(t.estimator, lr)
        if sum(map(len, now.values())) * 2 == len(table):
            return {e: sorted(rates) for e, rates in now.items()}, asked
        table = sweep(now)


def test_a_sweep_whose_best_lies_inside_stops_at_five_rates(maze):
    lr = maze.optimiser["lr"]
    rates, asked = run_sweep(maze, lambda e, x: -abs(x - lr))
    assert rates == {e: [lr / 4, lr / 2, lr, 2 * lr, 4 * lr] for e in "ab"} and asked == 2


def test_a_sweep_goes_on_where_the_best_lies_at_its_edge(maze):
    """For that estimator alone; for all where the shared one does; to a limit."""
    lr = maze.optimiser["lr"]
    rates, _ = run_sweep(maze, lambda e, x: -abs(x - (16 * lr if e == "a" else lr)))
    assert rates["a"] == [lr * 2.0**j for j in range(-2, 6)] and rates["b"] == [lr * 2.0**j for j in range(-2, 3)]
    rates, _ = run_sweep(maze, lambda e, x: -abs(x - lr / 4))
    assert rates["a"] == rates["b"] == [lr * 2.0**j for j in range(-3, 3)]
    rates, _ = run_sweep(maze, lambda e, x: x)
    assert rates["a"] == rates["b"] == [lr * 2.0**j for j in range(-2, 7)]
    rates, _ = run_sweep(maze, lambda e, x: None if x > lr / 3 else x)  # what diverges is no best
    assert rates["a"] == [lr * 2.0**j for j in range(-3, 3)]
    rates, asked = run_sweep(maze, lambda e, x: 1.0)  # all the same: one of them lies inside
    assert len(rates["a"]) == 5 and asked == 2


def test_the_shared_rate_has_the_best_mean_rank_of_the_rates_all_were_run_at():
    table = sweep({"a": {1: 0.1, 2: 0.9, 4: 0.8, 8: 1.0}, "b": {1: 0.1, 2: 0.3, 4: 0.9}, "c": {1: 0.9, 2: 0.4, 4: None}})
    best, ranks = learning_rate.shared_rate(table)
    assert best == 2 and ranks.to_dict() == pytest.approx({1: 7 / 3, 2: 5 / 3, 4: 2})
    assert learning_rate.best_rates(table) == {"a": 8, "b": 4, "c": 1}
    assert learning_rate.at_the_edge(table) == {"a": True, "b": True, "c": True}
    assert learning_rate.mean_by_rate(table).loc["a", 2] == pytest.approx(0.9)


def test_an_estimator_that_does_not_apply_has_no_rate():
    table = pd.concat([sweep({"a": {1: 0.1, 2: 0.9, 4: 0.8}}), sweep({"b": {1: None, 2: None, 4: None}}, 1, "not_applicable")])
    assert learning_rate.best_rates(table) == {"a": 2} and learning_rate.shared_rate(table)[0] == 2


JOINED = ("pkpo_loo",)  # the default list after the rates were chosen: they got those, see docs/default-estimators.md


@pytest.mark.parametrize("name", params.read(ROOT)["task_studies"].get("learning_rate", []))
def test_the_committed_task_has_the_shared_rate_of_the_committed_sweep(name):
    path = ROOT / "results" / "trained" / "learning_rate" / f"{name}.csv"
    if not path.is_file():
        pytest.skip("no sweep yet")
    sweep = pd.read_csv(path)
    best, ranks = learning_rate.shared_rate(sweep[~sweep["estimator"].isin(JOINED)])
    assert task_file.load(ROOT / "tasks" / f"{name}.yaml").optimiser["lr"] == pytest.approx(best), ranks


def test_what_the_others_want(maze):
    wanted = {m.__name__.split(".")[-1]: m.trainings(maze, ["maxpo"], None) for m in (k_trained, group_size, off_policy)}
    assert [len(found) for found in wanted.values()] == [12, 9, 6]
    assert all(not t.seeds and t.estimator in ("maxpo", "pkpo", "grpo") for found in wanted.values() for t in found)
    samples = {t.overrides["group_size"] * t.overrides["groups"] for t in wanted["group_size"]}
    assert samples == {maze.group_size * maze.groups}
    for found in wanted.values():
        for training in found:
            assert task_file.load(str(maze.path), training.overrides).overrides == training.overrides
        assert sum(task_file.load(str(maze.path), t.overrides).loss == maze.loss for t in found) >= 3
    with pytest.raises(InputError, match="no whole number of groups of 32"):
        group_size.trainings(task_file.load(str(maze.path), {"groups": 3}), [], None)


def test_own_best_needs_the_sweep(tmp_path, monkeypatch, maze):
    (tmp_path / "params.yaml").write_text("tasks: []\n")
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="trained learning_rate maze"):
        own_best.trainings(maze, ["a"], None)
    path = tmp_path / "results" / "trained" / "learning_rate" / "maze.csv"
    path.parent.mkdir(parents=True)
    sweep({"a": {1.0: 0.1, 2.0: 0.9, 4.0: 0.8}}).to_csv(path, index=False)
    assert [t.overrides for t in own_best.trainings(maze, ["a"], None)] == [{"optimiser.lr": 2.0}]
    with pytest.raises(InputError, match="has no b"):
        own_best.trainings(maze, ["a", "b"], None)


def test_they_are_found_and_are_no_plain_studies():
    from maxpo_bench import studies

    assert trainings.names() == ["group_size", "k_trained", "learning_rate", "off_policy", "own_best"]
    assert not set(trainings.names()) & set(studies.names())
    with pytest.raises(InputError, match="did you mean 'own_best'"):
        trainings.get("own_bet")
