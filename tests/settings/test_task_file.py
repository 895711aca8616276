"""Task files: what is legal, and that what is not is told in one line with file, key and nearest name."""

import subprocess
import sys

import pytest
import yaml

from maxpo_bench.errors import InputError
from maxpo_bench.settings.task_file import load, names, root

GOOD = """
version: 1
kind: bandit
title: three arms
arms: {count: 3, rewards: linear}
k: 2
group_size: 4
steps: 5
optimiser: {lr: 0.1}
"""


def write(tmp_path, text, name="small.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_defaults_are_filled_in(tmp_path):
    task = load(write(tmp_path, GOOD))
    assert task.name == "small" and task.k == 2 and task.seeds == 10
    assert task.optimiser["name"] == "adam" and task.loss["clip"] == 0
    assert task.section("arms")["count"] == 3 and task.section("model") == {}


def test_scientific_notation_without_a_dot_is_a_number(tmp_path):
    assert load(write(tmp_path, GOOD.replace("lr: 0.1", "lr: 6e-4"))).optimiser["lr"] == 6e-4


def test_comments_do_not_change_the_hash_and_values_do(tmp_path):
    first = load(write(tmp_path, GOOD)).sha256
    assert load(write(tmp_path, "# a remark\n" + GOOD)).sha256 == first
    assert load(write(tmp_path, GOOD.replace("k: 2", "k: 3"))).sha256 != first


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("k: 2", "kk: 2", ["small.yaml", "kk: unknown key", "'k'"]),
        ("lr: 0.1", "lrr: 0.1", ["optimiser.lrr", "'optimiser.lr'"]),
        ("lr: 0.1", "lr: fast", ["optimiser.lr", "a number", "'fast'"]),
        ("lr: 0.1", "lr: .nan", ["optimiser.lr", "finite"]),
        ("steps: 5", "steps: 2.5", ["steps", "whole number"]),
        ("steps: 5", "steps: true", ["steps", "whole number"]),
        ("steps: 5", "steps: 0", ["steps", "at least 1"]),
        ("kind: bandit", "kind: bandti", ["kind", "'bandti'", "did you mean 'bandit'"]),
        ("kind: bandit", "", ["kind", "missing"]),
        ("title: three arms", "", ["title", "missing"]),
        ("rewards: linear", "rewards: linaer", ["arms.rewards", "did you mean 'linear'"]),
        ("k: 2", "k: 9", ["k: 9", "group_size 4"]),
        ("k: 2", "k: 2\nk: 3", ["'k' is written twice"]),
        ("k: 2", "k: [", ["not valid YAML", "line"]),
        ("k: 2", "k: 2\nloss: {epochs: 3}", ["loss.epochs", "loss.clip"]),
        ("k: 2", "k: 2\nloss: {kl: 0.1}", ["loss.kl", "no base model"]),
        ("lr: 0.1", "lr: 0.1, betas: [0.9]", ["optimiser.betas", "2 entries"]),
        ("lr: 0.1", "lr: 0.1, betas: [0.9, 1]", ["optimiser.betas[1]", "at most"]),
        ("lr: 0.1", "lr: 0.1, betas: [0.9, a]", ["optimiser.betas[1]", "a number", "'a'"]),
        ("kind: bandit", "kind: ../outside.py:Thing", ["leads out of the folder"]),
        ("kind: bandit", "kind: missing.py:Thing", ["no file missing.py"]),
        ("title: three arms", "title: !!python/object/apply:os.system [echo]", ["not valid YAML"]),
        ("optimiser: {lr: 0.1}", "", ["optimiser.lr: missing", "learning rate"]),
        ("optimiser: {lr: 0.1}", "optimiser:", ["optimiser: must be a section with keys name, lr", "None"]),
        ("optimiser: {lr: 0.1}", "optimiser: [0.1]", ["optimiser: must be a section", "[0.1]"]),
        ("k: 2", "k: 3\nevaluation: {samples: 2}", ["evaluation.samples: 2", "k 3"]),
        ("k: 2", "k: 3\nevaluation: {curve_samples: 2}", ["evaluation.curve_samples: 2", "k 3"]),
        ("k: 2", "k: 2\ntags: sparse", ["tags", "a list", "'sparse'"]),
        ("k: 2", "k: 2\ntags: [1]", ["tags[0]", "a text", "got 1"]),
        ("version: 1", "version: 2", ["version", "at most 1", "got 2"]),
        ("steps: 5", "steps: 5\nseeds: 9991", ["seeds: must be at most 9990", "got 9991"]),
        ("k: 2", "k: 2\nfirst_seed: 100", ["first_seed: must be 0 or from 10000 on", "got 100"]),
        ("k: 2", "k: 2\nnumerics: nativ", ["numerics", "did you mean 'native'"]),
        ("k: 2", "k: 2\nseed_budget_s: -1", ["seed_budget_s", "at least 0", "got -1"]),
        ("k: 2", "k: 2\nresources: {cpu: 2}", ["resources.cpu: unknown key", "'resources.cpus'"]),
        ("k: 2", "k: 2\nresources: {memory: lots}", ["resources.memory", "8 GB", "'lots'"]),
        ("k: 2", 'k: 2\n"z\\nz": 1', ["'z\\nz': unknown key"]),
        ("k: 2", "k: 2\nloss: {k.l: 1}", ["loss.k.l: unknown key", "'loss.kl'"]),
        ("k: 2", "k: 2\nzzz: 1", ["zzz: unknown key", "legal: version, kind"]),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, old, new, words):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, GOOD.replace(old, new)))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


