"""Every estimator of the registry, in every calling convention, gets its own name and the right verdict."""

import pytest
from shapes import WRAPPERS

from maxpo_bench.check import check_estimator
from maxpo_bench.estimators import get, names

OWN_IN_SCALE = {  # by their formulas: the own reward is in a std, a mean that divides, a sum of deviations or a weight of groups
    "bnpo", "bon_mean", "dgpo", "f_grpo", "grpo", "grpo_passk", "maxrl", "ngrpo", "passk_reweighted", "qae", "reinforce_pp",
    "reinforce_pp_baseline", "rs_grpo",
}  # fmt: skip
OWN_IN_BASELINE = {"dr_grpo", "gpg", "opo", "pkpo_centred"}
BLOW_UP = {"grpo_loo_std", "mc_grpo"}
BY_ORDER = {"krpo"}
DDOF_1 = {"reinforce_pp", "reinforce_pp_baseline"}


@pytest.mark.parametrize("convention", WRAPPERS)
@pytest.mark.parametrize("name", names())
def test_verdict_on_the_registry(name, convention):
    estimator = get(name)
    report = check_estimator(WRAPPERS[convention](estimator))
    assert report.convention == convention
    assert report.equals == name
    assert report.seconds < 30
    failed = set() if estimator.unbiased else {"unbiased"}
    failed |= {"own reward"} if name in OWN_IN_SCALE | OWN_IN_BASELINE else set()
    failed |= {"blow-up"} if name in BLOW_UP else set()
    failed |= {"ties", "permutation"} if name in BY_ORDER else set()
    failed |= {"ddof"} if name in DDOF_1 else set()
    assert set(report.failed) == failed, str(report)
    for finding in report.findings:
        if finding.status == "fail":
            assert finding.counter_example is not None and "raised" not in finding.text, str(report)
    if name in OWN_IN_SCALE:
        assert "inside its own scale" in report["own reward"].text
    if name in OWN_IN_BASELINE:
        assert "inside its own baseline" in report["own reward"].text
    if estimator.unbiased:
        assert report.objective == estimator.objective
    assert report["centring"].text.startswith("centred") == estimator.centred
    assert ("other groups" in report["groups"].text) == estimator.across_groups
    if name == "dr_grpo":
        assert "c = 1 - 1/N" in report["unbiased"].text
    if name == "maxrl":
        assert "binary rewards only, there for sum J_K/K" in report["unbiased"].text
    if name == "grpo_loo_std":
        assert "the direction of grad J_1 in every bandit" in report["unbiased"].text


def test_reading_the_registry_needs_no_verdict_on_the_objective():
    assert check_estimator(get("grpo"), objective="none").ok
    assert not check_estimator(get("rloo"), objective="J_K").ok
