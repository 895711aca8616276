"""Where a language task's prompts come from: one file per kind, each with a class `Source`.

A source makes prompts as `datasets` tables, keeps the held-out ones apart, writes demonstrations for the warm start,
and judges completions. These are untrusted text: a verifier parses by hand, in bounded time, and never evaluates.
"""

import datetime
import hashlib
import re

from maxpo_bench.errors import InputError, one_line
from maxpo_bench.training import streams

ASCII = "".join(chr(code) for code in range(32, 127)) + "\n"
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

    def __init__(self, data, where=""):
        self.data, self.where, self._examples = data, where, None

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

    def examples(self):
        """The few-shot examples of data.examples: that many different (prompt, answer) of the training split, by a fixed seed."""
        if self._examples is None:
            count = self.data.get("examples", 0)
            rng = streams.generator("few-shot", self.data.get("examples_seed", 0), "examples")
            drawn = {self.text_of(p): (p, a) for p, a in self.demonstrations(rng, 16 * count)} if count else {}
            if len(drawn) < count:
                raise InputError(f"{self.where}: data.examples: {count} wanted, {len(drawn)} different found in the training split")
            self._examples = list(drawn.values())[:count]
        return self._examples

    @staticmethod
    def text_of(prompt):
        """A prompt as a text: of messages, the user's last one."""
        if isinstance(prompt, str):
            return prompt
        return next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")

    def format_prompt(self, prompt, tokenizer):
        """The text the model reads: the template filled in with prompt and examples, wrapped in the chat template where asked."""
        example, texts = self.data.get("example", ""), []
        for asked, answer in self.examples():
            texts.append(_fill(example, prompt=self.text_of(asked), answer=answer))
        text = _fill(self.data.get("template", "{prompt}"), prompt=self.text_of(prompt), examples="".join(texts))
        if isinstance(prompt, str) and not self.data.get("chat"):
            return text
        messages = [{"role": "user", "content": text}] if isinstance(prompt, str) else [dict(message) for message in prompt]
        users = [message for message in messages if message["role"] == "user"]
        if users:
            users[-1]["content"] = text
        try:
            today = datetime.date.fromisoformat(self.data.get("date", "2026-01-01"))
            chat_template = _dated(tokenizer.get_chat_template(), today)
            return tokenizer.apply_chat_template(messages, chat_template=chat_template, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what it likes: no system role, turns that do not alternate
            raise InputError(f"{self.where}: data: the chat template refuses {shortened(prompt)}: {one_line(error)}") from None

    def encode(self, texts, tokenizer):
        """Token ids of formatted prompts, a list for each text. A chat template writes its own special tokens; a plain prompt
        gets the BOS token where the tokenizer adds one."""
        tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
        begin = [] if self.data.get("chat") else tokenizer("a")["input_ids"][:1]
        if begin != [tokenizer.bos_token_id]:
            return tokens
        return [ids if ids[:1] == begin else begin + ids for ids in tokens]

    def load_tokenizer(self):
        """Of a model made from a config: one token per character of the alphabet."""
        from maxpo_bench.policies import characters

        return characters.tokenizer(self.alphabet)

    def context(self):
        """The longest prompt + completion of a model made from a config, in tokens."""
        return CONTEXT


def _fill(template, **values):
    """The template with {name} replaced by each value, once: what stands in a value is not looked at."""
    return re.sub("|".join(rf"\{{{name}\}}" for name in values), lambda found: values[found[0][1:-1]], template)


def shortened(value, end=False):
    text = str(value) if len(str(value)) <= 60 else f"...{str(value)[-60:]}" if end else f"{str(value)[:60]}..."
    return repr(text)


def _dated(chat_template, day):
    """The chat template with strftime_now telling that day: a macro of the name stands before the function of transformers."""
    if "strftime_now" not in chat_template:
        return chat_template
    told = {f"%{code}": day.strftime(f"%{code}") for code in "aAbBcdfFHIjmMpSuUVwWxXyYe"}
    told |= {f"%-{code}": str(int(told[f"%{code}"])) for code in "dmHIMSj"}
    replaced = "".join(f"|replace({code!r}, {text!r})" for code, text in told.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{{{{ '' }}}}" + chat_template
