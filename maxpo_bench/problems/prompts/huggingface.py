"""Any Hugging Face data set of questions with numeric answers, for any Hugging Face causal language model.

`data.source` is a hub id, a local folder or a JSONL file; `model.name` a hub id or a local folder. Weights are read
from safetensors only and no code of a model or data set is run (trust_remote_code stays off).
"""

import datetime
import glob
import json
import math
from pathlib import Path

from maxpo_bench.errors import InputError
from maxpo_bench.problems import answers
from maxpo_bench.problems.prompts import PromptSource, is_held_out


class Source(PromptSource):
    """Questions of one data set; the reward is 1 when the completion's number equals the answer's."""

    saves_states = False

    def __init__(self, data, where=""):
        super().__init__(data, where)
        self._today = datetime.date.fromisoformat(data.get("date", "2026-01-01"))

    def rows(self, split):
        """Split "train" or "held_out". Without data.held_out_split a hash of the prompt divides the split there is."""
        data = self.data
        own_split = bool(data["held_out_split"])
        name = data["held_out_split"] if own_split and split == "held_out" else data["split"]
        table = load_table(data["source"], data["subset"], name, self.where)
        for column in (data["prompt_column"], data["answer_column"]):
            if column not in table.column_names:
                raise InputError(
                    f"{self.where}: data: {data['source']} has no column {column!r}; it has {', '.join(table.column_names)}"
                )
        if len(table) == 0:
            raise InputError(f"{self.where}: data: split {name!r} of {data['source']} is empty")
        rows = {"prompt": [], "answer": []}
        for number, row in enumerate(zip(table[data["prompt_column"]], table[data["answer_column"]], strict=True), start=1):
            prompt, answer = self._prompt(number, row[0]), self._answer(number, row[1])  # a bad row is refused on either side
            if own_split or is_held_out(json.dumps(prompt) if isinstance(prompt, list) else prompt) == (split == "held_out"):
                rows["prompt"].append(prompt)
                rows["answer"].append(answer)
        return rows

    def _refuse(self, number, key, problem):
        column = self.data[f"{key}_column"]
        return InputError(f"{self.where}: data: row {number} of {self.data['source']}: column {column!r}: {problem}")

    def _prompt(self, number, value):
        """The prompt of a row, counted from 1: a text, or a list of messages {role, content}."""
        if value is None:
            raise self._refuse(number, "prompt", "there is no prompt (null)")
        if not isinstance(value, list):
            if isinstance(value, dict) or not str(value).strip():
                raise self._refuse(number, "prompt", f"must be a text or a list of messages, got {_short(value)}")
            return str(value)
        if not self.data["chat"]:
            raise self._refuse(number, "prompt", "prompts are messages, which need a chat template: set data.chat to true")
        for message in value:
            if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
                raise self._refuse(number, "prompt", f"a message has a text as role and one as content, got {_short(message)}")
        if not value or value[-1]["role"] == "assistant":
            raise self._refuse(number, "prompt", "messages must end before the assistant's turn")
        return [{"role": message["role"], "content": message["content"]} for message in value]

    def _answer(self, number, value):
        """The answer of a row as text; of a list, all entries, each of them right."""
        golds = value if isinstance(value, list) else [value]
        texts = [_exact_text(gold) for gold in golds]
        if not texts or None in texts:
            raise self._refuse(number, "answer", f"no answer (null, or neither number nor text): {_short(value)}")
        for text in texts:
            if answers.read_gold(text) is None:
                raise self._refuse(number, "answer", f"holds no number, or more than one: {_short(text, end=True)}")
        return texts if isinstance(value, list) else texts[0]

    def format_prompt(self, prompt, tokenizer):
        """The text the model reads. The template is filled in with the prompt, of messages with the user's last one."""
        template = self.data["template"]
        if isinstance(prompt, str):
            text = template.replace("{prompt}", prompt)
            if not self.data["chat"]:
                return text
            messages = [{"role": "user", "content": text}]
        else:
            messages = [dict(message) for message in prompt]
            users = [message for message in messages if message["role"] == "user"]
            if users:
                users[-1]["content"] = template.replace("{prompt}", users[-1]["content"])
        try:
            chat_template = _dated(tokenizer.get_chat_template(), self._today)
            return tokenizer.apply_chat_template(messages, chat_template=chat_template, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what it likes: no system role, turns that do not alternate
            raise InputError(f"{self.where}: data: the chat template refuses {_short(prompt)}: {one_line(error)}") from None

    def encode(self, texts, tokenizer):
        """A chat template writes its own special tokens; a plain prompt gets the BOS token where the tokenizer adds one."""
        tokens = super().encode(texts, tokenizer)
        begin = [] if self.data["chat"] else tokenizer("a")["input_ids"][:1]
        if begin != [tokenizer.bos_token_id]:
            return tokens
        return [ids if ids[:1] == begin else begin + ids for ids in tokens]

    def demonstrations(self, rng, size):
        raise InputError(f"{self.where}: warm_start: a pretrained model starts as it is; set warm_start.steps to 0")

    def verify(self, row, text):
        """1 if the number of the completion equals the number of the data set's answer (within answer_tolerance)."""
        golds = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        given = answers.read(text, self.data["answer"])
        earned = 0.0
        for gold in golds:
            wanted = answers.read_gold(gold)
            if wanted is None:
                raise ValueError(f"the data set's answer {gold[-40:]!r} holds no number")
            if given is not None and answers.equal(given, wanted, self.data["answer_tolerance"]):
                earned = 1.0
        return earned

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


def _dated(chat_template, day):
    """The chat template with strftime_now telling that day: a macro of the name stands before the function of transformers."""
    if "strftime_now" not in chat_template:
        return chat_template
    told = {f"%{code}": day.strftime(f"%{code}") for code in "aAbBcdfFHIjmMpSuUVwWxXyYe"}
    told |= {f"%-{code}": str(int(told[f"%{code}"])) for code in "dmHIMSj"}
    replaced = "".join(f"|replace({code!r}, {text!r})" for code, text in told.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{{{{ '' }}}}" + chat_template


def _exact_text(gold):
    """An answer of a data set as text: JSON numbers as they print (1e-05 is read exactly). None for what is none."""
    if isinstance(gold, bool) or isinstance(gold, float) and not math.isfinite(gold):
        return None
    return str(gold) if isinstance(gold, (str, int, float)) else None


def _short(value, end=False):
    text = str(value) if len(str(value)) <= 60 else f"...{str(value)[-60:]}" if end else f"{str(value)[:60]}..."
    return repr(text)


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
            _check_utf8(path, where)
            return datasets.load_dataset("json", data_files={split: glob.escape(str(path))}, split=split)
        if path.is_dir() and glob.has_magic(source):  # datasets would look for a pattern
            raise InputError(f"{where}: data.source: a folder with *, ? or [ in its name cannot be read; rename {source}")
        return datasets.load_dataset(source, subset or None, split=split)
    except InputError:
        raise
    except Exception as error:  # datasets raises many kinds; all of them mean that this table cannot be had
        raise InputError(f"{where}: data.source: cannot load split {split!r} of {source}: {one_line(error)}") from None


def _check_utf8(path, where):
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                problem = f"line {number} is not UTF-8 ({error.reason}); save the file as UTF-8"
                raise InputError(f"{where}: data.source: {path}: {problem}") from None


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
