"""Any Hugging Face data set of questions with numeric answers: `data.source` is a hub id, a local folder or a JSONL file.

No code of a data set is run (trust_remote_code stays off).
"""

import glob
import json
import math
from pathlib import Path

from maxpo_bench.errors import InputError, one_line
from maxpo_bench.problems import answers, verifiers
from maxpo_bench.problems.prompts import ASCII, PromptSource, is_held_out, shortened


class Source(PromptSource):
    """Questions of one data set; the reward is 1 when the completion's number equals the answer's."""

    def __init__(self, data, where=""):
        super().__init__(data, where)
        self._train_rows = None

    @property
    def alphabet(self):
        """Of a model made from a config: every character of the training questions and answers."""
        rows = self._train()
        texts = [self.text_of(prompt) for prompt in rows["prompt"]]
        texts += [text for row in rows["answer"] for text in (row if isinstance(row, list) else [row])]
        return ASCII + "".join(sorted(set().union(*texts) - set(ASCII)))

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
        if not rows["prompt"]:
            advice = "name a data.held_out_split of its own, or give more rows that differ"
            raise InputError(f"{self.where}: data: {len(table)} rows of {data['source']} leave none for {split}; {advice}")
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
                raise self._refuse(number, "prompt", f"must be a text or a list of messages, got {shortened(value)}")
            return str(value)
        if not self.data["chat"]:
            raise self._refuse(number, "prompt", "prompts are messages, which need a chat template: set data.chat to true")
        for message in value:
            if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
                raise self._refuse(number, "prompt", f"a message has a text as role and one as content, got {shortened(message)}")
        if not value or value[-1]["role"] == "assistant":
            raise self._refuse(number, "prompt", "messages must end before the assistant's turn")
        return [{"role": message["role"], "content": message["content"]} for message in value]

    def _answer(self, number, value):
        """The answer of a row as text; of a list, all entries, each of them right."""
        golds = value if isinstance(value, list) else [value]
        texts = [_exact_text(gold) for gold in golds]
        if not texts or None in texts:
            raise self._refuse(number, "answer", f"no answer (null, or neither number nor text): {shortened(value)}")
        for text in texts:
            if answers.read_gold(text) is None:
                raise self._refuse(number, "answer", f"holds no number, or more than one: {shortened(text, end=True)}")
        return texts if isinstance(value, list) else texts[0]

    def demonstrations(self, rng, size):
        """Random training questions with the data set's own answer, the first where there are several."""
        rows = self._train()
        chosen = rng.integers(len(rows["prompt"]), size=size)
        found = [(rows["prompt"][i], rows["answer"][i]) for i in chosen]
        return [(prompt, answer[0] if isinstance(answer, list) else answer) for prompt, answer in found]

    def _train(self):
        if self._train_rows is None:
            self._train_rows = self.rows("train")
        return self._train_rows

    def verify(self, row, text):
        """1 if the number of the completion equals the number of the data set's answer (within answer_tolerance)."""
        return verifiers.number(row, text, self.data["answer"], self.data["answer_tolerance"])


def _exact_text(gold):
    """An answer of a data set as text: JSON numbers as they print (1e-05 is read exactly). None for what is none."""
    if isinstance(gold, bool) or isinstance(gold, float) and not math.isfinite(gold):
        return None
    return str(gold) if isinstance(gold, (str, int, float)) else None


def load_table(source, subset, split, where):
    """A `datasets` table of a JSONL file, a local folder or a hub data set; InputError if it cannot be had."""
    import datasets

    datasets.disable_progress_bars()  # of reading a file: what goes wrong is one line
    path = Path(source)
    try:
        if path.suffix in (".jsonl", ".json"):
            if not path.is_file():
                raise InputError(f"{where}: data.source: no file {source}")
            if path.stat().st_size == 0:
                raise InputError(f"{where}: data.source: {source} is empty")
            _check_lines(path, where)
            return datasets.load_dataset("json", data_files={split: glob.escape(str(path))}, split=split)
        if path.is_file():
            raise InputError(f"{where}: data.source: {source} is neither .jsonl nor .json; unpack it, or save it as JSONL")
        if path.is_dir() and glob.has_magic(source):  # datasets would look for a pattern
            raise InputError(f"{where}: data.source: a folder with *, ? or [ in its name cannot be read; rename {source}")
        return datasets.load_dataset(source, subset or None, split=split)
    except InputError:
        raise
    except Exception as error:  # datasets raises many kinds; all of them mean that this table cannot be had
        raise InputError(
            f"{where}: data.source: cannot load split {split!r} of {source}: {one_line(error.__cause__ or error)}"
        ) from None


def _check_lines(path, where):
    """InputError with the line that is not UTF-8 or, in a JSONL file, no object of JSON with each key once."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if path.suffix == ".jsonl" and text.strip() and not isinstance(json.loads(text, object_pairs_hook=_once), dict):
                    raise ValueError("it must be an object: {...}")
            except UnicodeDecodeError as error:
                problem = f"line {number} is not UTF-8 ({error.reason}); save the file as UTF-8"
                raise InputError(f"{where}: data.source: {path}: {problem}") from None
            except (ValueError, RecursionError) as error:
                reason = one_line(getattr(error, "msg", error))
                raise InputError(f"{where}: data.source: {path}: line {number} is no row of JSON: {reason}") from None


def _once(pairs):
    """The dict of an object in JSON; ValueError where a key stands twice, or a text is no Unicode."""
    for key, value in pairs:
        f"{key}{value if isinstance(value, str) else ''}".encode()
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)
