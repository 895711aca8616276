"""`maxpo-bench check` names each of verl's own advantage functions, with its options and where the table has it."""

import pytest

from maxpo_bench.check import check_estimator

core_algos = pytest.importorskip("verl.trainer.ppo.core_algos", reason="needs verl")
pytestmark = pytest.mark.peers

EXACT = {
    "grpo": "grpo with ddof = 1, eps = 1e-06", "grpo_vectorized": "grpo with ddof = 1, eps = 1e-06", "grpo_passk": "grpo_passk",
    "rloo": "rloo", "rloo_vectorized": "rloo", "opo": "opo", "gpg": "gpg with count = rewards",
    "optimal_token_baseline": "optimal_baseline with leave_one_out = False",
}  # fmt: skip
EPS_IN_THE_VARIANCE = {
    "reinforce_plus_plus": "reinforce_pp with token_weighted = True, eps = 0",
    "reinforce_plus_plus_baseline": "reinforce_pp_baseline with token_weighted = True, eps = 0",
}


def report_on(name):
    function = getattr(core_algos, f"compute_{name}_outcome_advantage", None) or getattr(core_algos, f"compute_{name}_advantage")
    report = check_estimator(function)
    assert not {"permutation", "ties", "index", "mask", "groups"} & set(report.failed), str(report)
    assert f"verl ({name}" in report.shipped_as or f", {name})" in report.shipped_as, str(report)
    return report


@pytest.mark.parametrize("name", EXACT)
def test_exactly(name):
    assert report_on(name).equals == EXACT[name]


@pytest.mark.parametrize("name", EPS_IN_THE_VARIANCE)
def test_but_for_an_eps(name):
    report = report_on(name)
    assert report.equals is None and report.nearly == EPS_IN_THE_VARIANCE[name]


def test_what_it_cannot_call_is_said_in_a_line():
    with pytest.raises(ValueError, match="what is 'reward_baselines'"):
        check_estimator(core_algos.compute_remax_outcome_advantage)
