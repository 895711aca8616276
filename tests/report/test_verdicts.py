"""Claims are judged from the data: planted differences get the verdict they deserve, for each rival and aggregate by itself."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import synthetic

from maxpo_bench.errors import InputError
from maxpo_bench.report import load, page, verdicts
from maxpo_bench.settings import claims

TASKS = ("bandit", "maze", "frozenlake", "cliffwalking", "local_optimum", "cartpole", "countdown3")
ESTIMATORS = ("rloo", "pkpo", "maxpo")
GYM, LANGUAGE = TASKS[:6], TASKS[6:]


@pytest.fixture
def project(tmp_path):
    root = synthetic.write(tmp_path, TASKS, ESTIMATORS, seeds=20)
    for task in TASKS:  # one scale for all, so that planted gaps are the gaps found
        for estimator in ESTIMATORS:
            level = {metric: np.linspace(0.4, 0.6, 20).tolist() for metric in load.METRICS}
            synthetic.edit(root, task, estimator, lambda m, level=level: m["final"].update(level))
            synthetic.edit_table(root, f"runs/{task}/{estimator}/curve.csv.gz", lambda t: t.assign(max_at_k=0.5, pass_at_1=0.5))
    return root


def judge(root):
    results = load.read(root)
    return verdicts.judge(results, claims.read(root / "claims.yaml"))


def row(found, rival, aggregate="all", measure="max@K"):
    chosen = found[(found["rival"] == rival) & (found["aggregate"] == aggregate) & (found["measure"] == measure)]
    return chosen.iloc[0]


def plant(root, gap, noise=0.01, metric="max@K", rival="pkpo", tasks=TASKS):
    """Set the rival's metric to maxpo's minus gap on the tasks, with noise per seed."""
    rng = np.random.default_rng(4)
    for task in tasks:
        mine = np.array(json.loads((root / "results" / "runs" / task / "maxpo" / "metrics.json").read_text())["final"][metric])
        theirs = (mine - gap + noise * rng.normal(size=len(mine))).tolist()
        synthetic.edit(root, task, rival, lambda m, v=theirs: m["final"].update({metric: v}))


@pytest.mark.parametrize("metric", ["max@K", "pass@1"])
@pytest.mark.parametrize("gap, verdict", [(0.1, "supported"), (-0.1, "contradicted"), (0.0, "equivalent")])
def test_verdict_follows_the_data(project, gap, verdict, metric):
    plant(project, gap, metric=metric)
    found = row(judge(project)[0], "pkpo", measure=metric)
    assert found["verdict"] == verdict
    assert found["effect"] == pytest.approx(gap, abs=0.015) and found["low"] < found["effect"] < found["high"]
    assert found["num_pairs"] == 20 * len(TASKS) and found["num_tasks"] == len(TASKS) and pd.isna(found["seeds_factor"])


def test_undecided_says_how_many_seeds_it_would_take(project):
    plant(project, 0.01, noise=0.15)
    found = row(judge(project)[0], "pkpo")
    assert found["verdict"] == "undecided" and found["seeds_factor"] > 1.5


def test_each_rival_and_aggregate_by_itself(project):
    """No conjunction: a loss on language leaves the verdict on bandit and gym alone, one rival's that of another."""
    plant(project, 0.1, tasks=GYM)
    plant(project, -0.1, tasks=LANGUAGE)
    plant(project, -0.1, rival="rloo")
    found = judge(project)[0]
    assert row(found, "pkpo", "bandit and gym")["verdict"] == "supported"
    assert row(found, "pkpo", "math and language")["verdict"] == "contradicted"
    assert row(found, "pkpo", "all")["effect"] == pytest.approx((6 * 0.1 - 0.1) / 7, abs=0.01)
    assert set(found.loc[(found["rival"] == "rloo") & (found["measure"] == "max@K"), "verdict"]) == {"contradicted"}


