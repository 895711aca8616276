"""`new-task` writes a task file that loads, trains as it is, and never leaves half a file."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get
from maxpo_bench.problems import build
from maxpo_bench.problems.envs.build import Outcome
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


@pytest.mark.parametrize(
    "name, env, message",
    [
        ("a b", "CartPole-v1", "letters, digits and _ only"),
        ("../x", "CartPole-v1", "letters, digits and _ only"),
        ("x", "CartPol-v1", "did you mean 'CartPole-v1'"),
        ("taken", "CartPole-v1", "tasks/taken.yaml exists already"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, name, env, message):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "taken.yaml").write_text("mine\n")
    with pytest.raises(InputError, match=message):
        create(name, env, tmp_path)
    assert [p.name for p in tmp_path.rglob("*.yaml")] == ["taken.yaml"]
    assert (tmp_path / "tasks" / "taken.yaml").read_text() == "mine\n"


class Odd(gymnasium.Env):
    """An environment that breaks one rule of the interface."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault):
        self.fault = fault
        if fault == "space":
            self.action_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)] * 2)
        if fault == "sequence":
            self.observation_space = gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age = 0
        if self.fault == "options":
            options["size"]
        return (0, 1) if self.fault == "sequence" else np.zeros(2, np.float32), {}

    def step(self, action):
        self.age += 1
        observation = np.full(2, self.np_random.random(), np.float32)
        if self.fault == "raises" and self.age == 3:
            raise OSError("disk\non fire")
        if self.fault == "nan":
            observation[1] = np.nan
        if self.fault == "numpy":
            observation[1] = np.random.random()
        if self.fault == "four":
            return observation, 1.0, self.age == 5, {}
        reward = {"array": np.ones(1), "text": "1", "infinite": np.inf, "none": None}.get(self.fault, 1.0)
        return observation, reward, self.age == 5, False, {}


FAULTS = {
    "options": "reset ended in TypeError", "raises": "step ended in OSError: disk on fire", "four": "step ended in ValueError",
    "array": "reward is not a number but ndarray", "text": "reward is not a number but str",
    "none": "reward is not a number but NoneType",
    "infinite": "reward that is not finite", "nan": "observation that is not finite", "numpy": "mend the environment",
    "space": "action space Tuple is not supported", "sequence": "observation space Sequence cannot be made a vector",
}  # fmt: skip
for fault in (*FAULTS, "ok"):
    if f"TestOdd{fault}-v0" not in gymnasium.registry:
        gymnasium.register(f"TestOdd{fault}-v0", entry_point=Odd, max_episode_steps=50, kwargs={"fault": fault})


@pytest.mark.parametrize("fault", FAULTS)
def test_an_environment_that_breaks_a_rule_is_one_line_and_nothing_is_written(tmp_path, capfd, recwarn, fault):
    with pytest.raises(InputError, match=FAULTS[fault]) as caught:
        create("x", f"TestOdd{fault}-v0", tmp_path)
    assert "\n" not in str(caught.value) and "env.id: " in str(caught.value)
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "") and not recwarn.list


