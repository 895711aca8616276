"""The grammar of answers against a table of written forms, each with the verdict a person gives."""

import json
import random
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maxpo_bench.problems import answers
from maxpo_bench.problems.prompts import huggingface

TABLE = [json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def verdict(gold, text, answer="last_number", tolerance=0.0):
    return huggingface.Source({"answer": answer, "answer_tolerance": tolerance}).verify({"answer": gold}, text)


@pytest.mark.parametrize("row", TABLE, ids=[f"{row['kind']}-{i}" for i, row in enumerate(TABLE)])
def test_the_table(row):
    assert verdict(row["gold"], row["text"], row["answer"]) == row["reward"]


def test_the_table_is_large_and_both_verdicts_are_in_it():
    assert len(TABLE) >= 150 and len({(row["gold"], row["text"], row["answer"]) for row in TABLE}) >= 340
    assert min(sum(row["reward"] == wanted for row in TABLE) for wanted in (0, 1)) > 100
    assert len({row["kind"] for row in TABLE}) >= 15


@pytest.mark.parametrize("row", [row for row in TABLE if row["answer"] == "last_number"][::3], ids=lambda row: row["text"][:20])
def test_what_stands_far_before_an_answer_does_not_matter(row):
    text = "Let me see: 12 apples and 7 more, so I try.\n\n" * 30 + row["text"]
    if any(char in "0123456789" for char in row["text"]) and row["text"][:2] != "- ":  # there it becomes a bullet
        assert verdict(row["gold"], text) == row["reward"]


UNREADABLE = ["yes", "", "x", "\\frac{\\pi}{2}", "2\\sqrt{3}", "(1, 2)", "5 or 6", "x^2+1", "3x", "1/0", "9" * 61, "[5, 6]"]
UNREADABLE += ["5!", "$5!$", "#### none", "12 of 30 apples", "inf", "nan", "-\\infty", "10:30"]


@pytest.mark.parametrize("gold", UNREADABLE)
def test_golds_that_cannot_be_read_are_none(gold):
    assert answers.read_gold(gold) is None
    with pytest.raises(ValueError, match="holds no number"):
        verdict(gold, "5")


def test_an_exclamation_mark_is_joy_in_a_completion_and_a_factorial_in_a_gold():
    assert verdict("72", "It is 72!") == 1 and answers.read_gold("5!") is None and answers.read_gold("#### 72!") is not None


def test_the_space_of_latex_stands_between_thousands():
    assert verdict("70000", "\\boxed{70\\ 000}") == 1 and verdict("0", "\\boxed{70\\ 000}") == 0


def test_any_of_several_golds_is_right():
    assert [verdict(["1/3", "0.5"], text) for text in ("1/3", ".5", "3")] == [1, 1, 0]


def test_tolerance_is_inclusive_and_exact():
    assert verdict("0.3", "0.1", tolerance=0.25) == 1 and verdict("0.3", "0.04", tolerance=0.25) == 0
    assert verdict("28", "28.1%", tolerance=0.2) == 1


WRAPPERS = ["{}", "x = {}", "The answer is {}.", "**{}**", "\\boxed{{{}}}", "#### {}", "<answer>{}</answer>", "${}$"]
NUMBERS = st.fractions(max_denominator=999).filter(lambda f: abs(f) < 10**12)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(NUMBERS, st.sampled_from(WRAPPERS))
def test_every_way_to_write_a_fraction_is_read_exactly(number, wrapper):
    sign, size = "-" if number < 0 else "", abs(number)
    forms = [f"{sign}{size.numerator}/{size.denominator}", f"{sign}\\frac{{{size.numerator}}}{{{size.denominator}}}"]
    if number.denominator == 1:
        forms = [f"{sign}{size.numerator}", f"{sign}{size.numerator:,}", f"{sign}{size.numerator}.0"]
        forms += [form.replace("-", "\u2212") for form in forms]
    for form in forms:
        assert answers.read(wrapper.format(form)).value == number, form


def test_sums_of_long_decimals_are_exact():
    assert answers.read("0." + "1" * 40).value == Fraction(int("1" * 40), 10**40)


@pytest.mark.performance
def test_20000_plain_verdicts_a_second():
    """Of processor time; the best of three runs, as others share the machine."""
    numbers = [random.Random(0).randint(-(10**6), 10**6) for _ in range(4000)]
    source = huggingface.Source({"answer": "last_number", "answer_tolerance": 0.0})
    for form in ("{}", "#### {}", "The answer is {}."):
        cases = [({"answer": str(n)}, form.format(n)) for n in numbers]
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            earned = sum(source.verify(row, text) for row, text in cases)
            best = min(best, time.process_time() - start)
        assert earned == len(cases) and len(cases) / best > 20_000, f"{form}: {len(cases) / best:.0f} verdicts a second"