def test_tasks_weigh_the_same_whatever_their_seeds(tmp_path):
    root = synthetic.write(tmp_path, ("bandit", "maze"), ("pkpo", "maxpo"), seeds={"bandit": 100, "maze": 5}, studies=False)
    for task, gap in (("bandit", 0.0), ("maze", 0.2)):
        plant(root, gap, tasks=(task,))
    assert row(judge(root)[0], "pkpo")["effect"] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(("tasks", "mostly"), [(("maze",), "maze"), (("maze", "frozenlake", "cliffwalking", "bandit"), "")])
def test_the_task_that_a_lead_comes_from_is_named(project, tasks, mostly):
    plant(project, 0.3, tasks=tasks)
    assert row(judge(project)[0], "pkpo", "bandit and gym")["mostly"] == mostly


def test_an_aggregate_that_is_all_tasks_is_not_judged_twice(tmp_path):
    root = synthetic.write(tmp_path, ("bandit", "maze"), ("pkpo", "maxpo"), studies=False)
    assert set(judge(root)[0]["aggregate"]) == {"all"}


def test_a_missing_cell_leaves_it_undecided_and_is_named(project):
    plant(project, 0.2)
    (project / "results" / "runs" / "maze" / "pkpo" / "metrics.json").unlink()
    found = judge(project)[0]
    whole = row(found, "pkpo")
    assert whole["verdict"] == "undecided" and "pkpo: missing (maze)" in whole["reason"] and whole["effect"] > 0.1
    assert row(found, "pkpo", "math and language")["verdict"] == "supported"


def test_a_rival_that_refuses_a_task_is_judged_on_the_others(project):
    plant(project, 0.2)

    def refuse(metrics):
        metrics.update(status="not_applicable", reason="no")
        metrics.pop("final")

    synthetic.edit(project, "maze", "pkpo", refuse)
    found = row(judge(project)[0], "pkpo")
    assert found["verdict"] == "supported" and found["left_out"] == 1 and "not applicable to maze" in found["reason"]


def test_a_verdict_that_flips_says_so(project):
    """maxpo ahead all along, and level at the end: 'equivalent' after training, 'supported' at half and by area."""
    rng = np.random.default_rng(0)
    plant(project, 0.0, noise=0.003)
    for task in TASKS:

        def late(table):
            rise = table["step"] / table["step"].max()
            return table.assign(max_at_k=0.5 - 0.3 * rise * (1 - rise) + 0.003 * rng.normal(size=len(table)))

        synthetic.edit_table(project, f"runs/{task}/pkpo/curve.csv.gz", late)
    found = row(judge(project)[0], "pkpo")
    assert found["verdict"] == "equivalent" and found["at half of the steps"] == found["area under the curve"] == "supported"
    assert found["flips"]
    assert not row(judge(project)[0], "pkpo", measure="pass@1")["flips"]


def test_a_verdict_that_depends_on_the_learning_rates_says_so(project):
    """Ahead at the shared rate, behind once the rival has its own best one; tasks that were not swept are not looked at."""
    plant(project, 0.1)
    results = project / "results"
    for task in ("bandit", "maze"):
        shutil.copytree(results / "runs" / task / "pkpo", results / "own_best" / task / "pkpo")
        path = results / "own_best" / task / "pkpo" / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics["final"]["max@K"] = [v + 0.3 for v in metrics["final"]["max@K"]]
        path.write_text(json.dumps(metrics))
    shared, own = verdicts.PROTOCOLS
    found = row(judge(project)[0], "pkpo")
    assert (found["verdict"], found[shared], found[own]) == ("supported", "supported", "contradicted") and found["depends"]
    assert found[f"{shared}: effect"] == pytest.approx(0.1, abs=0.01) and found[f"{own}: high"] < 0
    other = row(judge(project)[0], "rloo")
    assert other[shared] == other[own] and not other["depends"]
    said, table = page.protocols(judge(project)[0])
    assert "max@K against pkpo (all)" in said["paragraphs"][0] and "max@K against rloo" not in said["paragraphs"][0]
    assert sum(row[-1]["text"] == "yes" for row in table["rows"]) == said["paragraphs"][0].count(" against ")


