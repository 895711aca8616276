"""Claims are judged from the data: planted effects get the verdict they deserve, in both directions."""

import json

import numpy as np
import pandas as pd
import pytest
import synthetic

from maxpo_bench.errors import InputError
from maxpo_bench.report import claims, load, recommend, tables

TASKS, ESTIMATORS = ("maze", "frozenlake", "countdown3"), ("rloo", "pkpo", "maxpo")


@pytest.fixture
def project(tmp_path):
    return synthetic.write(tmp_path, TASKS, ESTIMATORS)


def judged(root):
    return {c.id: c for c in claims.judge(load.read(root))}


def plant(root, gap, noise=0.01, metric="max@K", estimator="maxpo", other="pkpo"):
    """Set the estimator's metric to the other's plus gap on every task, with noise per seed."""
    rng = np.random.default_rng(4)
    for task in TASKS:
        path = root / "results" / "runs" / task / other / "metrics.json"
        base = np.array(json.loads(path.read_text())["final"][metric])
        synthetic.edit(
            root,
            task,
            estimator,
            lambda m, b=base: m["final"].update({metric: (b + gap + noise * rng.normal(size=len(b))).tolist()}),
        )


@pytest.mark.parametrize("gap, verdict", [(0.1, "supported"), (-0.1, "contradicted"), (0.0, "inconclusive")])
def test_max_at_k_follows_the_data(project, gap, verdict):
    plant(project, gap)
    found = judged(project)["max_at_k_overall"]
    assert found.verdict == verdict
    assert found.effect == pytest.approx(gap, abs=0.015)
    assert found.low < found.effect < found.high and found.num_pairs == 30


@pytest.mark.parametrize(
    "gap, verdict", [(0.0, "supported"), (-0.01, "supported"), (-0.06, "contradicted"), (-0.02, "inconclusive")]
)
def test_no_loss_is_judged_against_the_margin(project, gap, verdict):
    plant(project, gap, metric="pass@1", noise=0.005)
    assert judged(project)["pass_at_1"].verdict == verdict


def test_one_task_the_other_way_contradicts_a_claim_about_each(project):
    plant(project, 0.1)
    assert judged(project)["max_at_k_by_task"].verdict == "supported"
    synthetic.edit(
        project,
        "maze",
        "maxpo",
        lambda m: m["final"].update({"max@K": [v - 0.3 + 0.01 * i for i, v in enumerate(m["final"]["max@K"])]}),
    )
    found = judged(project)["max_at_k_by_task"]
    assert found.verdict == "contradicted" and found.count("supported") == 2
    assert "maze" in found.reason and found.effect < 0


def test_properties_are_read_not_assumed(project):
    assert judged(project)["centred"].verdict == "supported"
    path = project / "results" / "studies" / "properties.csv"
    table = pd.read_csv(path)
    table.loc[table["estimator"] == "maxpo", ["centred", "unbiased_for", "bias_jk"]] = ["no", "none", 0.3]
    table.to_csv(path, index=False)
    found = judged(project)
    assert found["centred"].verdict == "contradicted" and found["unbiased"].verdict == "contradicted"
    assert found["unbiased"].effect == 0.3


@pytest.mark.parametrize("power, verdict", [(1.0, "supported"), (2.6, "contradicted")])
def test_growth(project, power, verdict):
    path = project / "results" / "studies" / "cost.csv"
    table = pd.read_csv(path)
    rng = np.random.default_rng(0)
    table["time_us_per_group"] = table["group_size"] ** power * np.exp(0.02 * rng.normal(size=len(table)))
    table.to_csv(path, index=False)
    assert judged(project)["time"].verdict == verdict


def test_variance_on_the_log_scale(project):
    for task in TASKS:
        path = project / "results" / "variance" / f"{task}.csv"
        table = pd.read_csv(path)
        for column, value in (("ratio_to_maxpo", 1.5), ("ratio_low", 1.4), ("ratio_high", 1.6)):
            table.loc[table["estimator"] == "pkpo", column] = value
        table.to_csv(path, index=False)
    results = load.read(project)
    found = next(c for c in claims.judge(results) if c.id == "variance_by_task")
    assert found.verdict == "supported" and {f.against for f in found.findings} == {"pkpo"}
    assert found.effect == 1.5 and len(found.findings) == 9


