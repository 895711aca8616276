"""Verifiers judge untrusted text: the right answer earns 1, anything else 0, nothing raises, nothing takes long."""

import functools
import importlib
import itertools
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maxpo_bench.problems import expressions
from maxpo_bench.settings import task_file

TASKS = ["countdown3", "countdown4", "text_maze", "subset_sum"]
LIMIT_S = 0.010
_SOURCES = {}


def source(name):
    if name not in _SOURCES:
        task = task_file.load(name)
        module = importlib.import_module(f"maxpo_bench.problems.prompts.{task.kind}")
        made = module.Source(task.section("data"))
        columns = made.rows("train")
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        _SOURCES[name] = made, rows
    return _SOURCES[name]


def numeric(answer="last_number"):
    from maxpo_bench.problems.prompts import huggingface

    return huggingface.Source({"answer": answer, "answer_tolerance": 0.0}, where="test.yaml")


class Scorer:
    """A data set of reasoning-gym whose scorer never agrees, and must be shown short plain ASCII only."""

    def score_answer(self, text, item):
        assert len(text) <= 200 and all(32 <= ord(char) < 127 or char == "\n" for char in text), text
        return 0.0


def reasoning_gym(scorer):
    """What judges the completions of a reasoning-gym task, without the package."""
    from maxpo_bench.problems.prompts import reasoning_gym

    made = reasoning_gym.Source.__new__(reasoning_gym.Source)
    made.data, made._scored, made._entries = {"scorer": scorer, "threshold": 1.0}, Scorer(), {0: {"answer": "72"}}
    made._scorable, made._longest_answer = set(reasoning_gym.ASCII), 2
    return made


@functools.cache
def verifiers():
    """name -> (verify, rows) of every verifier, graded ones beside the plain."""
    found = {}
    for name in TASKS:
        made, rows = source(name)
        graded = type(made)({**task_file.load(name).section("data"), "graded": True})
        found[name], found[f"{name} graded"] = (made.verify, rows), (graded.verify, rows)
    row = {"prompt": "x", "answer": "#### 41.5", "index": 0}
    for answer in ("last_number", "marked"):
        found[f"huggingface {answer}"] = numeric(answer).verify, [row, {"prompt": "x", "answer": "#### -1/3"}]
    for scorer in ("exact", "own"):
        found[f"reasoning_gym {scorer}"] = reasoning_gym(scorer).verify, [row]
    return found


VERIFIERS = [
    *TASKS,
    *(f"{name} graded" for name in TASKS),
    "huggingface last_number",
    "huggingface marked",
    "reasoning_gym exact",
    "reasoning_gym own",
]


def judge(verify, row, text):
    """(reward, seconds of this thread's processor time). A slow case is judged up to three times more; the best counts.

    Processor time, as on a busy machine nine characters once took 13 ms by the clock four times running.
    """
    seconds = float("inf")
    for _ in range(4):
        start = time.thread_time()
        reward = verify(row, text)
        seconds = min(seconds, time.thread_time() - start)
        if seconds < LIMIT_S:
            break
    return reward, seconds


HOSTILE = {
    "empty": "",
    "one megabyte of digits": "9" * 1_000_000,
    "one megabyte of parentheses": "(" * 1_000_000,
    "nested parentheses": "(" * 120 + "1" + ")" * 120,
    "power tower": "9**9**9",
    "many powers": "**".join("9" * 80),
    "long product": "*".join(["999999999999"] * 18),
    "divisions": "/".join(["7"] * 120),
    "division by zero": "1/(2-2)",
    "arabic digits": "\u0661\u0662\u0663",
    "fullwidth digits": "\uff12*\uff15*\uff19",
    "superscript": "2\u00b2",
    "fraction character": "\u00bd",
    "control characters": "\x00\x07\x1b[2J",
    "delete": "72\x7f",
    "control characters beyond ASCII": "72\x852\x9b2J",
    "invisible characters": "7\u200b2\ufeff\u202e",
    "lone surrogate": "\ud800",
    "newline": "2*5*9\n",
    "exec": "__import__('os').system('true')",
    "minus chain": "-" * 100_000 + "1",
    "exponent": "1e999999999",
    "infinity": "inf",
    "nan": "nan",
    "decimal": "0." + "0" * 1_000_000 + "1",
    "thousands": "1," * 300_000 + "1",
    "fraction": "9" * 5000 + "/" + "9" * 5000,
    "zero fraction": "1/0",
    "dollars": "$" * 500_000,
    "hashes": "#### " * 200_000,
    "boxes": "\\boxed{" * 150_000,
    "open boxes": "\\boxed{" * 50_000 + "}" * 50_000,
    "marks before numbers": "#### x 1 " * 100_000,
    "steps": "#### Step 1\n" * 50_000,
    "braces": "\\frac{" * 40 + "{(" * 40 + "1",
    "fractions of fractions": "\\frac{\\frac{\\frac{\\frac{1" * 9,
    "stars": "*1" * 500_000,
    "spaces": "1" + " " * 1_000_000,
    "names": "CO2 " * 200_000,
    "mixed numbers": "1 1/" * 200_000,
    "superscripts": "\u00b9" * 500_000,
    "halves": "\u00bd" * 500_000,
}


