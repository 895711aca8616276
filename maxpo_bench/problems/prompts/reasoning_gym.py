"""Any reasoning-gym data set as a task: `data.dataset` names it, `data.options` configures it.

Splits are ranges of indices of ONE data set: reasoning-gym seeds item i with seed + i, so data sets with neighbouring
seeds share most of their questions. A question on both sides of the border is dropped from training.
Some sets depend on the order of Python's sets, which differs from process to process: all items are made in a process of
their own with a fixed order, and a set that still differs the second time is refused.
Its scorers are graded and some parse with sympy or eval, which run text as code. So by default a completion is compared
with the data set's answer; `data.scorer: own` asks the data set's scorer instead, and is refused where that evaluates, or
pays a wrong answer: another number (up to 1% away, since some round), or two answers in one text.
"""

import functools
import inspect
import json
import os
import re
import subprocess
import sys
import traceback
from fractions import Fraction

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.problems.prompts import ASCII, CONTEXT, PromptSource

MAX_CHARACTERS = 200  # of a text that a scorer gets to see, where no answer of the set is longer
PROBED = 4  # items that the scorer is tried on
SECONDS_PER_ITEM, SECONDS_AT_LEAST = 2, 120
GARBAGE = ["", "None", "zzz", "(((", "[]", "{}", '{"a": 1}', "[[1]]", "1e999", "-", "?" * 60, "a b c\nd e f"]
SPACED = {"{0} {1}", "{1} {0}"}  # a scorer may read the first answer of a text or the last, not either
JOINED = {*SPACED, "{0}{1}", "{1}{0}"}
OFF = 0.01  # of a number: what scorers that round may take for the same one
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(/0*[1-9][0-9]*)?")
_EVALUATES = re.compile(r"sympy|parse_expr|\beval\(|\bexec\(|literal_eval|compile\(|subprocess|pickle|yaml\.")


class Source(PromptSource):
    """Questions and scorer of one reasoning-gym data set, tried out before anything is trained on it."""

    alphabet = ASCII

    def __init__(self, data, where=""):
        super().__init__(data, where)
        try:
            from reasoning_gym.factory import DATASETS, create_dataset
        except ImportError:
            install = "pip install 'maxpo_bench[reasoning-gym]'"
            raise InputError(f"{where}: kind reasoning_gym needs the package reasoning-gym: {install}") from None
        if data["dataset"] not in DATASETS:
            near = did_you_mean(data["dataset"], DATASETS)
            raise InputError(f"{where}: data.dataset: unknown {data['dataset']!r}{near}")
        size = data["num_train"] + data["num_held_out"]
        try:
            scored = create_dataset(data["dataset"], seed=data["seed"], size=size, **data["options"])
        except (TypeError, AssertionError, ValueError) as error:
            raise InputError(f"{where}: data.options: {data['dataset']} does not take them: {error}") from None
        evaluates = _EVALUATES.search(inspect.getsource(sys.modules[type(scored).__module__])) is not None
        if data["scorer"] == "own" and evaluates:
            raise InputError(
                f"{where}: data.scorer: the scorer of {data['dataset']} may run text as code, which no completion must "
                "reach; scorer: exact compares with its answer instead"
            )
        self._scored, self._entries = scored, {}
        try:
            self._items = items(data["dataset"], json.dumps(data["options"], sort_keys=True), data["seed"], size)
        except ValueError as error:
            raise InputError(f"{where}: data.dataset: {data['dataset']}: {error}") from None
        self._split_rows = self._deduplicated()
        self._fit()
        self._try_out("and its scorer may run text as code" if evaluates else "data.scorer: own asks its scorer")

    def _deduplicated(self):
        border = self.data["num_held_out"]
        seen, rows = set(), {}
        for name, indices in (("held_out", range(border)), ("train", range(border, len(self._items)))):
            rows[name] = {"prompt": [], "index": [], "answer": []}
            for index in indices:
                question, answer = self._items[index]["question"], self._items[index]["answer"]
                if question not in seen:
                    seen.add(question)
                    for key, value in (("prompt", question), ("index", index), ("answer", answer)):
                        rows[name][key].append(value)
        return rows

    def _fit(self):
        """The vocabulary has every character of the set, the context room for its longest prompt and answer."""
        prompts, answers = ([item[key] for item in self._items] for key in ("question", "answer"))
        answers = [answer for answer in answers if answer is not None]
        used = set().union(*prompts, *answers)
        self.alphabet = ASCII + "".join(sorted(used - set(ASCII)))
        self._scorable = set(ASCII).union(*answers)  # what a scorer gets to see
        self._longest_answer = max(map(len, answers), default=0)
        self.shortest_answer = min(map(len, answers), default=0)
        self._context = max(map(len, prompts)) + max(CONTEXT, 2 * self._longest_answer)

    def _try_out(self, instead):
        """The set's own answers earn 1 and garbage nothing, or the set is refused. instead: what to do where there is no answer."""
        name, exact = f"{self.where}: data.dataset: {self.data['dataset']}", self.data["scorer"] == "exact"
        if exact and any(item["answer"] is None for item in self._items):
            raise InputError(f"{name} has no one answer to compare with, {instead}")
        for rows in self._split_rows.values():
            for row in [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)][:PROBED]:
                if row["answer"] is not None and self.verify(row, row["answer"]) != 1:
                    raise InputError(f"{name}: its own answer to item {row['index']} does not earn 1")
                for text in GARBAGE:
                    if text.strip() != (row["answer"] or "").strip() and self.verify(row, text) != 0:
                        raise InputError(f"{name}: its scorer takes {text[:20]!r} for an answer to item {row['index']}")
        if not exact:
            for rows in self._split_rows.values():
                self._try_wrong_answers(name, rows)
        self.unscored = 0

    def _try_wrong_answers(self, name, rows):
        """InputError where the set's scorer pays another number, or a text with two answers wherever the right one stands."""
        advice = "; use scorer: exact, which compares with the whole answer"
        answers = list(dict.fromkeys(filter(None, rows["answer"])))
        for index, answer in list(zip(rows["index"], rows["answer"], strict=True))[:PROBED]:
            row, others = {"index": index, "answer": answer}, [text for text in answers if text != answer][:2]
            for text in other_numbers(answer or ""):
                if self.verify(row, text) != 0:
                    raise InputError(f"{name}: its scorer takes {text[:20]!r} for the answer {answer[:20]!r}{advice}")
            paid = {way for way in JOINED if answer and all(self.verify(row, way.format(answer, other)) for other in others)}
            guilty = paid - SPACED or (paid if paid == SPACED else ())
            if others and guilty:
                shown = min(guilty).format("RIGHT", "WRONG")
                raise InputError(f"{name}: its scorer takes a text with two answers, {shown!r}, for a right one{advice}")

    def rows(self, split):
        return self._split_rows[split]

    def context(self):
        return self._context

    def demonstrations(self, rng, size):
        """Random training questions with the data set's own answer."""
        rows = self.rows("train")
        if None in rows["answer"]:
            raise InputError(f"{self.where}: warm_start: {self.data['dataset']} has no answers to show; set warm_start.steps to 0")
        chosen = rng.integers(len(rows["prompt"]), size=size)
        return [(rows["prompt"][i], rows["answer"][i]) for i in chosen]

    def _entry(self, index):
        """The item as its scorer wants it, made here, once."""
        if index not in self._entries:
            self._entries[index] = entry = self._scored[index]
            if entry["question"] != self._items[index]["question"]:
                name = f"{self.where}: data.scorer: {self.data['dataset']}"
                raise InputError(f"{name}: its items are others in every process and its scorer cannot judge them; use exact")
        return self._entries[index]

    def verify(self, row, text):
        """1 if the text equals the data set's answer; with scorer: own, if its score is at least data.threshold.

        The scorer gets to see no text that is much longer than the set's answers or has a character that is neither theirs
        nor plain ASCII. One that it cannot score (it raises) earns 0 and is counted in `unscored`.
        """
        given = text.strip(" \n")
        if row["answer"] is not None and given == row["answer"].strip(" \n"):
            return 1.0
        if self.data["scorer"] == "exact" or len(text) > max(MAX_CHARACTERS, 2 * self._longest_answer):
            return 0.0
        if not self._scorable.issuperset(text):
            return 0.0
        entry = self._entry(row["index"])
        try:
            return float(self._scored.score_answer(given, entry) >= self.data["threshold"])
        except Exception:  # scorers take texts apart as if they were answers, and raise whatever comes of it
            self.unscored += 1
            return 0.0