PENDULUM = GOOD.replace("kind: bandit", "kind: gymnasium").replace("arms: {count: 3, rewards: linear}", "env: {id: Pendulum-v1}")


@pytest.mark.parametrize(
    "lines, words",
    [
        ("", ["score.success: missing", "pass@k", "return"]),
        ("outcome: {type: final}", ["score.success: missing", "last reward"]),
        ("outcome: {type: success}", ["outcome.threshold: missing"]),
        ("outcome: {type: normalised, low: 5, high: 5}", ["outcome.high: 5.0", "larger than outcome.low 5.0"]),
        ("score: {success: -200}\npolicy: {hidden: [1]}", ["policy.hidden[0]", "at least 2"]),
        ("score: {success: -200}\npolicy: {hidden: [8, a]}", ["policy.hidden[1]", "a whole number"]),
        ("score: {success: -200}\npolicy: {log_std: 1000}", ["policy.log_std", "at most 10"]),
    ],
)
def test_an_episode_must_be_told_when_it_passes(tmp_path, lines, words):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, PENDULUM + lines))
    assert all(word in str(caught.value) for word in ["small.yaml", *words]), caught.value
    assert load(write(tmp_path, PENDULUM + "score: {success: -200}")).success == -200


WORDS = """
version: 1
kind: huggingface
title: a model and its questions
model: {name: here}
sampling: {max_new_tokens: 8}
data: {source: rows.jsonl}
k: 2
group_size: 4
steps: 5
optimiser: {lr: 0.1}
"""


def test_keys_of_today_keep_their_meaning_where_they_are_not_written(tmp_path):
    task = load(write(tmp_path, WORDS))
    assert (task.numerics, task.first_seed, task.seed_budget_s) == ("portable", 0, 0)
    assert task.resources == {"cpus": 1, "gpus": 0, "memory": ""}
    assert task.section("sampling") == {"max_new_tokens": 8, "temperature": 1, "truncated": "as_is", "stop": []}
    assert task.section("data")["date"] == "2026-01-01"


def test_keys_that_are_written_arrive(tmp_path):
    more = "numerics: native\nfirst_seed: 10000\nseeds: 9990\nseed_budget_s: 60\nresources: {cpus: 4, gpus: 0.5, memory: 8 GB}\n"
    text = WORDS.replace("tokens: 8", 'tokens: 8, truncated: zero, stop: ["Question:"]')
    text = text.replace("rows.jsonl", 'r, date: "2030-12-31"')
    task = load(write(tmp_path, text + more))
    assert (task.numerics, task.first_seed, task.seeds, task.seed_budget_s) == ("native", 10000, 9990, 60)
    assert task.resources == {"cpus": 4, "gpus": 0.5, "memory": "8 GB"}
    assert task.section("sampling")["truncated"] == "zero" and task.section("sampling")["stop"] == ["Question:"]
    assert task.section("data")["date"] == "2030-12-31"


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("model: {name: here}", "model: {nam: here}", ["model.nam: unknown key", "'model.name'"]),
        ("model: {name: here}", "", ["model.name: missing", "hub id"]),
        ("tokens: 8", "tokens: 8, truncated: drop", ["sampling.truncated", "'drop'", "legal: as_is, zero"]),
        ("tokens: 8", 'tokens: 8, stop: "x"', ["sampling.stop", "a list", "'x'"]),
        ("tokens: 8", 'tokens: 8, stop: [""]', ["sampling.stop[0]", "empty"]),
        ("rows.jsonl", 'r, template: "Q: {question}"', ["data.template", "'Q: {question}'", "{prompt}"]),
        ("rows.jsonl", 'r, date: "1 May"', ["data.date", "2026-01-01", "'1 May'"]),
        ("rows.jsonl", 'r, date: "2026-02-30"', ["data.date", "'2026-02-30'"]),
        ("rows.jsonl", "r, date: 2026-02-03", ["data.date", "a date", "quotes"]),
        ("k: 2", "k: 2\nwarm_start: {steps: 5}", ["warm_start.steps", "at most 0", "got 5"]),
        ("k: 2", "k: 2\ndevice: cuda:9", ["device", "'cuda:9'", "cuda:7"]),
    ],
)
def test_bad_language_tasks_are_told_in_one_line(tmp_path, old, new, words):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, WORDS.replace(old, new)))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in ["small.yaml", *words]), message