@pytest.mark.parametrize("name", VERIFIERS)
@pytest.mark.parametrize("attack", list(HOSTILE))
def test_hostile_text_earns_nothing_within_10_ms(name, attack):
    verify, rows = verifiers()[name]
    reward, seconds = judge(verify, rows[0], HOSTILE[attack])
    assert reward == 0.0 and seconds < LIMIT_S


def fuzz(case):
    """One text: every verifier answers a number in [0, 1] within 10 ms, 0 or 1 where it is not graded."""
    text, pick = case
    for name, (verify, rows) in verifiers().items():
        row = rows[pick % len(rows)]
        ours = dict(zip(range(OURS, OURS + 6), row.get("digits", ""), strict=False))
        given = text.translate(ours) if len(text) < 100 else text
        reward, seconds = judge(verify, row, given)
        assert isinstance(reward, float) and (0 <= reward <= 1 if "graded" in name else reward in (0, 1)), name
        assert seconds < LIMIT_S, f"{name}: {seconds * 1000:.1f} ms for {given[:200]!r} of {len(given)} characters"


OURS = 0xE000  # the private characters from here on stand for the digits of the prompt that is asked
PER_SIZE = [list(itertools.permutations(range(size))) for size in (2, 3, 4, 6)]
ORDERS = [order for orders in PER_SIZE for order in orders * (720 // len(orders))]  # each size as often
DIGITS = "0123456789"
OTHER_DIGITS = "\u0660\u0663\u07c1\u0967\uff12\u00b2\u2075\u00bd\u2167\u4e09\U0001d7d9"
UNITS = ["9", "(", ")", "1+", "9**", "-", "1,", "#### ", "\\boxed{", "$", "0.", "7/", "U", "\x00", "\u0663", "\ud800", " ", "\n"]
SHORT = st.one_of(
    st.text(max_size=300),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Nd", "Nl", "No"]), max_size=60),
    st.text(alphabet=f"{DIGITS}+-*/()., ", max_size=300),
    st.text(alphabet=f"{DIGITS}{OTHER_DIGITS}#$\\boxed{{}}.,/eE-% \0\x1b\x7f", max_size=80),
    st.text(alphabet="UDLR", max_size=120),
    st.lists(st.integers(-(10**40), 10**40).map(str), max_size=6).map(",".join),
    st.tuples(st.sampled_from(["", "#### ", "\\boxed{", "-", "1/"]), st.integers(1, 5000).map(lambda n: "9" * n)).map("".join),
    st.text(alphabet="92(-)", min_size=2, max_size=90).map("**".join),  # towers
    st.tuples(st.integers(0, 2000), st.integers(0, 9), st.integers(0, 2000)).map(lambda t: "(" * t[0] + str(t[1]) + ")" * t[2]),
    st.tuples(st.sampled_from(ORDERS), st.text(alphabet="+-*/", min_size=6, max_size=6)).map(  # well-formed answers
        lambda t: "".join(chr(OURS + digit) + operator for digit, operator in zip(*t, strict=False))[:-1]
    ),
)
LONG = st.tuples(st.sampled_from(UNITS), SHORT).map(lambda t: t[0] * (10**6 // len(t[0])) + t[1])  # one megabyte
TEXTS = st.sampled_from([SHORT] * 199 + [LONG]).flatmap(lambda texts: texts)
CASES = st.tuples(TEXTS, st.integers(0, 10**6))


@settings(max_examples=5000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_no_text_makes_a_verifier_raise_or_take_long(case):
    fuzz(case)


@pytest.mark.nightly
@settings(max_examples=200_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_no_text_makes_a_verifier_raise_or_take_long_nightly(case):
    fuzz(case)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.integers(0, 999).map(str),
        lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
        max_leaves=12,
    )
)
def test_expressions_equal_python(text):
    from fractions import Fraction

    result = expressions.evaluate(text)
    try:  # the text was made here, so Python may evaluate it
        wanted = eval("".join(f"F({c})" if c.isdigit() else c for c in _tokens(text)), {"F": Fraction})
    except ZeroDivisionError:
        assert result is None
        return
    if len(text) <= expressions.MAX_CHARACTERS:
        assert Fraction(*result[0]) == wanted
        assert result[1] == [int(t) for t in _tokens(text) if t.isdigit()]


def _tokens(text):
    import re

    return re.findall(r"\d+|.", text)


@pytest.mark.parametrize("text,value", [("2+3*4", 14), ("2*3+4", 10), ("9-3-2", 4), ("8/4/2", 1), ("(2+3)*4", 20), ("2-3*4", -10)])
def test_precedence(text, value):
    numerator, denominator = expressions.evaluate(text)[0]
    assert numerator == value * denominator


@pytest.mark.parametrize(
    "text", ["", "+2", "-2", "2+", "2++3", "()", "(2", "2)", "2 + 3", "02", "2**3", "2(3)", "a", "2.5", "\u0662"]
)
def test_what_is_not_an_expression(text):
    assert expressions.evaluate(text) is None


RIGHT = ["2*5*9", "9*5*2", "(2*5)*9"]
WRONG = ["2*45", "2*5*9+0", "2*5*9*1", "90", "2*5+9", "25*9"]


@pytest.mark.parametrize("text", RIGHT + WRONG)
def test_countdown(text):
    row = {"prompt": "<259>90:", "digits": "259", "target": 90}
    assert source("countdown3")[0].verify(row, text) == (text in RIGHT)


ARRIVES = ["RRDD", "RRDDUD", "RRRRDDLL"]
FAILS = ["RRUDDD", "RR", "RRDDD", "DR", "RRRRDDLLL", "rrdd", "", "RRDD" + "UD" * 60]


@pytest.mark.parametrize("text", ARRIVES + FAILS)
def test_text_maze(text):
    maze = "".join(["S....", "##...", "..G..", ".....", "....."])
    assert source("text_maze")[0].verify({"prompt": maze + ":"}, text) == (text in ARRIVES)


SUMS = {"5+3+7": 1, "8+7": 1, "15": 0, "3+3+2+7": 0, "8+5+2": 1, "9+6": 0, "8+7+0": 0, "23-8": 0}


@pytest.mark.parametrize("text", SUMS)
def test_subset_sum(text):
    assert source("subset_sum")[0].verify({"prompt": "235778>15:", "digits": "235778", "target": 15}, text) == SUMS[text]


@pytest.mark.parametrize(
    "answer,text,reward",
    [
        ("72", "so it is 72", 1),
        ("72", "72.0", 1),
        ("1,234", "#### 1234", 1),
        ("0.5", "1/2", 1),
        ("-3", "x = -3.", 1),
        ("72", "first 72 then 71", 0),
        ("72", "\\boxed{72} and 5 apples", 1),
        ("72", "#### 72\n", 1),
        ("72", "", 0),
        ("10", "$10.", 1),
        ("72", "seventy-two", 0),
        ("5", "50%", 0),
        ("72", "\u0667\u0662", 0),
    ],
)
def test_numeric_answers(answer, text, reward):
    assert numeric().verify({"prompt": "x", "answer": f"reasoning 12 + 3 #### {answer}"}, text) == reward


@pytest.mark.parametrize("scorer", ["exact", "own"])
def test_reasoning_gym_takes_printable_ascii_and_newlines_only(scorer, monkeypatch):
    """Every control (Cc) and format (Cf) character among the rest, on either side of the right answer."""
    monkeypatch.setattr(Scorer, "score_answer", lambda *_: 1.0)
    judge, row = reasoning_gym(scorer).verify, {"prompt": "x", "answer": "72", "index": 0}
    plain = [*map(chr, range(32, 127)), "\n"]
    others = [chr(code) for code in range(0x110000) if chr(code) not in plain]
    others = [char for char in others if unicodedata.category(char) in ("Cc", "Cf") or ord(char) < 0x300]
    assert {"\t", "\x7f", "\x85", "\x9b", "\xad", "\u200b", "\u202e", "\ufeff", "\U000e0041"} < set(others)
    assert [char for char in others if judge(row, f"72{char}") or judge(row, f"{char}72")] == []
    assert judge(row, "72") == judge(row, " 72\n") == 1
    assert scorer == "exact" or all(judge(row, f"{char}72") == 1 for char in plain)


@pytest.mark.parametrize("name", TASKS)
def test_demonstrations_belong_to_training_prompts_and_mostly_solve_them(name):
    made, rows = source(name)
    by_prompt = {row["prompt"]: row for row in rows}
    pairs = made.demonstrations(np.random.default_rng(0), 500)
    solved = np.mean([made.verify(by_prompt[prompt], text) for prompt, text in pairs])
    assert solved == 1 if name != "text_maze" else 0.5 < solved < 1  # some random walks miss


@pytest.mark.parametrize("name", TASKS)
def test_held_out_prompts_are_never_training_prompts(name):
    made, rows = source(name)
    held_out = made.table("held_out")["prompt"]
    assert not set(held_out) & {row["prompt"] for row in rows}
    assert len(held_out) >= 128 and len(set(held_out)) == len(held_out)


@pytest.mark.parametrize(
    "name,prompt,texts",
    [
        ("countdown3", {"digits": "259", "target": 90}, ["2+5*9", "2*5*9"]),
        ("text_maze", {"prompt": "S...G" + "." * 20 + ":"}, ["D", "R", "RRRR"]),
        ("subset_sum", {"digits": "235778", "target": 15}, ["2+3", "8+5", "8+7"]),
    ],
)
def test_graded_rewards_grow_towards_the_answer(name, prompt, texts):
    made = type(source(name)[0])({**task_file.load(name).section("data"), "graded": True})
    rewards = [made.verify(prompt, text) for text in texts]
    assert rewards == sorted(rewards) and rewards[-1] == 1 and 0 < rewards[0] < rewards[1] <= 1
