"""Countdown: `<259>90:` asks for an expression that uses each digit once and equals the target, `2*5*9`."""

import functools
import itertools

import numpy as np

from maxpo_bench.machine import numerics
from maxpo_bench.problems import expressions
from maxpo_bench.problems.prompts import PromptSource, is_held_out

OPERATORS = "+-*"


class Source(PromptSource):
    """All multisets of `digits` digits 1-9 and all targets 1..max_target they reach; several valid answers each."""

    alphabet = "0123456789" + OPERATORS + "<>:"

    def __init__(self, data, where=""):
        super().__init__(data, where)
        self._expressions = _all_expressions(data["digits"], data["max_target"])  # arrays, one entry per expression
        prompts, self._prompt_of = numerics.unique(self._expressions["prompt"])
        self._prompts = [_text(int(code), data["digits"]) for code in prompts]
        held_out = np.array([is_held_out(prompt) for prompt in self._prompts])
        self._held_out = held_out
        self._train_expressions = np.flatnonzero(~held_out[self._prompt_of])

    def rows(self, split):
        chosen = [self._prompts[i] for i in np.flatnonzero(self._held_out == (split == "held_out"))]
        parts = [prompt[1:-1].split(">") for prompt in chosen]
        return {"prompt": chosen, "digits": [d for d, _ in parts], "target": [int(t) for _, t in parts]}

    def demonstrations(self, rng, size):
        """Random expressions, each with the training prompt it answers."""
        pairs = []
        for at in self._train_expressions[rng.integers(len(self._train_expressions), size=size)]:
            digits, operators = self._expressions["digits"][at], self._expressions["operators"][at]
            text = "".join(f"{d}{OPERATORS[o]}" for d, o in zip(digits, operators, strict=False)) + str(digits[-1])
            pairs.append((self._prompts[self._prompt_of[at]], text))
        return pairs

    def verify(self, row, text):
        """1 if the text is an expression of exactly the prompt's digits whose value is the target, else 0.

        Graded: the right digits with a value that misses the target by d earn 1 / (1 + d).
        """
        result = expressions.evaluate(text)
        if result is None:
            return 0.0
        (numerator, denominator), numbers = result
        if sorted(map(str, numbers)) != sorted(row["digits"]):
            return 0.0
        miss = abs(numerator - row["target"] * denominator) / denominator
        return 1 / (1 + miss) if self.data["graded"] else float(miss == 0)


def _text(code, num_digits):
    """The prompt of a code digits * 1000 + target, as _all_expressions packs them."""
    return f"<{code // 1000:0{num_digits}d}>{code % 1000}:"


@functools.cache  # pure; forked workers inherit it
def _all_expressions(num_digits, max_target):
    """Every a op b op ... of num_digits digits, usual precedence, no parentheses, with 1 <= value <= max_target.

    Returns digits [E, num_digits], operators [E, num_digits - 1] as indices into OPERATORS, prompt [E] codes.
    """
    multisets = np.array(list(itertools.combinations_with_replacement(range(1, 10), num_digits)))  # [M, D] sorted
    digits = np.concatenate([multisets[:, list(p)] for p in itertools.permutations(range(num_digits))])  # [M * D!, D]
    digits = np.unique(digits, axis=0)
    found = {"digits": [], "operators": [], "prompt": []}
    for operators in itertools.product(range(len(OPERATORS)), repeat=num_digits - 1):
        total, term = np.zeros(len(digits), dtype=int), digits[:, 0]
        for position, operator in enumerate(operators, start=1):
            if OPERATORS[operator] == "*":
                term = term * digits[:, position]
            else:
                total, term = total + term, digits[:, position] * (1 if OPERATORS[operator] == "+" else -1)
        target = total + term
        legal = (target >= 1) & (target <= max_target)
        code = np.sort(digits[legal], axis=1) @ (10 ** np.arange(num_digits - 1, -1, -1)) * 1000 + target[legal]
        found["digits"].append(digits[legal])
        found["operators"].append(np.tile(operators, (int(legal.sum()), 1)))
        found["prompt"].append(code)
    return {name: np.concatenate(parts) for name, parts in found.items()}