@pytest.mark.parametrize(
    "returns, threshold, best, line, success",
    [
        ([0.0, 1.0], 0.7, None, "{type: return}", 1.0),
        ([0.0, 0.0], None, 1.0, "{type: return}", 0.5),  # what the largest reward is nobody knows yet
        ([-500.0, -400.0], -100, None, "{type: normalised, low: -500, high: -100}", 1.0),
        ([-500.0, -400.0], -100, -200.0, "{type: normalised, low: -500, high: -300}", 0.5),  # a threshold out of reach
        ([2.0, 5.0], None, None, "{type: normalised, low: 2, high: 8}", 0.5),
        ([2.0, 5.0], None, 6.0, "{type: normalised, low: 2, high: 6}", 0.75),
        ([2.0, 5.0], 3.0, None, "{type: normalised, low: 2, high: 8}", 0.5),  # a threshold that random episodes reach
        ([-1.0, 0.0, 1.0, 1.0], None, None, "{type: normalised, low: -1, high: 1}", 1.0),  # a cap that several reach
        ([-1.0, 1.0], None, 1.0, "{type: normalised, low: -1, high: 1}", 1.0),
        ([0.001, 0.002], None, None, "{type: normalised, low: 0.001, high: 0.003}", 0.5),
        ([-9.0, -1.0], None, None, "{type: normalised, low: -9, high: 0}", 0.88),
        ([-7.0, -7.0], None, None, "{type: normalised, low: -7, high: -6}", 0.8),
        ([-7.0, -7.0], None, -6.5, "{type: normalised, low: -7, high: -6.5}", 0.8),
    ],
)
def test_fitted_outcome(returns, threshold, best, line, success):
    assert fit_outcome(returns, threshold, best) == (line, pytest.approx(success, abs=0.011))
    if max(returns) > min(returns) and success < 1:  # a random episode reached it
        section = {"threshold": 0, **yaml.safe_load(line)}
        best_seen = torch.tensor([max(returns)], dtype=torch.float64)
        assert Outcome({"low": 0, "high": 0, **section})(best_seen, best_seen) >= fit_outcome(returns, threshold, best)[1]


def test_blackjack_has_the_range_of_its_rewards_and_learns(tmp_path):
    task = task_file.load(str(create("blackjack", "Blackjack-v1", tmp_path)))
    assert task.section("outcome") == {"type": "normalised", "threshold": 1.0, "low": -1.0, "high": 1.0}
    assert task.success == 1.0 and task.section("env")["wrappers"] == ["gymnasium.wrappers:FlattenObservation"]
    task = replace(task, steps=40)
    task.evaluation.update(every=0, prompts=64, samples=16)
    problem = build(task, (0, 1))
    before = problem.evaluate(problem.initial_policy(), 0, 64, 16).rewards
    run = train(task, get("rloo"), problem)
    assert (before == 1).any() and all(row["mean_reward"] > before.mean() for row in run.rows)


def test_minigrid_becomes_a_task_with_its_image(tmp_path):
    pytest.importorskip("minigrid", reason="needs the extra minigrid")
    task = task_file.load(str(create("grid", "MiniGrid-Empty-5x5-v0", tmp_path)))
    assert task.section("env")["wrappers"] == ["minigrid.wrappers:ImgObsWrapper"]
    assert task.success < 1 and task.section("outcome") == {"type": "normalised", "threshold": 1.0, "low": 0.0, "high": 1.0}
    problem = build(task, (0,))
    assert problem.width == 7 * 7 * 3 and torch.isfinite(problem.reward(problem.sample(problem.initial_policy(), 0))).all()


def test_equal_returns_are_said(tmp_path, capsys):
    path = create("car", "MountainCar-v0", tmp_path)
    assert "All random episodes had the same return" in capsys.readouterr().out and "# All random episodes" in path.read_text()


