"""Captions say what the rows say: a contradiction only where there is one, beyond the intervals."""

import re
from pathlib import Path

import pandas as pd
import pytest

from maxpo_bench import studies
from maxpo_bench.studies import bandit_snr, cost, effective_reward, local_optimum, pkpo_variance, regimes

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "studies"


@pytest.mark.parametrize("name", studies.names())
def test_every_caption_states_samples_seeds_and_interval(name):
    """On the committed data: how many samples, and as many as there are; the seeds; an interval, or why there is none."""
    if not (COMMITTED / f"{name}.csv").is_file():
        pytest.skip("this study has not been run yet")
    data = pd.read_csv(COMMITTED / f"{name}.csv")
    text = studies.caption(name, data)
    counts = [data[column] for column in ("num_groups", "num_estimates", "num_seeds") if column in data]
    if re.search(r"no sampl(es|ing)\b", text):
        assert not counts
    else:
        assert re.search(r"\bM = |\d gradient estimates a point|^Share of \d+ seeds|\b[Oo]ne\s+draw\b", text)
        assert re.search(r"\b([Oo]ne|\d+) seeds?\b|\bseeds of their own\b", text)
        if name == "cost":
            fast = data[~data["estimator"].isin(cost.SLOW_SIZES)]
            assert "M = 2^16 / N" in text and (fast["num_groups"] * fast["group_size"] == 2**16).all()
        else:
            said = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d|\d", text)}
            for count in counts:
                assert {count[count > 0].min(), count.max()} <= said
    if any(column == "low" or column.endswith("_low") for column in data):
        assert re.search(r"95% (\w+ )?interval", text) and "no interval" not in text
    else:
        assert re.search(r"\bno (seed and no )?interval\b|\(spread of groups, not of an estimate\)", text)


def test_the_studies_of_the_pipeline_have_been_run():
    assert len([name for name in studies.names() if (COMMITTED / f"{name}.csv").is_file()]) >= 9


@pytest.mark.parametrize("pkpo, words", [(0.7, "contradicts the claim"), (1.4, "as the claim says"), (1.0, "more in 0. ")])
def test_regimes(pkpo, words):
    exact = {"maxpo": 1.0, "pkpo": pkpo, "best constant w": 0.9, "baseline_blend": 1.1}
    rows = [{"regime": "a", "estimator": e, "ratio": r, "exact": True, "num_groups": 0, "to_best": r} for e, r in exact.items()]
    rows += [{"regime": "a", "estimator": "fitted_blend", "ratio": 0.9, "exact": False, "num_groups": 640, "to_best": 1.0}]
    caption = regimes.caption(pd.DataFrame(rows))
    assert words in caption and ("contradicts" in caption) == (pkpo < 1)


@pytest.mark.parametrize("maxpo, contradicts, apart", [(0.5, True, 0), (0.95, False, 0), (1.5, False, 1)])
def test_bandit_snr(maxpo, contradicts, apart):
    rows = [
        {"rewards": "linear", "arms": 4, "k": 2, "estimator": e, "snr": s, "low": s - 0.1, "high": s + 0.1}
        for e, s in (("pkpo", 1.0), ("maxpo", maxpo))
    ]
    caption = bandit_snr.caption(pd.DataFrame(rows))
    assert ("contradicts" in caption) == contradicts and f"in {apart} with the two intervals apart" in caption


@pytest.mark.parametrize("maxpo, words", [(2.0, "contradicts the claim"), (0.5, "as claimed"), (1.05, "more at 0 and less at 0")])
def test_pkpo_variance(maxpo, words):
    rows = [
        {"group_size": 8, "estimator": e, "variance": v, "low": v - 0.1, "high": v + 0.1}
        for e, v in (("pkpo", 1.0), ("maxpo", maxpo))
    ]
    caption = pkpo_variance.caption(pd.DataFrame(rows))
    assert words in caption and ("contradicts" in caption) == (maxpo > 1.2)


@pytest.mark.parametrize("larger, words", [(0.9, "as rs_grpo, beta 16."), (0.1, "this learning rate.")])
def test_local_optimum(larger, words):
    rows = [
        {"estimator": e, "step": 400, "escaped": v, "low": v - 0.05, "high": v + 0.05}
        for e, v in (("rs_grpo", 0.1), ("rs_grpo, beta 16", larger), ("maxpo", 0.9))
    ]
    caption = local_optimum.caption(pd.DataFrame(rows))
    assert caption.endswith(words) and ("escapes more often" in caption) == (larger > 0.5)
    assert "contradicts" not in local_optimum.caption(pd.DataFrame(rows).query("estimator != 'rs_grpo'"))


def test_an_estimator_that_refuses_every_reward_is_not_shown(monkeypatch):
    """And not shown with the advantages of the one before it."""
    from maxpo_bench import estimators
    from maxpo_bench.errors import InputError

    get = estimators.get

    class Refuses:
        valid_k = staticmethod(lambda n: range(1, n))

        def __call__(self, rewards, k):
            raise InputError("not for these rewards")

    monkeypatch.setattr(estimators, "names", lambda: ["maxpo", "refuses"])
    monkeypatch.setattr(estimators, "get", lambda name: Refuses() if name == "refuses" else get(name))
    assert set(effective_reward.run()["estimator"]) == {"maxpo"}
