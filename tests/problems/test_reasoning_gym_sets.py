"""Every set of reasoning-gym at its default options: it is right, or it is refused in a line. docs/reasoning-gym.md lists them.

Write the page anew with:  PYTHONHASHSEED=0 python tests/problems/test_reasoning_gym_sets.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maxpo_bench.errors import InputError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reasoning-gym.md"
AT_LEAST = 85
VERSION = "0.1.25"
HEAD = f"""# reasoning-gym: which sets can be a task

Every set of reasoning-gym {VERSION} at its default options, 12 items of each, as `kind: reasoning_gym` takes it.

- *exact*: a completion is compared with the set's answer (`data.scorer: exact`, the default).
- *own*: the set has no one answer, and its own scorer judges (`data.scorer: own`, and `warm_start.steps: 0`, as there is
  nothing to show).
- refused: before anything is trained, with the line below.

Lengths are in characters, which are the tokens of a model that is made from nothing; its vocabulary and context are fitted
to the set. `sampling.max_new_tokens` should be more than the longest answer, for the end token.

"""


def judged(name):
    """(set, exact | own | refused, longest prompt, longest answer, characters, why) with what is promised held."""
    from maxpo_bench.problems.prompts.reasoning_gym import GARBAGE, Source

    data = {"dataset": name, "options": {}, "seed": 0, "num_train": 8, "num_held_out": 4, "threshold": 1.0}
    refusals = []
    for scorer in ("exact", "own"):
        try:
            made = Source({**data, "scorer": scorer}, where="t.yaml")
        except InputError as error:
            refusals.append(str(error).removeprefix("t.yaml: data."))
            assert "\n" not in str(error) and name in str(error)
            if "no one answer" not in str(error) or "own asks" not in str(error):
                return name, "refused", 0, 0, 0, refusals[0]
            continue
        tokenizer = made.load_tokenizer()
        rows = [{key: values[i] for key, values in made.rows(split).items()} for split in ("train", "held_out")
                for i in range(len(made.rows(split)["prompt"]))]  # fmt: skip
        for row in rows:
            for text in [row["prompt"], *([row["answer"]] if row["answer"] is not None else [])]:
                tokens = tokenizer(text)["input_ids"]
                assert tokenizer.unk_token_id not in tokens and tokenizer.eos_token_id not in tokens
                assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == text
            if row["answer"] is not None:
                assert made.verify(row, row["answer"]) == made.verify(row, f" {row['answer']}\n") == 1
                assert made.context() > len(row["prompt"]) + len(row["answer"])
            answer = (row["answer"] or "").strip()
            assert [text for text in GARBAGE if text.strip() != answer and made.verify(row, text)] == []
        longest = [max(len(row[key] or "") for row in rows) for key in ("prompt", "answer")]
        return name, scorer, *longest, len(tokenizer) - 3, ""
    return name, "refused", 0, 0, 0, refusals[-1]


def page(found):
    rows = ["| set | judged by | longest prompt | longest answer | characters |", "|---|---|---:|---:|---:|"]
    taken = [row for row in found if row[1] != "refused"]
    rows += [f"| {name} | {how} | {prompt} | {answer or ''} | {size} |" for name, how, prompt, answer, size, _ in taken]
    refused = [f"- **{name}**: {why}" for name, how, *_, why in found if how == "refused"]
    count = f"{len(taken)} of {len(found)} sets can be a task, {len(refused)} are refused.\n\n"
    return HEAD + count + "\n".join(rows) + "\n\n## Refused\n\n" + "\n".join(refused) + "\n"


@pytest.mark.slow
def test_every_set_is_right_or_refused_and_the_page_says_which():
    """In a process of its own, in which the items need none of their own."""
    version = pytest.importorskip("importlib.metadata").version
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    if version("reasoning_gym") != VERSION:
        pytest.skip(f"the page is about reasoning-gym {VERSION}")
    done = subprocess.run(
        [sys.executable, __file__, "--json"], env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])  # some sets print
    assert len(found) >= 105 and sum(how != "refused" for _, how, *_ in found) >= AT_LEAST
    assert all(why for _, how, *_, why in found if how == "refused")
    assert page(found) == PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    from reasoning_gym.factory import DATASETS

    results = [judged(name) for name in sorted(DATASETS)]
    if "--json" in sys.argv:
        print("\n" + json.dumps(results))
    else:
        PAGE.write_text(page(results), encoding="utf-8")