@pytest.mark.parametrize("kind, env, keys, message", [
    ("gymnasium", {"id": "CartPole-v1"}, {"score": {"success": 501}}, "score.success: 501 can never be reached, .* at most 500"),
    ("gymnasium", {"id": "CartPole-v1", "max_episode_steps": 75}, {"outcome": {"type": "success", "threshold": 76}},
     "outcome.threshold: 76 can never be reached, the return is at most 75"),
    ("gymnasium", {"id": "CartPole-v1"}, {"outcome": {"type": "normalised", "low": 0, "high": 1000}, "score": {"success": 0.8}},
     "at most 0.5"),
    ("gymnasium", {"id": "CartPole-v1"}, {"outcome": {"type": "final"}, "score": {"success": 2}}, "at most 1;"),
    ("gymnasium", {"id": "Pendulum-v1"}, {"score": {"success": 1}}, "at most 0;"),
    ("gymnasium", {"id": "TestOddok-v0"}, {"outcome": {"type": "success", "threshold": 9}, "score": {"success": 2}}, "at most 1;"),
    ("gymnasium", {"id": "TestOddok-v0"}, {"outcome": {"type": "normalised", "high": 9}, "score": {"success": 1.1}}, "at most 1;"),
    ("tabular", {"id": "FrozenLake-v1"}, {"score": {"success": 2}}, "at most 1;"),
    ("tabular", {"id": "CliffWalking-v1", "max_episode_steps": 30}, {"score": {"success": -12}}, "at most -13;"),
    ("tabular", {"id": "CliffWalking-v1", "max_episode_steps": 30}, {"outcome": {"type": "success", "threshold": -12}},
     "outcome.threshold: -12 can never be reached, the return is at most -13"),
    ("tabular", {"id": "CliffWalking-v1", "max_episode_steps": 30},
     {"outcome": {"type": "normalised", "low": -100, "high": 0}, "score": {"success": 0.9}}, "at most 0.87;"),
])  # fmt: skip
def test_a_success_out_of_reach_of_the_outcome_is_refused(tmp_path, kind, env, keys, message):
    base = {
        "version": 1, "title": "x", "k": 2, "group_size": 4, "steps": 1, "optimiser": {"lr": 0.1}, "kind": kind, "env": env,
        "score": {"success": 1}, **keys,
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(base))
    with pytest.raises(InputError, match=f"x.yaml: .*{message}"):
        build(task_file.load(str(tmp_path / "x.yaml")), (0,))


def test_a_success_out_of_reach_of_a_bandit_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("version: 1\nkind: bandit\ntitle: x\narms: {count: 3}\nk: 2\ngroup_size: 4\nsteps: 1\noptimiser: {lr: 0.1}\n"
                    "score: {success: 1.5}\n")  # fmt: skip
    with pytest.raises(InputError, match="x.yaml: score.success: 1.5 can never be reached, a sample is worth at most 1;"):
        build(task_file.load(str(path)), (0,))


@pytest.mark.slow
def test_acrobot_is_added_in_a_clone_and_its_cells_alone_run(tmp_path, run_cli):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    locks = {path: path.read_bytes() for path in clone.rglob("dvc.lock")}
    result = run_cli(clone, "new-task", "acrobot_added", "--env", "Acrobot-v1")
    assert result.returncode == 0, result.stderr
    assert "add acrobot_added to `tasks:` in params.yaml" in result.stdout

    stages = "results/pipeline/acrobot_added/dvc.yaml"
    params, task = clone / "params.yaml", clone / "tasks" / "acrobot_added.yaml"
    params.write_text(params.read_text().replace("tasks:\n", "tasks:\n  - acrobot_added\n", 1))
    values = yaml.safe_load(task.read_text())
    values["env"]["max_episode_steps"] = 20  # its cells, cut short
    task.write_text(yaml.safe_dump({**values, "groups": 1, "steps": 2, "seeds": 2}))
    environment = {
        **os.environ,
        "PYTHONPATH": str(clone),
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "dvc", "repro", *(f"{stages}:train@{estimator}" for estimator in ("maxpo", "rloo"))]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    for estimator in ("maxpo", "rloo"):
        metrics = json.loads((clone / "results" / "runs" / "acrobot_added" / estimator / "metrics.json").read_text())
        assert metrics["status"] == "ok" and metrics["estimator"] == estimator and metrics["seeds"] == [0, 1]
    added = yaml.safe_load((clone / stages).with_name("dvc.lock").read_text())["stages"]
    assert added.keys() == {"base", "train@maxpo", "train@rloo"} and locks == {path: path.read_bytes() for path in locks}
    status = subprocess.run(["git", "-C", clone, "status", "--porcelain"], check=True, capture_output=True, text=True)
    assert {line[3:] for line in status.stdout.splitlines()} == {
        "params.yaml",
        "tasks/acrobot_added.yaml",
        "results/base/acrobot_added/",
        "results/pipeline/acrobot_added/",
        "results/runs/acrobot_added/",
    }
