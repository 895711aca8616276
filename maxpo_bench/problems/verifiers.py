"""Named verifiers of completions: what a task's `verifier.name` may say, for any data that has one answer to a prompt.

A completion is untrusted text: it is read by hand, in bounded time, and never evaluated.
"""

from maxpo_bench.errors import InputError
from maxpo_bench.problems import answers

READERS = ("last_number", "marked", "boxed", "whole")


def golds(row):
    """The right answers of a row as texts: each of them is right. Empty where the data have none."""
    answer = row.get("answer")
    return [] if answer is None else answer if isinstance(answer, list) else [answer]


def number(row, text, reader, tolerance):
    """1.0 where the number that `reader` finds in the text is one of the row's answers, within `tolerance`; else 0.0."""
    given = answers.read(text, reader)
    earned = 0.0
    for gold in golds(row):
        wanted = answers.read_gold(gold)
        if wanted is None:
            raise ValueError(f"the data set's answer {gold[-40:]!r} holds no number")
        if given is not None and answers.equal(given, wanted, tolerance):
            earned = 1.0
    return earned


def make(options, source, strips):
    """The function (row, text) -> reward of a task's `verifier` section. source: the task's prompts, whose own is `data`.

    strips: whether blanks around a completion count for nothing; a pretrained model's tokens begin with them.
    """
    name = options.get("name", "data")
    if name == "data":
        return lambda row, text: source.verify(row, text.strip() if strips else text)
    if name == "exact":
        return lambda row, text: float(text.strip() in [gold.strip() for gold in golds(row)])
    return lambda row, text: number(row, text, name, options["tolerance"])


def check(options, rows, kind, where):
    """InputError where a named verifier has nothing to compare with: rows without an answer, or whose answer it cannot read."""
    name = options.get("name", "data")
    if name == "data":
        return
    for at, row in enumerate(rows):
        if not golds(row):
            raise InputError(
                f"{where}: verifier.name: {name} compares with one answer, and prompt {at} of kind {kind} has none; "
                "name: data asks the data's own verifier"
            )
        if name in READERS and any(answers.read_gold(gold) is None for gold in golds(row)):
            shown = repr(golds(row)[0][:60])
            raise InputError(f"{where}: verifier.name: {name} reads numbers, and the answer to prompt {at} is {shown}")