MODEL = """
version: 1
kind: text_maze
title: a maze
warm_start: {steps: 3}
sampling: {max_new_tokens: 8}
k: 2
group_size: 4
steps: 5
optimiser: {lr: 0.1}
loss: {kl: 0.1}
"""


def test_rules_between_the_keys_of_a_section(tmp_path):
    assert load(write(tmp_path, MODEL)).section("data")["max_distance"] == 8
    with pytest.raises(InputError, match="model.hidden_size: 64 is not an even number for each of 5 heads"):
        load(write(tmp_path, MODEL + "model: {heads: 5}\n"))
    with pytest.raises(InputError, match="data.min_distance: 9 is larger than data.max_distance 8"):
        load(write(tmp_path, MODEL + "data: {min_distance: 9}\n"))


def test_reported_seeds_lie_below_those_of_tuning(tmp_path):
    reported = load(write(tmp_path, GOOD + "seeds: 9990\n")).reported_seeds
    assert len(set(reported)) == 9990 and max(reported) == 9999 and not set(reported) & set(range(100, 110))


def test_the_hash_is_of_what_is_written(tmp_path):
    """Neither a comment, the order of keys nor a default that is not written counts; a key that is written does."""
    first = load(write(tmp_path, GOOD)).sha256
    lines = GOOD.strip().split("\n")
    assert load(write(tmp_path, "\n".join(reversed(lines)))).sha256 == first
    assert load(write(tmp_path, GOOD + "seeds: 10\n")).sha256 != first
    # As it was before the first task file was read by a model: what was computed then is not computed again.
    assert first == "9e8bdbfff9dd77d8e80ad1bb2c71f982d9146f630a59593b8c4f8948c9496170"


def test_a_relative_path_is_named_with_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    write(folder, GOOD.replace("k: 2", "k: 9"))
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=r"^here/small.yaml: k: 9"):
        load("small.yaml")


@pytest.mark.parametrize("name", ["../secret", "a/b", "/etc/passwd", "x y", ""])
def test_names_do_not_leave_the_tasks_folder(name):
    with pytest.raises(InputError):
        load(name)


def test_unknown_name_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'bandit'"):
        load("bandti")


@pytest.mark.parametrize("name", names())
def test_every_task_of_the_project_loads(name):
    task = load(name)
    assert task.name == name and 1 <= task.k <= task.group_size - 1


def test_gsm8k_is_ready_to_run_and_no_default():
    """The real data set and a small instruct model, on the data set's own splits; a GPU's work, so not in params.yaml."""
    task = load("gsm8k")
    assert task.kind == "huggingface" and task.section("model")["name"] == "Qwen/Qwen2.5-0.5B-Instruct"
    data = task.section("data")
    assert (data["source"], data["subset"], data["split"], data["held_out_split"]) == ("openai/gsm8k", "main", "train", "test")
    assert (data["prompt_column"], data["answer_column"]) == ("question", "answer")
    assert data["chat"] and data["template"].count("{prompt}") == 1 and "####" in data["template"]
    assert data["answer"] == "last_number" and data["answer_tolerance"] == 0
    assert task.section("warm_start")["steps"] == 0 and task.section("device") == "cuda"
    assert task.evaluation["samples"] == 64 and task.evaluation["prompts"] >= 128
    assert task.name not in yaml.safe_load((root() / "params.yaml").read_text())["tasks"]


def test_reading_a_task_does_not_import_torch():
    code = "import sys; from maxpo_bench.settings.task_file import load; load('bandit'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_finding_a_task_imports_neither_yaml_nor_pydantic():
    """The core finds the project's folder without the packages of the pipeline."""
    code = "import sys; from maxpo_bench.settings import task_file; task_file.root(); task_file.names(); task_file.find('bandit'); "
    assert subprocess.run([sys.executable, "-c", code + "sys.exit(bool({'yaml', 'pydantic'} & set(sys.modules)))"]).returncode == 0