def test_regimes_exact_and_sampled(project):
    """Exact ratios decide without an interval, sampled ones by theirs."""
    rows = [
        {"regime": "a", "estimator": "pkpo", "ratio": 1.3, "low": None, "high": None, "exact": True, "num_groups": 0},
        {"regime": "b", "estimator": "pkpo", "ratio": 1.05, "low": 0.9, "high": 1.2, "exact": False, "num_groups": 500},
        {"regime": "a", "estimator": "fitted_blend", "ratio": 9.0, "low": None, "high": None, "exact": True, "num_groups": 0},
    ]
    path, params = project / "results" / "studies" / "regimes.csv", project / "params.yaml"
    params.write_text(params.read_text().replace('"cost"', '"cost", "regimes"'))
    for exact, verdict in ((1.3, "inconclusive"), (0.9, "contradicted")):
        rows[0]["ratio"] = exact
        pd.DataFrame(rows[:2]).to_csv(path, index=False)
        found = judged(project)["variance_by_regime"]
        assert [f.verdict for f in found.findings] == ["supported" if exact > 1 else "contradicted", "inconclusive"]
        assert found.verdict == verdict


def test_identical_seeds_give_no_verdict(project):
    for task in TASKS:
        for estimator in ESTIMATORS:
            synthetic.edit(project, task, estimator, lambda m: m["final"].update({"max@K": [0.5] * len(m["seeds"])}))
    found = judged(project)["max_at_k_overall"]
    assert found.verdict == "inconclusive" and found.low is None and "no spread" in found.reason


def test_false_alarms_stay_below_5_percent(project):
    """Under no difference at all a claim about 3 tasks must not be decided more often than 5%."""
    text = (project / "claims.yaml").read_text()
    start = text.index("  - id: max_at_k_by_task")
    (project / "claims.yaml").write_text("method: maxpo\nclaims:\n" + text[start : text.index("  - id: max_at_k_centred")])
    results, decided = load.read(project), 0
    rng = np.random.default_rng(8)
    for _ in range(200):
        for cell in results.cells.values():
            cell.metrics["final"]["max@K"] = rng.normal(0.5, 0.1, len(cell.metrics["seeds"])).tolist()
        decided += judged_from(results, "max_at_k_by_task").verdict != "inconclusive"
    assert decided <= 17


def judged_from(results, claim):
    return next(c for c in claims.judge(results) if c.id == claim)


@pytest.mark.parametrize(
    "text, message",
    [
        ("method: maxpo\nclaims:\n- {id: a, statement: b, measure: max@k}", "measure: unknown 'max@k', did you mean 'max@K'?"),
        (
            "method: maxpo\nclaims:\n- {id: a, statement: b, measure: max@K, margn: 1}",
            "unknown key 'margn', did you mean 'margin'?",
        ),
        ("claims: []", "must hold"),
        ("method: [", "not valid YAML"),
    ],
)
def test_broken_claims_file_is_one_line(project, text, message):
    (project / "claims.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        judged(project)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_advice_follows_the_data(project):
    results = load.read(project)
    first = recommend.advise(results)[0]
    assert first.best == "maxpo" and first.num_tasks == 3
    plant(project, 0.3, estimator="rloo", other="maxpo")
    first = recommend.advise(load.read(project))[0]
    assert first.best == "rloo" and first.sure == "clear" and set(first.worse) == {"maxpo", "pkpo"}
    plant(project, 0.0, estimator="rloo", other="maxpo", noise=0.03)
    first = recommend.advise(load.read(project))[0]
    assert first.tied and first.sure != "clear"


def test_diverged_seeds_are_left_out_and_named(project):
    def diverge(metrics):
        metrics["status"], metrics["reason"] = "diverged", "seed 1: loss is NaN at step 12"
        for values in (metrics["final"]["max@K"], metrics["final"]["pass@1"]):
            values[1] = None

    synthetic.edit(project, "maze", "maxpo", diverge)
    results = load.read(project)
    assert 1 not in results.cells["maze", "maxpo"].values("max@K")
    found = judged_from(results, "max_at_k_by_task")
    maze = next(f for f in found.findings if f.where == "maze")
    assert maze.num_pairs == 9 and "maxpo: diverged" in maze.reason
    assert tables.cells(results).query("task == 'maze' and estimator == 'maxpo'")["num_seeds"].item() == 9
