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
    assert task.kind == "huggingface" and task.section("model") == {"name": "Qwen/Qwen2.5-0.5B-Instruct"}
    data = task.section("data")
    assert (data["source"], data["subset"], data["split"], data["held_out_split"]) == ("openai/gsm8k", "main", "train", "test")
    assert (data["prompt_column"], data["answer_column"]) == ("question", "answer")
    assert data["chat"] and data["template"].count("{prompt}") == 1 and "####" in data["template"]
    assert data["answer"] == "last_number" and data["answer_tolerance"] == 0
    assert task.section("warm_start")["steps"] == 0 and task.section("device") == "auto"
    assert task.evaluation["samples"] == 64 and task.evaluation["prompts"] >= 128
    assert task.name not in yaml.safe_load((root() / "params.yaml").read_text())["tasks"]


def test_reading_a_task_does_not_import_torch():
    code = "import sys; from maxpo_bench.settings.task_file import load; load('bandit'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
