"""The reasoning-gym adapter, with the real package where it is installed."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import yaml

from maxpo_bench.errors import InputError
from maxpo_bench.problems import build
from maxpo_bench.settings import task_file

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


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"dataset": "chain_sums"}, "did you mean 'chain_sum'"),
        ({"options": {"nope": 1}}, "does not take them"),
    ],
)
def test_bad_input_is_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        source(**changes)


def test_demonstrations_are_training_questions_with_their_answers():
    made = source()
    train = dict(zip(made.rows("train")["prompt"], made.rows("train")["answer"], strict=True))
    for prompt, answer in made.demonstrations(np.random.default_rng(0), 20):
        assert train[prompt] == answer


def test_an_answer_of_any_character_and_length_can_be_given():
    """prime_factorization writes a multiplication sign; palindrome_partitioning's answers have a thousand characters."""
    for dataset, character, length in (("prime_factorization", "\u00d7", 0), ("palindrome_partitioning", "[", 400)):
        made = source(dataset=dataset, num_train=30, num_held_out=5)
        train, tokenizer = made.table("train").to_list(), made.load_tokenizer()
        assert all(made.verify(row, row["answer"]) == 1 for row in train)
        assert max(len(row["answer"]) for row in train) > length and any(character in row["answer"] for row in train)
        for row in train:
            ids = tokenizer(row["answer"])["input_ids"]
            assert tokenizer.decode(ids) == row["answer"] and tokenizer.unk_token_id not in ids
            assert made.verify(row, row["answer"] + "0") == 0


def test_a_dollar_is_a_character_and_no_end():
    made = source(dataset="gsm_symbolic", num_train=40, num_held_out=5)
    tokenizer, prompts = made.load_tokenizer(), made.rows("train")["prompt"]
    assert any("$" in prompt for prompt in prompts)
    ids = tokenizer(prompts)["input_ids"]
    assert all(tokenizer.eos_token_id not in row for row in ids) and tokenizer.batch_decode(ids) == prompts


def test_the_context_has_room_for_the_longest_prompt_and_answer():
    made = source(dataset="arc_agi", num_train=20, num_held_out=5)
    longest = max(len(p) + len(a) for p, a in zip(made.rows("train")["prompt"], made.rows("train")["answer"], strict=True))
    assert longest > 3000 and made.context() > longest
    assert source().context() >= 512


def test_a_set_without_one_answer_is_judged_by_its_scorer_or_refused():
    with pytest.raises(InputError, match="rg.yaml: data.dataset: graph_color has no one answer .* own asks its scorer"):
        source(dataset="graph_color", num_train=6, num_held_out=2)
    with pytest.raises(InputError, match="propositional_logic has no one answer .* may run text as code"):
        source(dataset="propositional_logic", num_train=6, num_held_out=2)
    made = source(dataset="graph_color", scorer="own", num_train=6, num_held_out=2)
    row = made.rows("train")
    row = {key: values[0] for key, values in row.items()}
    assert made.verify(row, "None") == made.verify(row, "") == 0
    possible = made._entry(row["index"])["metadata"]["possible_answer"]
    assert made.verify(row, json.dumps({str(key): value for key, value in possible.items()})) == 1
    with pytest.raises(InputError, match="warm_start: graph_color has no answers to show"):
        made.demonstrations(np.random.default_rng(0), 3)


@pytest.mark.parametrize("dataset,text", [("boxnet", "1"), ("boxnet", "[[1]]"), ("game_of_life", "{}")])
def test_a_scorer_that_raises_gives_0_and_is_counted(dataset, text):
    made = source(dataset=dataset, scorer="own", num_train=6, num_held_out=2)
    row = {key: values[0] for key, values in made.rows("train").items()}
    assert made.unscored == 0, "trying it out does not count"
    assert made.verify(row, text) == 0 and made.unscored == 1


def test_a_scorer_that_takes_anything_is_refused(monkeypatch):
    from reasoning_gym.factory import DATASETS

    monkeypatch.setattr(DATASETS["chain_sum"][0], "score_answer", lambda self, answer, entry: 1.0)
    with pytest.raises(InputError, match="chain_sum: its scorer takes .* for an answer"):
        source(scorer="own")


@pytest.mark.parametrize("dataset, words", [
    ("coin_flip", "'[0-9]+' for the answer '[0-9]"),  # compares printed prefixes
    ("gsm_symbolic", "'-[0-9.]+' for the answer '[0-9]"),  # reads the first digits anywhere
    ("time_intervals", "two answers, 'RIGHTWRONG'"), ("fraction_simplification", "two answers, 'RIGHTWRONG'"),
])  # fmt: skip
def test_a_scorer_that_pays_wrong_answers_is_refused(dataset, words):
    with pytest.raises(InputError, match=f"rg.yaml: data.dataset: {dataset}: its scorer takes .*{words}.*; use scorer: exact"):
        source(dataset=dataset, scorer="own", num_train=16, num_held_out=8)
    made = source(dataset=dataset, num_train=16, num_held_out=8)
    row = first_row(made)
    assert made.verify(row, row["answer"]) == 1 and made.verify(row, row["answer"] + "9") == 0


