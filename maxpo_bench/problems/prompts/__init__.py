"""Where a language task's prompts come from: one file per kind, each with a class `Source`.

A source makes prompts as `datasets` tables, keeps the held-out ones apart, writes demonstrations for the warm start,
and judges completions. These are untrusted text: a verifier parses by hand, in bounded time, and never evaluates.
"""

import hashlib

HELD_OUT_PERCENT = 15
CONTEXT = 512  # longest prompt + completion of the small models; rotary positions, so no weight depends on it


def is_held_out(prompt, percent=HELD_OUT_PERCENT):
    """True for about `percent` of all prompts: decided by a hash of the text, so no prompt is ever on both sides."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") % 100 < percent


class PromptSource:
    """Base class. `data` is the task's section of that name, `where` the task file's name for messages."""

    alphabet = ""
    """Characters of prompts and completions; the vocabulary of a model made from a config."""

    shortest_answer = 0
    """Tokens of the shortest answer that can earn anything; 0 where that is not known."""

    unscored = 0
    """Completions that a scorer of somebody else's could not score; each earned 0."""

    saves_states = True
    """False: the model is pretrained and somebody else's to store."""

    def __init__(self, data, where=""):
        self.data, self.where = data, where

    def rows(self, split):
        """The columns of split "train" or "held_out": dict of equally long lists, one of them named "prompt"."""
        raise NotImplementedError

    def table(self, split):
        """The prompts of a split as a `datasets.Dataset`."""
        import datasets

        return datasets.Dataset.from_dict(self.rows(split))

    def demonstrations(self, rng, size):
        """`size` fresh pairs (prompt, completion) of the training split, for the supervised warm start."""
        raise NotImplementedError

    def verify(self, row, text):
        """Reward of completion `text` (without the end token) for a row of the table: float, usually 0 or 1."""
        raise NotImplementedError

    def format_prompt(self, prompt, tokenizer):
        """The text the model reads."""
        return prompt

    def encode(self, texts, tokenizer):
        """Token ids of formatted prompts: a list for each text."""
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    def load_tokenizer(self, model):
        """Here: one token per character of the alphabet. model: the task's section of that name."""
        from maxpo_bench.policies import characters

        return characters.tokenizer(self.alphabet)

    def end_tokens(self, tokenizer):
        """Ids of the tokens that end a completion."""
        return [tokenizer.eos_token_id]

    def context(self, model):
        """The longest prompt + completion the model takes, in tokens."""
        return CONTEXT

    def load_model(self, task, tokenizer, seed):
        """Here: a fresh model of the task's `model` section, its initial weights depending on the seed."""
        from maxpo_bench.policies import causal_lm
        from maxpo_bench.training import streams

        seed_int = int(streams.seed_ints(task.name, seed, "weights", 0, 1)[0])
        return causal_lm.from_config(
            task.section("model"),
            len(tokenizer),
            tokenizer.pad_token_id,
            tokenizer.eos_token_id,
            self.context(task.section("model")),
            seed_int,
        )
