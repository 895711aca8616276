"""The reasoning-gym adapter, with the real package where it is installed."""

import numpy as np
import pytest

from maxpo_bench.errors import InputError

pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")

DATA = {"dataset": "chain_sum", "options": {}, "seed": 0, "num_train": 200, "num_held_out": 50}
DATA |= {"scorer": "exact", "threshold": 1.0}


def source(**changes):
    from maxpo_bench.problems.prompts.reasoning_gym import Source

    return Source({**DATA, **changes}, where="rg.yaml")


def first_row(made):
    return {name: values[0] for name, values in made.rows("train").items()}


def test_splits_share_no_question():
    made = source()
    held_out, train = made.rows("held_out"), made.rows("train")
    assert not set(held_out["prompt"]) & set(train["prompt"])
    assert len(held_out["prompt"]) == 50 and max(held_out["index"]) < min(train["index"])


def test_the_answer_earns_one_and_another_nothing():
    made = source()
    row = first_row(made)
    assert made.verify(row, row["answer"]) == 1 and made.verify(row, f" {row['answer']}\n") == 1
    for text in ("", "x", row["answer"] + "0", "9**9**9", "9" * 10**6, "\x00", "\u0663", "__import__('os')"):
        assert made.verify(row, text) == 0


def test_graded_scores_are_thresholded():
    made = source(dataset="knights_knaves", scorer="own")
    row = first_row(made)
    assert made.verify(row, row["answer"]) == 1 and made.verify(row, "nobody") == 0


@pytest.mark.parametrize("dataset", ["simple_equations", "countdown", "polynomial_multiplication", "puzzle24", "codeio"])
def test_scorers_that_evaluate_are_refused(dataset):
    with pytest.raises(InputError, match="may run text as code"):
        source(dataset=dataset, scorer="own")


@pytest.mark.parametrize("changes,message", [
    ({"dataset": "chain_sums"}, "did you mean 'chain_sum'"),
    ({"options": {"nope": 1}}, "does not take them"),
])
def test_bad_input_is_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        source(**changes)


def test_demonstrations_are_training_questions_with_their_answers():
    made = source()
    train = dict(zip(made.rows("train")["prompt"], made.rows("train")["answer"], strict=True))
    for prompt, answer in made.demonstrations(np.random.default_rng(0), 20):
        assert train[prompt] == answer
