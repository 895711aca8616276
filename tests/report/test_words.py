"""The first sentences: at most five of at most 25 words, true to the verdicts, whatever these are."""

import itertools

import numpy as np
import pandas as pd
import pytest

from maxpo_bench.measure import statistics
from maxpo_bench.report import words

RIVALS = ("rloo", "grpo", "passk_training", "bon_mean", "pkpo", "tailrl", "rs_grpo", "fitted_blend", "somebodys_new_one")
REGIMES = pd.DataFrame({"estimator": ["pkpo"] * 234, "ratio": [1.2] * 86 + [0.8] * 148})
SIGN = {"supported": 1, "contradicted": -1, "equivalent": 0.1, "undecided": 0.2}


def table(of_rival, variance=("supported", "contradicted")):
    """Verdicts on all tasks: {rival: verdict} for both trained measures, and pkpo's variance on the two groups."""
    rows = []
    for measure in ("max@K", "pass@1"):
        for i, (rival, verdict) in enumerate(of_rival.items()):
            row = {"measure": measure, "rival": rival, "aggregate": "all", "verdict": verdict}
            rows.append(row | {"effect": SIGN[verdict] * (0.05 + 0.01 * i), "left_out": 0, "num_tasks": 10})
    for aggregate, verdict in zip(("bandit and gym", "math and language"), variance, strict=True):
        row = {"measure": "max@K", "rival": "pkpo", "aggregate": aggregate, "verdict": verdict}
        rows.append(row | {"effect": 0.05 * SIGN[verdict], "left_out": 0, "num_tasks": 5})
        row = {"measure": "gradient variance", "rival": "pkpo", "aggregate": aggregate, "verdict": verdict}
        rows.append(row | {"effect": 1 + 0.1 * SIGN[verdict], "left_out": 0, "num_tasks": 5})
    return pd.DataFrame(rows)


def test_never_more_than_five_sentences_of_25_words():
    rng = np.random.default_rng(0)
    for _ in range(300):
        some = RIVALS[: rng.integers(1, len(RIVALS) + 1)]
        found = table({r: rng.choice(statistics.VERDICTS) for r in some}, rng.choice(statistics.VERDICTS, 2))
        said = words.first_sentences(found, REGIMES if rng.random() < 0.8 else None)
        assert len(said) <= 5 and all(len(s.split()) <= 25 and s.endswith(".") for s in said), said


@pytest.mark.parametrize("variance", itertools.product(statistics.VERDICTS, repeat=2))
def test_what_the_baseline_does_is_said_per_group(variance):
    said = words.first_sentences(table({"pkpo": "supported"}, variance), REGIMES)[2]
    for verdict, group in zip(variance, ("bandit and gym", "math and language"), strict=True):
        verb = {"supported": "lower on", "contradicted": "higher on", "equivalent": "as before", "undecided": "undecided"}[verdict]
        assert verb in said and group in said
    assert said.endswith("; on the map higher in 148 of 234 cases.") and len(said.split()) <= 25


def test_a_default_to_use_comes_first():
    said = words.first_sentences(table({"rloo": "supported", "pkpo": "equivalent"}), None)
    assert said[0] == "For the best of K samples use maxpo: in max@K it is ahead of rloo, equivalent to pkpo."
    said = words.first_sentences(table({"rloo": "supported", "pkpo": "contradicted", "tailrl": "contradicted"}), None)
    assert said[0].startswith("For the best of K samples use tailrl: its max@K is .070 above maxpo's")
    assert said[1] == "In max@K maxpo is ahead of rloo, behind pkpo and tailrl."


def test_the_nearest_rival_is_told_per_group_and_a_single_answer_in_one_sentence():
    said = words.first_sentences(table({"rloo": "supported", "pkpo": "equivalent"}), REGIMES)
    assert said[1] == "maxpo is pkpo with a baseline, which adds to max@K +.050 on bandit and gym (supported), " \
                      "-.050 on math and language (contradicted)."  # fmt: skip
    assert said[3] == "For a single answer use maxpo: in pass@1 it is ahead of rloo, equivalent to pkpo."


def test_a_lead_that_comes_from_one_task_names_it():
    found = table({"rloo": "supported", "pkpo": "supported"}, ("supported", "undecided")).assign(mostly="local_optimum")
    said = words.first_sentences(found, REGIMES)
    assert said[1] == "maxpo is pkpo with a baseline, which adds to max@K +.050 on bandit and gym (supported, mostly by " \
                      "local_optimum), +.010 on math and language (undecided)."  # fmt: skip
    assert all(len(sentence.split()) <= 25 for sentence in said)


def test_a_rival_that_is_ahead_on_some_of_the_tasks_is_named():
    found = table({name: "supported" for name in RIVALS})
    row = {"measure": "pass@1", "rival": "grpo", "aggregate": "math and language", "verdict": "contradicted", "left_out": 0}
    found = pd.concat([found, pd.DataFrame([row | {"effect": -0.014, "num_tasks": 3}])], ignore_index=True)
    *_, said = words.first_sentences(found, REGIMES)
    assert said.startswith("For a single answer use maxpo: ") and said.endswith("; on math and language grpo leads by .014.")
    assert len(said.split()) <= 25


def test_a_rival_s_lead_that_comes_from_one_task_names_it_too():
    found = table({"rloo": "supported", "pkpo_loo": "contradicted"})
    found.loc[(found["rival"] == "pkpo_loo") & (found["measure"] == "max@K"), "mostly"] = "local_optimum"
    said = words.first_sentences(found, None)
    assert (
        said[0]
        == "For the best of K samples use pkpo_loo: its max@K is .060 above maxpo's, mean of 10 tasks, mostly by local_optimum."
    )
    assert said[1] == "In max@K maxpo is ahead of rloo, behind pkpo_loo."


def test_who_runs_on_part_of_the_tasks_is_no_default():
    found = table({"rloo": "supported", "pkpo": "contradicted"})
    found.loc[found["rival"] == "pkpo", "left_out"] = 4
    assert words.first_sentences(found, None)[0].startswith("For the best of K samples use maxpo: ")


def test_without_results_it_says_so():
    assert words.first_sentences(pd.DataFrame(), None)[0].startswith("No rival can be compared in max@K yet")


def test_every_name_has_its_half_line():
    """In words for the estimators of the first screen; the formula for one that nobody has put into words yet."""
    import yaml
    from synthetic import ROOT

    from maxpo_bench.estimators import names

    trained = yaml.safe_load((ROOT / "params.yaml").read_text())["estimators"]
    assert set(trained) <= set(words.TEXT["about"])
    for name in names():
        assert 3 <= len(words.about(name).split()) <= 20, (name, words.about(name))
    assert words.about("not_there") == ""
