"""Any Hugging Face data set of questions with numeric answers, for any Hugging Face causal language model.

`data.source` is a hub id, a local folder or a JSONL file; `model.name` a hub id or a local folder. Weights are read
from safetensors only and no code of a model or data set is run (trust_remote_code stays off).
"""

import re
from fractions import Fraction
from pathlib import Path

from maxpo_bench.errors import InputError
from maxpo_bench.problems.prompts import PromptSource, is_held_out

MAX_TAIL = 2000  # characters of a completion's end that are searched for the answer
# ASCII digits only, and every repeat bounded
_NUMBER = re.compile(r"[-+]?[0-9]{1,40}(?:,[0-9]{3}){0,12}(?:\.[0-9]{1,40})?(?:/[0-9]{1,40})?")


class Source(PromptSource):
    """Questions of one data set; the reward is 1 when the completion's number equals the answer's."""

    saves_states = False

    def rows(self, split):
        """Split "train" or "held_out". Without data.held_out_split a hash of the prompt divides the split there is."""
        data = self.data
        own_split = bool(data["held_out_split"])
        name = data["held_out_split"] if own_split and split == "held_out" else data["split"]
        table = load_table(data["source"], data["subset"], name, self.where)
        for column in (data["prompt_column"], data["answer_column"]):
            if column not in table.column_names:
                raise InputError(
                    f"{self.where}: data: {data['source']} has no column {column!r}; "
                    f"it has {', '.join(table.column_names)}"
                )
        if len(table) == 0:
            raise InputError(f"{self.where}: data: split {name!r} of {data['source']} is empty")
        columns = {"prompt": data["prompt_column"], "answer": data["answer_column"]}
        rows = {name: [str(value) for value in table[column]] for name, column in columns.items()}
        if not own_split:
            keep = [i for i, prompt in enumerate(rows["prompt"]) if is_held_out(prompt) == (split == "held_out")]
            rows = {column: [values[i] for i in keep] for column, values in rows.items()}
        return rows

    def format_prompt(self, prompt, tokenizer):
        text = self.data["template"].replace("{prompt}", prompt)
        if not self.data["chat"]:
            return text
        messages = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def demonstrations(self, rng, size):
        raise InputError(f"{self.where}: warm_start: a pretrained model starts as it is; set warm_start.steps to 0")

    def verify(self, row, text):
        """1 if the number of the completion equals the number of the data set's answer (within answer_tolerance)."""
        wanted = extract_number(row["answer"], "last_number")
        if wanted is None:
            raise ValueError(f"the data set's answer {row['answer'][-40:]!r} holds no number")
        given = extract_number(text, self.data["answer"])
        return float(given is not None and abs(given - wanted) <= self.data["answer_tolerance"])

    def load_tokenizer(self, model):
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        where = f"{self.where}: model.name"
        tokenizer = _load(AutoTokenizer.from_pretrained, model["name"], where, padding_side="left")
        if tokenizer.eos_token_id is None:
            raise InputError(f"{self.where}: model.name: the tokenizer of {model['name']} has no end-of-sequence token")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if self.data["chat"] and tokenizer.chat_template is None:
            raise InputError(f"{self.where}: data.chat: the tokenizer of {model['name']} has no chat template")
        self._config = _load(AutoConfig.from_pretrained, model["name"], where)
        try:
            self._generation = GenerationConfig.from_pretrained(model["name"])
        except OSError:  # many models have no generation_config.json; one that cannot be read is none to generate either
            self._generation = GenerationConfig()
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: generation_config.json of {model['name']}: {one_line(error)}") from None
        return tokenizer

    def end_tokens(self, tokenizer):
        """The tokenizer's end token first, then those of the model's config.json and generation_config.json."""
        found = [tokenizer.eos_token_id]
        for ends in (self._config.eos_token_id, self._generation.eos_token_id):
            found += ends if isinstance(ends, list) else [ends]
        return list(dict.fromkeys(end for end in found if end is not None))

    def context(self, model):
        from maxpo_bench.policies import self_check

        return self_check.context(self._config) or 1_000_000  # some state-space models have none

    def load_model(self, task, tokenizer, seed):
        import torch
        from transformers import AutoModelForCausalLM

        name = task.section("model")["name"]
        where = f"{self.where}: model.name"
        return _load(AutoModelForCausalLM.from_pretrained, name, where, use_safetensors=True, dtype=torch.float32).eval()


def extract_number(text, method):
    """The answer in a text as an exact Fraction, None when there is none.

    method: "last_number" takes what follows the last `####`, else the last \\boxed{...}, else the text's last number;
    "marked" takes `####` or \\boxed{...} only. Only the last 2000 characters count; thousands commas, decimals and
    fractions of ASCII digits are understood, a number directly followed by % or more digits is not one.
    """
    tail = text[-MAX_TAIL:]
    for mark in ("####", "\\boxed{"):
        at = tail.rfind(mark)
        if at >= 0:
            return _first_number(tail[at + len(mark) :])
    if method == "marked":
        return None
    numbers = list(_NUMBER.finditer(tail))
    return _fraction(numbers[-1], tail) if numbers else None


def _first_number(text):
    match = _NUMBER.search(text[:100].lstrip(" $"))
    return _fraction(match, text[:100].lstrip(" $")) if match and match.start() <= 2 else None


def _fraction(match, text):
    """The matched number; None if it is part of something longer (50%, 1e9, a huge number) or divides by 0."""
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if after == "%" or after.isalnum() or before.isalnum() or before in ("^", "*", "/") or after in ("^", "*", "/"):
        return None
    numerator, _, denominator = match.group().replace(",", "").partition("/")
    if denominator and int(denominator) == 0:
        return None
    return Fraction(numerator) / int(denominator or 1)


def load_table(source, subset, split, where):
    """A `datasets` table of a JSONL file, a local folder or a hub data set; InputError if it cannot be had."""
    import datasets

    path = Path(source)
    try:
        if path.suffix in (".jsonl", ".json"):
            if not path.is_file():
                raise InputError(f"{where}: data.source: no file {source}")
            if path.stat().st_size == 0:
                raise InputError(f"{where}: data.source: {source} is empty")
            return datasets.load_dataset("json", data_files={split: str(path)}, split=split)
        return datasets.load_dataset(source, subset or None, split=split)
    except InputError:
        raise
    except Exception as error:  # datasets raises many kinds; all of them mean that this table cannot be had
        raise InputError(f"{where}: data.source: cannot load split {split!r} of {source}: {one_line(error)}") from None


def _load(method, name, where, **options):
    """from_pretrained with one-line errors: not a model, or the hub cannot be reached."""
    path = Path(name)
    if path.is_dir() and not (path / "config.json").is_file():
        raise InputError(f"{where}: {name} is not a model folder: it has no config.json")
    if not path.is_dir() and (path.is_absolute() or name.startswith(".")):
        raise InputError(f"{where}: no folder {name}")
    try:
        return method(name, trust_remote_code=False, **options)
    except Exception as error:  # transformers and the hub client raise many kinds
        if path.is_dir():
            raise InputError(f"{where}: cannot load {name}: {one_line(error)}") from None
        raise InputError(
            f"{where}: {name} is neither a local folder nor to be had from the Hugging Face hub "
            f"(no network, or no such model): {one_line(error)}"
        ) from None


def one_line(error):
    """The first line of an error's text, at most 160 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