def test_half_of_the_steps_lies_between_evaluations(tmp_path):
    root = synthetic.write(tmp_path, ("bandit",), ("pkpo", "maxpo"), steps=(0, 30, 60, 100), studies=False)
    synthetic.edit_table(root, "runs/bandit/maxpo/curve.csv.gz", lambda t: t.assign(max_at_k=t["step"] / 100))
    synthetic.edit_table(root, "runs/bandit/pkpo/curve.csv.gz", lambda t: t.assign(max_at_k=0.0))
    results = load.read(root)
    views = verdicts.compare(results, "maxpo", {"measure": "max@K", "against": "default"})
    assert views["at half of the steps"]["pkpo", "bandit"] == pytest.approx([0.5] * 10)
    assert views["area under the curve"]["pkpo", "bandit"] == pytest.approx([0.5] * 10)


def test_identical_seeds_give_no_verdict(project):
    plant(project, 0.1, noise=0.0)
    found = row(judge(project)[0], "pkpo")
    assert found["verdict"] == "undecided" and "no spread" in found["reason"] and pd.isna(found["low"])


@pytest.mark.parametrize("ratio, verdict", [(1.5, "supported"), (0.7, "contradicted"), (1.01, "equivalent")])
def test_variance_is_judged_on_the_log_scale(project, ratio, verdict):
    for task in TASKS:

        def set_ratio(table):
            mine = table["estimator"] == "pkpo"
            return table.assign(
                ratio_to_maxpo=table["ratio_to_maxpo"].where(~mine, ratio),
                ratio_low=table["ratio_low"].where(~mine, ratio * 0.98),
                ratio_high=table["ratio_high"].where(~mine, ratio * 1.02),
            )

        synthetic.edit_table(project, f"variance/{task}.csv", set_ratio)
    found = judge(project)[0]
    assert row(found, "pkpo", measure="gradient variance")["verdict"] == verdict
    assert row(found, "pkpo", measure="gradient variance")["effect"] == pytest.approx(ratio)
    assert set(found.loc[found["measure"] == "gradient variance", "rival"]) == {"pkpo"}  # rloo has another expected gradient
    (project / "results" / "variance" / "maze.csv").unlink()
    absent = row(judge(project)[0], "pkpo", measure="gradient variance")
    assert absent["verdict"] == "undecided" and "not measured (maze)" in absent["reason"]


def test_time_comes_from_the_interleaved_steps_alone(project):
    assert row(judge(project)[0], "pkpo", measure="max@K") is not None
    assert not len(judge(project)[0].query("measure == 'time'"))
    rows = [[t, e, 1.5 if e == "pkpo" else 1.0, 1.4 if e == "pkpo" else 0.95, 1.6 if e == "pkpo" else 1.05]
            for t in ("bandit", "countdown3") for e in ESTIMATORS]  # fmt: skip
    table = pd.DataFrame(rows, columns=["task", "estimator", "ratio", "low", "high"])
    table.to_csv(project / "results" / "studies" / "step_time.csv", index=False)
    found = judge(project)[0]
    assert row(found, "pkpo", measure="time")["verdict"] == "supported"
    assert row(found, "pkpo", measure="time")["effect"] == pytest.approx(1.5)
    assert row(found, "rloo", measure="time")["verdict"] == "equivalent" and row(found, "rloo", measure="time")["num_tasks"] == 2


def test_properties_are_read_not_assumed(project):
    assert set(judge(project)[2]["verdict"]) == {"supported"}
    mine = lambda t: t["estimator"] == "maxpo"  # noqa: E731
    synthetic.edit_table(project, "studies/properties.csv", lambda t: t.assign(centred=t["centred"].where(~mine(t), "no")))
    found = judge(project)[2].set_index("claim")["verdict"]
    assert found.to_dict() == {"unbiased": "supported", "centred": "contradicted"}
    synthetic.edit_table(project, "studies/properties.csv", lambda t: t.drop(columns="centred"))
    with pytest.raises(InputError, match="properties.csv has no 'centred'"):
        judge(project)


def test_single_tasks_have_intervals_and_no_verdict(project):
    by_task = judge(project)[1]
    assert set(by_task["task"]) == set(TASKS) and "verdict" not in by_task