def other_numbers(answer):
    """Texts near an answer that are other numbers, by more than OFF; none where the answer is no number."""
    if not _NUMBER.fullmatch(answer):
        return []
    texts = [
        f"-{answer}",
        answer.removeprefix("-"),
        answer[:-1],
        answer[:1],
        "0",
        "1",
        *(f"{answer}{end}" for end in "059"),
        f"9{answer}",
    ]
    value = Fraction(answer)
    others = [(text, Fraction(text)) for text in texts if _NUMBER.fullmatch(text)]
    return [text for text, other in others if abs(other - value) > OFF * max(abs(other), abs(value))]


@functools.lru_cache(maxsize=4)  # pure; forked workers inherit it
def items(dataset, options, seed, size):
    """The first `size` items {question, answer} of a data set, made in a process of its own; answer: a text or None.

    options: JSON. ValueError says what went wrong.
    """
    if os.environ.get("PYTHONHASHSEED") == "0":
        made = _make(dataset, options, seed, size)
    else:
        code = "import sys; from maxpo_bench.problems.prompts import reasoning_gym as r; r._child(*sys.argv[1:])"
        command = [sys.executable, "-c", code, dataset, options, str(seed), str(size)]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        limit = max(SECONDS_AT_LEAST, SECONDS_PER_ITEM * size)
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise ValueError(f"{size} items are not made in {limit} s; ask for fewer (num_train, num_held_out)") from None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise ValueError(f"the process that makes its items ended with {done.returncode}: {lines[-1] if lines else 'no word'}")
        made = json.loads(done.stdout)
    if isinstance(made, str):
        raise ValueError(made)
    return made


def _child(dataset, options, seed, size):
    """What the process of `items` does: write the items, or what went wrong, as JSON to where stdout was."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a set that prints does not spoil them
    try:
        made = _make(dataset, options, int(seed), int(size))
    except ValueError as error:
        made = str(error)
    with out:
        json.dump(made, out)


def _make(dataset, options, seed, size):
    from reasoning_gym.factory import create_dataset

    try:
        first, again = (create_dataset(dataset, seed=seed, size=size, **json.loads(options)) for _ in range(2))
        found = [first[i] for i in range(size)]
        repeated = [again[i] for i in range(min(PROBED, size))]
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(f"it cannot make its items: {type(error).__name__}: {error} ({last.name})") from None
    for one, other in zip(found, repeated, strict=False):
        if (one["question"], one["answer"]) != (other["question"], other["answer"]):
            raise ValueError("its items differ when they are made again with the same seed, so that no result would repeat")
    return [{"question": item["question"], "answer": None if item["answer"] is None else str(item["answer"])} for item in found]
