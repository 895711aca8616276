"""math-verify as an oracle over the table of written answers: every disagreement is listed with who is right."""

import json
from pathlib import Path

import pytest

math_verify = pytest.importorskip("math_verify", reason="needs math-verify: pip install math-verify latex2sympy2-extended")
pytestmark = pytest.mark.peers

HERE = Path(__file__).parent


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def key(row):
    return row["gold"], row["text"]


def verdict(row):
    return int(math_verify.verify(math_verify.parse(row["gold"]), math_verify.parse(row["text"])))


def test_disagreements_are_the_listed_ones():
    """Its readers look anywhere in a text, as last_number does; the other readers have no counterpart."""
    table = [row for row in lines(HERE.parent / "problems" / "answers.jsonl") if row["answer"] == "last_number"]
    found = {key(row): row["reward"] for row in table if verdict(row) != row["reward"]}
    listed = {key(row): row for row in lines(HERE / "math_verify_disagreements.jsonl")}
    assert len(table) > 330 and found.keys() == listed.keys()
    assert {row["right"] for row in listed.values()} == {"table", "math-verify"} and all(row["why"] for row in listed.values())
    assert sum(row["right"] == "math-verify" for row in listed.values()) <= 4
