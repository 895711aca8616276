"""Sums: `23+48=` asks for `71`."""

import functools

from maxpo_bench.problems.prompts import PromptSource, is_held_out
from maxpo_bench.training import streams


class Source(PromptSource):
    """Different sums of two numbers of equally many digits, drawn once, the same on every call."""

    alphabet = "0123456789+="

    def rows(self, split):
        prompts = _prompts(tuple(self.data["digits"]), self.data["num_train"], self.data["num_held_out"])[split]
        return {"prompt": list(prompts), "answer": [_answer(prompt) for prompt in prompts]}

    def demonstrations(self, rng, size):
        prompts = _prompts(tuple(self.data["digits"]), self.data["num_train"], self.data["num_held_out"])["train"]
        return [(prompts[i], _answer(prompts[i])) for i in rng.integers(len(prompts), size=size)]

    def verify(self, row, text):
        """1 where the text is the sum and nothing else, else 0."""
        return float(text == row["answer"])


def _answer(prompt):
    first, second = prompt[:-1].split("+")
    return str(int(first) + int(second))


@functools.cache  # pure; forked workers inherit it
def _prompts(digits, num_train, num_held_out):
    """{"train": [prompt], "held_out": [prompt]}, each prompt once, in the order in which they were drawn."""
    rng, wanted = streams.generator("sums", 0, "sums"), {"train": num_train, "held_out": num_held_out}
    found = {"train": {}, "held_out": {}}
    for _ in range(8 * (num_train + num_held_out) // 256 + 8):  # few digits have fewer sums than are asked for
        for chosen, first, second in zip(rng.choice(digits, size=256), rng.random(256), rng.random(256), strict=True):
            low, high = 10 ** (chosen - 1) if chosen > 1 else 0, 10**chosen
            prompt = f"{int(low + first * (high - low))}+{int(low + second * (high - low))}="
            split = "held_out" if is_held_out(prompt) else "train"
            if len(found[split]) < wanted[split]:
                found[split][prompt] = None
    return {split: list(prompts) for split, prompts in found.items()}
