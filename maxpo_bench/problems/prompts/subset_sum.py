"""Subset sums: `38527>15:` asks for some of the digits, each used at most once, that add up to 15: `3+5+7`."""

import functools
import itertools

import numpy as np

from maxpo_bench.problems import expressions
from maxpo_bench.problems.prompts import PromptSource, is_held_out


class Source(PromptSource):
    """All multisets of `digits` digits 1-9 and all sums of at least two of them; several valid answers each."""

    alphabet = "0123456789+>:"

    def __init__(self, data, where=""):
        super().__init__(data, where)
        self._rows, self._answers, self._prompt_of = _all_sums(data["digits"])
        self._held_out = np.array([is_held_out(row["prompt"]) for row in self._rows])
        self._train_answers = np.flatnonzero(~self._held_out[self._prompt_of])

    def rows(self, split):
        chosen = [self._rows[i] for i in np.flatnonzero(self._held_out == (split == "held_out"))]
        return {name: [row[name] for row in chosen] for name in ("prompt", "digits", "target")}

    def demonstrations(self, rng, size):
        """Random subsets in random order, with the training prompt whose target they reach."""
        pairs = []
        for at in self._train_answers[rng.integers(len(self._train_answers), size=size)]:
            answer = rng.permutation(list(self._answers[at]))
            pairs.append((self._rows[self._prompt_of[at]]["prompt"], "+".join(answer)))
        return pairs

    def verify(self, row, text):
        """1 if the text adds up digits of the prompt, each at most once, to the target, else 0.

        Graded: a sum of the right digits that misses the target by d earns 1 / (1 + d).
        """
        result = expressions.evaluate(text)
        if result is None or any(char not in "0123456789+" for char in text):
            return 0.0
        (value, _), numbers = result
        left = list(row["digits"])
        for number in map(str, numbers):
            if number not in left:
                return 0.0
            left.remove(number)
        miss = abs(value - row["target"])
        return 1 / (1 + miss) if self.data["graded"] else float(miss == 0)


@functools.cache  # pure; forked workers inherit it
def _all_sums(num_digits):
    """(rows of the table, every subset of two or more digits as a text, the row of each subset)."""
    rows, row_of, answers, prompt_of = [], {}, [], []
    for digits in itertools.combinations_with_replacement("123456789", num_digits):
        text = "".join(digits)
        subsets = {s for size in range(2, num_digits + 1) for s in itertools.combinations(text, size)}
        for subset in sorted(subsets):
            prompt = f"{text}>{sum(map(int, subset))}:"
            if prompt not in row_of:
                row_of[prompt] = len(rows)
                rows.append({"prompt": prompt, "digits": text, "target": sum(map(int, subset))})
            answers.append("".join(subset))
            prompt_of.append(row_of[prompt])
    return rows, answers, np.array(prompt_of)
