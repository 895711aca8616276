"""What trains beyond the default cells, learning rates to all estimators; and the line where it is not there."""

import numpy as np
import pandas as pd
import pytest
import synthetic

from maxpo_bench.report import build, figures, load, page, tables
from maxpo_bench.studies import power

NOT_YET = "Not computed yet: `make repro-studies`."


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = synthetic.write(tmp_path_factory.mktemp("trained"), ("maze", "bandit"), ("grpo", "pkpo", "maxpo"))
    synthetic.write_trained(root, ("maze", "bandit"), ("grpo", "pkpo", "maxpo"))
    synthetic.write_cheap(root, {"tailrl": 0.005, "dr_grpo": -0.2, "mmpo": 0.005, "rloo": 0.0}, ("maze", "bandit"))
    return root


def sections(root):
    """{title: text} of the Markdown report."""
    text = (root / "results" / "report.md").read_text()
    text = text.replace("\\`", "`")
    return {part.split("\n")[0]: part for part in text.split("\n## ")}


def test_what_is_not_computed_is_one_line(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    assert build(root) == 0
    found = sections(root)
    assert found["Learning rates"].count(NOT_YET) == 2 and found["K, N and off-policy"].count(NOT_YET) == 3
    assert NOT_YET in found["How many seeds a verdict takes"] and "`make repro-estimators`" in found["All estimators"]


def test_everything_is_shown_where_it_is_there(project):
    spread = np.random.default_rng(0).normal(size=32) * 0.1
    task = load.read(project).tasks["maze"]
    pd.DataFrame([power.row(task, rival, spread) for rival in ("pkpo", "grpo")]).to_csv(
        project / "results" / "studies" / "power.csv", index=False
    )
    assert build(project) == 0
    found = sections(project)
    assert not [title for title, text in found.items() if "Not computed yet" in text]
    for stem in ("learning_rate", "k_trained", "group_size", "estimators", "study_power"):
        assert (project / "results" / "figures" / f"{stem}.svg").is_file(), stem
    for name in ("learning_rate", "k_trained", "group_size", "off_policy", "estimators"):
        assert len(pd.read_csv(project / "results" / "tables" / f"{name}.csv")), name
    seeds = found["How many seeds a verdict takes"]
    assert all(f"{truth:g}: ✓" in seeds for truth in power.TRUTHS) and "seeds needed" in seeds
    assert "verdicts depends on the protocol" in found["Learning rates"]


def test_a_declared_task_without_a_table_is_named(project, monkeypatch):
    read = load.params_file.read
    monkeypatch.setattr(load.params_file, "read", lambda root: read(root) | {"task_studies": {"k_trained": ["maze", "cartpole"]}})
    results = load.read(project)
    assert results.absent == {"k_trained": ["cartpole"]}
    assert page.pending(results, "k_trained")["paragraphs"] == ["Not computed yet on cartpole: `make repro-studies`."]
    assert page.pending(results, "group_size") is None


def test_a_broken_table_is_a_note(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    synthetic.write_trained(root, ("maze",), ("pkpo", "maxpo"))
    folder = root / "results" / "trained"
    twice = lambda t: pd.concat([t, t.tail(1)])  # noqa: E731
    synthetic.edit_table(root, "trained/k_trained/maze.csv", twice)
    (folder / "group_size" / "maze.csv").write_text("task,estimator\nmaze,maxpo\n")
    results = load.read(root)
    assert set(results.trained) == {"learning_rate", "own_best", "off_policy"}
    assert any("k_trained/maze.csv: a training has the same seed twice" in note for note in results.notes)
    assert any("group_size/maze.csv: has no column lr" in note for note in results.notes)
    assert build(root) == 0


def test_rates_each_ones_own_best_and_the_best_rank(project):
    results = load.read(project)
    table = tables.learning_rate(results.trained["learning_rate"])
    best = tables.learning_rates(results.trained["learning_rate"], results).set_index("estimator")["maze"]
    assert best["maxpo"] == best["pkpo"] == "0.1" and best["grpo"] == "0.2" and best["best mean rank"] == "0.1"
    assert best["in use, shared"] == "0.1"
    figure, caption = figures.learning_rate(table, results)
    assert len(figure.axes) == 2 and "tuning seeds" in caption


def test_a_seed_without_a_value_does_not_count(project):
    rates = load.read(project).trained["learning_rate"]
    rates = rates.assign(max_at_k=rates["max_at_k"].where(rates["seed"] != 10_000))
    assert set(tables.learning_rate(rates)["num_seeds"]) == {5}


def test_training_for_k_is_compared_with_training_for_another(project):
    """Planted: training for k is best for k but for pkpo on the maze, where training for 8 wins at 4."""
    trained = load.read(project).trained["k_trained"].copy()
    rng = np.random.default_rng(0)
    mine = (trained["estimator"] == "pkpo") & (trained["task"] == "maze") & (trained["k"] == 8)
    trained.loc[mine, "max_at_4"] += 0.1 + 0.005 * rng.normal(size=mine.sum())
    table = tables.k_trained(trained).set_index(["task", "estimator", "k", "evaluated"])
    assert table.loc[("bandit", "maxpo", 2, 4), "gap"] == pytest.approx(-0.03)
    assert table.loc[("maze", "pkpo", 8, 4), "gap"] == pytest.approx(0.07, abs=0.01)
    assert table["fixed"].groupby("estimator").first().to_dict() == {"grpo": True, "maxpo": False, "pkpo": False}
    said = page.k_trained_said(table.reset_index(), 0.02)["paragraphs"][0]
    assert "in 15 of 16 cases" in said and "pkpo on maze, training for 8 is" in said and "in max@4" in said
    figure, caption = figures.k_trained(table.reset_index())
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["maze", "bandit"] and "6 seeds a task" in caption
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == [*(f"maxpo K={k}" for k in synthetic.KS), *(f"pkpo K={k}" for k in synthetic.KS), "grpo"]
    assert len(figure.axes[0].patches) == 8  # framed: of two estimators each K, evaluated at that K


def test_off_policy_is_paired_by_seed(project):
    table = tables.off_policy(load.read(project).trained["off_policy"])
    found = table.set_index(["task", "estimator", "epochs"])
    assert found.xs(2, level="epochs")["change"].to_numpy() == pytest.approx([0.01] * 6)
    lead = found["max_at_k_gap"]
    assert lead["maze", "pkpo", 1] == pytest.approx(lead["maze", "pkpo", 2]) and lead["maze", "maxpo", 2] == 0
    shown = page.off_policy(table)
    assert (
        set(shown.loc[shown["estimator"] == "maxpo", "minus maxpo"])
        == set(shown.loc[shown["epochs"] == 1, "minus 1 epoch"])
        == {"-"}
    )


def test_who_joins_the_default_list(project):
    """Within .01 of the best default joins, unless the same numbers are there; of twins the first."""
    results = load.read(project)
    table = tables.cheap(results, load.scales(results))
    rows = table[table["task"] == "mean"].set_index("estimator")
    assert rows.loc["tailrl", "joins"] and rows.loc["tailrl", "best"] == pytest.approx(0.005)
    assert rows.loc["mmpo", "same_as"] == "tailrl" and not rows.loc["mmpo", "joins"]
    assert rows.loc["rloo", "same_as"] == "maxpo" and not rows.loc["rloo", "joins"]
    assert not rows.loc["dr_grpo", "joins"] and rows.loc["dr_grpo", "gap"] == pytest.approx(-0.2)
    assert list(rows.index)[-1] == "dr_grpo" and set(rows.loc[rows["default"]].index) == {"grpo", "pkpo", "maxpo"}
    said = page.cheap_said(table)["paragraphs"]
    assert "docs/default-estimators.md" in said[0] and "these would join: tailrl (+.005)" in said[1]
    assert "mmpo and tailrl" in said[1]
    figure, _ = figures.estimators(table)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(rows.index)


def test_who_refuses_some_tasks_cannot_join(tmp_path):
    root = synthetic.write(tmp_path, ("maze", "bandit"), ("pkpo", "maxpo"), studies=False)
    synthetic.write_cheap(root, {"psr": 0.2}, ("maze", "bandit"))
    path = root / "results" / "estimators" / "bandit" / "psr"
    synthetic.cell_json(path, "bandit", "psr", 3, "", "not_applicable", "rewards must be 0 or 1")
    results = load.read(root)
    row = tables.cheap(results, load.scales(results)).query("estimator == 'psr' and task == 'mean'").iloc[0]
    assert row["num_tasks"] == 1 and not row["joins"] and np.isnan(row["best"])
