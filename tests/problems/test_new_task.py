"""`new-task` writes a task file that loads, trains as it is, and never leaves half a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get
from maxpo_bench.problems import build
from maxpo_bench.problems.new_task import create, fit_outcome
from maxpo_bench.settings import task_file
from maxpo_bench.training.loop import train

ROOT = Path(__file__).resolve().parents[2]


def test_acrobot_becomes_a_task_whose_cell_runs(tmp_path, capsys):
    path = create("acrobot", "Acrobot-v1", tmp_path)
    assert path == tmp_path / "tasks" / "acrobot.yaml"
    assert "add acrobot to `tasks:` in params.yaml" in capsys.readouterr().out
    values = yaml.safe_load(path.read_text())
    assert values["kind"] == "gymnasium" and values["env"]["max_episode_steps"] == 500
    assert values["outcome"] == {"type": "normalised", "low": -500, "high": -100}  # random episodes; reward_threshold
    values["env"]["max_episode_steps"] = 20  # its cell, cut short
    values.update(groups=1, group_size=4, k=2, steps=2, evaluation={"every": 1, "prompts": 1, "samples": 4})
    path.write_text(yaml.safe_dump(values))
    task = task_file.load(str(path))
    run = train(task, get("maxpo"), build(task, (0, 1)))
    assert run.step == 2 and len(run.rows) >= 4 and not run.diverged


def test_tabular_environment_becomes_a_tabular_task(tmp_path):
    task = task_file.load(str(create("lake", "FrozenLake-v1", tmp_path)))
    assert task.kind == "tabular" and task.section("outcome")["type"] == "return"
    problem = build(task, (0,))
    assert torch.isfinite(problem.reward(problem.sample(problem.initial_policy(), 0))).all()


def test_environment_without_a_time_limit_gets_one(tmp_path):
    assert task_file.load(str(create("cliff", "CliffWalking-v1", tmp_path))).section("env")["max_episode_steps"] == 200


@pytest.mark.parametrize("name, env, message", [
    ("a b", "CartPole-v1", "letters, digits and _ only"),
    ("../x", "CartPole-v1", "letters, digits and _ only"),
    ("x", "CartPol-v1", "did you mean 'CartPole-v1'"),
    ("taken", "CartPole-v1", "tasks/taken.yaml exists already"),
])
def test_bad_input_writes_nothing(tmp_path, name, env, message):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "taken.yaml").write_text("mine\n")
    with pytest.raises(InputError, match=message):
        create(name, env, tmp_path)
    assert [p.name for p in tmp_path.rglob("*.yaml")] == ["taken.yaml"]
    assert (tmp_path / "tasks" / "taken.yaml").read_text() == "mine\n"


@pytest.mark.parametrize("returns, threshold, line, success", [
    ([0.0, 1.0], 0.7, "{type: return}", 1.0),
    ([-500.0, -400.0], -100, "{type: normalised, low: -500, high: -100}", 1.0),
    ([2.0, 5.0], None, "{type: normalised, low: 2, high: 8}", 0.8),
    ([-9.0, -1.0], None, "{type: normalised, low: -9, high: 0}", 0.8),
    ([-7.0, -7.0], None, "{type: normalised, low: -7, high: -6}", 0.8),
])
def test_fitted_outcome(returns, threshold, line, success):
    assert fit_outcome(returns, threshold) == (line, success)


@pytest.mark.slow
def test_acrobot_is_added_in_a_clone_and_its_cells_alone_run(tmp_path, run_cli):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    before = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
    result = run_cli(clone, "new-task", "acrobot_added", "--env", "Acrobot-v1")
    assert result.returncode == 0, result.stderr
    assert "add acrobot_added to `tasks:` in params.yaml" in result.stdout

    params, task = clone / "params.yaml", clone / "tasks" / "acrobot_added.yaml"
    params.write_text(params.read_text().replace("tasks:\n", "tasks:\n  - acrobot_added\n", 1))
    values = yaml.safe_load(task.read_text())
    values["env"]["max_episode_steps"] = 20  # its cells, cut short
    task.write_text(yaml.safe_dump({**values, "groups": 1, "steps": 2, "seeds": 2}))
    environment = {
        **os.environ, "PYTHONPATH": str(clone), "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "dvc", "repro", "train@acrobot_added-maxpo", "train@acrobot_added-rloo"]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    for estimator in ("maxpo", "rloo"):
        metrics = json.loads((clone / "results" / "runs" / "acrobot_added" / estimator / "metrics.json").read_text())
        assert metrics["status"] == "ok" and metrics["estimator"] == estimator and metrics["seeds"] == [0, 1]
    after = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
    added = {"base@acrobot_added", "train@acrobot_added-maxpo", "train@acrobot_added-rloo"}
    assert after.keys() - before.keys() == added and before == {name: after[name] for name in before}
    status = subprocess.run(["git", "-C", clone, "status", "--porcelain"], check=True, capture_output=True, text=True)
    assert {line[3:] for line in status.stdout.splitlines()} == {
        "dvc.lock", "params.yaml", "tasks/acrobot_added.yaml", "results/base/acrobot_added/", "results/runs/acrobot_added/",
    }