@pytest.mark.parametrize("score, refused", [
    (lambda given, answer: given.startswith(answer), True),
    (lambda given, answer: answer.startswith(given), True),
    (lambda given, answer: given.endswith(answer), True),
    (lambda given, answer: answer in given, True),
    (lambda given, answer: answer in given.split(), True),
    (lambda given, answer: answer.lstrip("-") == given.lstrip("-"), True),
    (lambda given, answer: answer in given.split()[-1:], False),  # reads the last word
    (lambda given, answer: float(answer) == float(given), False),
])  # fmt: skip
def test_prefixes_substrings_and_lost_signs_are_found(monkeypatch, score, refused):
    from reasoning_gym.factory import DATASETS

    monkeypatch.setattr(DATASETS["chain_sum"][0], "score_answer", lambda self, answer, entry: score(answer, entry["answer"]))
    monkeypatch.setattr("maxpo_bench.problems.prompts.reasoning_gym.GARBAGE", ["zzz"])
    with pytest.raises(InputError, match="chain_sum: its scorer takes .*; use scorer: exact") if refused else nullcontext():
        source(scorer="own")


@pytest.mark.slow
def test_items_do_not_depend_on_the_process():
    """ransom_note and word_ladder go through sets of words, whose order is another in each process."""
    code = (
        "import json, sys; from maxpo_bench.problems.prompts.reasoning_gym import Source;"
        "made = Source(json.loads(sys.argv[1]), where='rg.yaml'); print(json.dumps([made.rows('train'), made.rows('held_out')]))"
    )
    for dataset in ("ransom_note", "word_ladder"):
        data = json.dumps({**DATA, "dataset": dataset, "num_train": 20, "num_held_out": 5})
        printed = [
            subprocess.run(
                [sys.executable, "-c", code, data], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
            ).stdout
            for seed in ("0", "1")
        ]
        assert printed[0] == printed[1] and len(printed[0]) > 1000


def test_a_scorer_is_asked_about_the_items_of_the_run_only(monkeypatch):
    """Where this process would make another item, the set's scorer cannot be asked about the one that was shown."""
    from reasoning_gym.factory import DATASETS

    made = DATASETS["knights_knaves"][0].__getitem__
    monkeypatch.setattr(DATASETS["knights_knaves"][0], "__getitem__", lambda self, index: made(self, index + 1))
    with pytest.raises(InputError, match="rg.yaml: data.scorer: knights_knaves: its items are others in every process and"):
        source(dataset="knights_knaves", scorer="own", num_train=6, num_held_out=2)


def test_a_set_that_differs_when_made_again_is_refused():
    with pytest.raises(InputError, match="list_functions: its items differ when they are made again"):
        source(dataset="list_functions", num_train=6, num_held_out=2)


def test_too_few_tokens_for_any_answer_are_refused(tmp_path):
    task = {
        "version": 1, "kind": "reasoning_gym", "title": "t", "k": 2, "group_size": 4, "steps": 1, "seeds": 1,
        "optimiser": {"lr": 0.001}, "data": {"dataset": "tower_of_hanoi", "num_train": 20, "num_held_out": 5},
        "warm_start": {"steps": 1, "batch_size": 2}, "sampling": {"max_new_tokens": 5},
    }  # fmt: skip
    (tmp_path / "rg.yaml").write_text(yaml.safe_dump(task))
    with pytest.raises(InputError, match="rg.yaml: sampling.max_new_tokens: 5, but the shortest answer .* has [0-9]+ tokens"):
        build(task_file.load(str(tmp_path / "rg.yaml")), (0,)).split("train")


def test_a_scorer_that_raises_is_counted_in_the_cell_and_ends_nothing(tmp_path):
    task = {
        "version": 1, "kind": "reasoning_gym", "title": "t", "k": 2, "group_size": 4, "groups": 2, "steps": 1, "seeds": 1,
        "optimiser": {"lr": 0.001}, "data": {"dataset": "boxnet", "num_train": 4, "num_held_out": 2, "scorer": "own"},
        "model": {"hidden_size": 8, "layers": 1, "heads": 1, "mlp_size": 8},
        "warm_start": {"steps": 0}, "sampling": {"max_new_tokens": 1},
    }  # fmt: skip
    (tmp_path / "rg.yaml").write_text(yaml.safe_dump(task))
    problem = build(task_file.load(str(tmp_path / "rg.yaml")), (0,))
    batch = problem.sample(problem.initial_policy(), 0)
    batch.completions.tokens[:] = problem.tokenizer("1")["input_ids"][0]
    assert problem.reward(batch).sum() == 0 and problem.verifier_errors == 2, "equal completions of a prompt are judged once"
