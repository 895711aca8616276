"""Any reasoning-gym data set as a task: `data.dataset` names it, `data.options` configures it.

Splits are ranges of indices of ONE data set: reasoning-gym seeds item i with seed + i, so data sets with neighbouring
seeds share most of their questions. A question on both sides of the border is dropped from training.
Its scorers are graded and some parse with sympy or eval, which run text as code. So by default a completion is compared
with the data set's answer; `data.scorer: own` asks the data set's scorer instead, and is refused where that evaluates.
"""

import inspect
import re
import sys

from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.problems.prompts import PromptSource

MAX_CHARACTERS = 200
_EVALUATES = re.compile(r"sympy|parse_expr|\beval\(|\bexec\(|literal_eval|compile\(|subprocess|pickle|yaml\.")


class Source(PromptSource):
    """Questions and scorer of one reasoning-gym data set."""

    alphabet = "".join(chr(code) for code in range(32, 127)) + "\n"

    def __init__(self, data, where=""):
        super().__init__(data, where)
        try:
            import reasoning_gym
        except ImportError:
            install = "pip install 'maxpo_bench[reasoning-gym]'"
            raise InputError(f"{where}: kind reasoning_gym needs the package reasoning-gym: {install}") from None
        from reasoning_gym.factory import DATASETS

        if data["dataset"] not in DATASETS:
            near = did_you_mean(data["dataset"], DATASETS)
            raise InputError(f"{where}: data.dataset: unknown {data['dataset']!r}{near}")
        size = data["num_train"] + data["num_held_out"]
        try:
            self._items = reasoning_gym.create_dataset(data["dataset"], seed=data["seed"], size=size, **data["options"])
        except (TypeError, AssertionError, ValueError) as error:
            raise InputError(f"{where}: data.options: {data['dataset']} does not take them: {error}") from None
        if data["scorer"] == "own" and _EVALUATES.search(inspect.getsource(sys.modules[type(self._items).__module__])):
            raise InputError(
                f"{where}: data.scorer: the scorer of {data['dataset']} may run text as code, which no completion must "
                "reach; scorer: exact compares with its answer instead"
            )
        self._split_rows = None

    def rows(self, split):
        if self._split_rows is None:
            indices = {"held_out": range(self.data["num_held_out"])}
            indices["train"] = range(self.data["num_held_out"], len(self._items))
            seen, self._split_rows = set(), {}
            for name in ("held_out", "train"):
                chosen = {"prompt": [], "index": [], "answer": []}
                for index in indices[name]:
                    item = self._items[index]
                    if item["question"] not in seen:
                        seen.add(item["question"])
                        chosen["prompt"].append(item["question"])
                        chosen["index"].append(index)
                        chosen["answer"].append(str(item["answer"]))
                self._split_rows[name] = chosen
        return self._split_rows[split]

    def demonstrations(self, rng, size):
        """Random training questions with the data set's own answer."""
        rows = self.rows("train")
        chosen = rng.integers(len(rows["prompt"]), size=size)
        return [(rows["prompt"][i], rows["answer"][i]) for i in chosen]

    def verify(self, row, text):
        """1 if the text equals the data set's answer; with scorer: own, if its score is at least data.threshold.

        A text that is long or has a character besides printable ASCII and newline earns 0 and reaches no scorer.
        """
        if len(text) > MAX_CHARACTERS or any(char not in self.alphabet for char in text):
            return 0.0
        if text.strip() == row["answer"].strip():
            return 1.0
        if self.data["scorer"] == "exact":
            return 0.0
        return float(self._items.score_answer(text.strip(), self._items[row["index"]]) >= self.data["threshold"])
