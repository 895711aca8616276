"""Every cell ends with a status and a reason: what learning did to itself exits 0, what broke exits 1, bad input 2."""

import json
import re
from pathlib import Path

import pytest

from maxpo_bench.estimators import SHARED_SOURCES, contract
from maxpo_bench.machine import files

CUSTOM = """
version: 1
kind: broken.py:Broken
title: A problem of one's own that breaks
k: 2
group_size: 4
groups: 2
steps: 12
seeds: 2
optimiser: {name: adam, lr: 0.1}
evaluation: {prompts: 2, samples: 4}
"""

PROBLEM = """
import torch
from maxpo_bench.problems import Evaluation, Problem
from maxpo_bench.policies.tabular import TabularPolicy

class Broken(Problem):
    def __init__(self, task, seeds, base=None):
        super().__init__(task, seeds, base)
        AT_START

    def initial_policy(self):
        return TabularPolicy(torch.zeros(len(self.seeds), 1, 3, dtype=torch.float64))

    def sample(self, policy, step, purpose="train", groups=None, group_size=None):
        shape = len(self.seeds), groups or self.task.groups, group_size or self.task.group_size
        generator = torch.Generator().manual_seed(step)
        return {"step": step, "actions": torch.randint(3, shape, generator=generator)}

    def reward(self, batch):
        step = batch["step"]
        rewards = batch["actions"].double()
        AT_REWARD
        return rewards

    def log_probs(self, policy, batch, rows=None):
        table = policy.log_probs()[:, 0]
        log_probs = table.gather(1, batch["actions"].flatten(1)).view(batch["actions"].shape)
        AT_LOG_PROBS
        return log_probs

    def evaluate(self, policy, step, prompts, samples):
        rewards = self.reward(self.sample(policy, step, groups=prompts, group_size=samples))
        return Evaluation(rewards.numpy())
"""


@pytest.fixture
def broken(new_project):
    """broken(at_start=..., at_reward=..., at_log_probs=..., **task keys) -> the Project and its last command."""

    def run(at_start="pass", at_reward="pass", at_log_probs="pass", **changes):
        project = new_project()
        project.add("broken", CUSTOM, **changes)
        code = PROBLEM.replace("AT_START", at_start).replace("AT_REWARD", at_reward).replace("AT_LOG_PROBS", at_log_probs)
        (project.folder / "tasks" / "broken.py").write_text(code)
        base = project.run("base", "broken")
        return project, base if base.code else project.run("train", "broken", "maxpo")

    return run


def test_a_problem_of_ones_own_that_holds_is_ok(broken):
    project, command = broken()
    assert command.code == 0 and project.metrics("broken")["status"] == "ok", command.output


@pytest.mark.parametrize(
    "at_reward, words, code",
    [
        ("if step == 7: raise ValueError('the verifier broke')", ["ValueError", "the verifier broke", "broken.py"], 1),
        (
            "if step == 7 and self.seeds[-1] == 1: rewards[-1, 0, 2] = float('nan')",
            ["seed 1", "step 7", "group 0", "sample 2", "nan"],
            2,  # whoever wrote the task must mend it
        ),
        (
            "if step == 7 and self.seeds[0] == 0: rewards[0, 1, 0] = float('inf')",
            ["seed 0", "step 7", "group 1", "sample 0", "inf"],
            2,
        ),
        ("if step == 7: torch.zeros(10**15)", ["out of memory"], 1),
        ("if step == 7: import numpy; numpy.ones(10**15)", ["out of memory"], 1),
        ("if step == 7: import os; os.abort()", ["worker process", "exit code -6"], 1),
    ],
)
def test_a_fault_in_training_is_failed_with_a_reason_and_an_exit_code(at_reward, words, code, broken):
    project, command = broken(at_reward=at_reward)
    assert command.code == code, command.output
    metrics = project.metrics("broken")
    assert metrics["status"] == "failed"
    for word in words:
        assert word in metrics["reason"] and word in command.output
    assert "Traceback" not in command.output and command.output.count("\n") <= 2
    about = json.loads((project.cell("broken") / "provenance.json").read_text())
    assert about["task_sha256"] and about["source_sha256"] and about["versions"]  # what ran is known all the same
    assert metrics["verifier_errors"] == 0  # nothing was judged by a verifier here


def test_a_fault_is_never_reward_0(broken):
    project, _ = broken(at_reward="if step == 7: raise ValueError('no')")
    assert "final" not in project.metrics("broken")
    assert project.curve("broken") == [""]


@pytest.mark.parametrize("where", ["at_start", "at_reward"])
def test_a_fault_in_the_base_stage_has_a_reason_and_exit_code_1(where, broken):
    project, command = broken(**{where: "raise KeyError('missing')"})
    assert command.code == 1, command.output
    base = json.loads((project.folder / "results" / "base" / "broken" / "base.json").read_text())
    assert base["status"] == "failed" and "KeyError" in base["reason"]
    # There was no base before; where there is one, a cause that may pass does not cost it.
    train = project.run("train", "broken", "maxpo")
    assert train.code == 2 and "KeyError" in train.output and "Traceback" not in train.output


def test_a_reward_that_is_not_a_number_is_refused_in_the_base_stage(broken):
    project, command = broken(at_reward="rewards[0, 1, 0] = float('nan')")
    base = json.loads((project.folder / "results" / "base" / "broken" / "base.json").read_text())
    assert command.code == 2 and base["status"] == "failed", command.output
    assert "evaluation at step 0" in base["reason"] and command.output.count("\n") == 1


def test_a_problem_that_cannot_be_built_leaves_the_base_of_before(broken):
    project, _ = broken()
    path = project.folder / "results" / "base" / "broken"
    before = {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    code = (project.folder / "tasks" / "broken.py").read_text()
    (project.folder / "tasks" / "broken.py").write_text(code.replace("        pass\n", "        raise MemoryError\n", 1))
    command = project.run("base", "broken")
    assert command.code == 1 and "still there" in command.output, command.output
    assert {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_problem_may_bound_its_workers(broken):
    """Seeds of a language model take turns on a GPU."""
    project, _ = broken(at_start="self.max_workers = 1")
    assert json.loads((project.cell("broken") / "timing.json").read_text())["num_workers"] == 1
    assert project.metrics("broken")["status"] == "ok"


@pytest.mark.parametrize(
    "changes",
    [
        {"at_log_probs": "log_probs = log_probs * (float('nan') if batch['step'] == 5 else 1)"},  # NaN loss
        {"at_log_probs": "log_probs = log_probs * (1e300 if batch['step'] == 5 else 1)"},  # exploding gradient
        {"optimiser": "{name: sgd, lr: 1e30}"},  # a step out of bounds
        {"optimiser": "{name: adam, lr: 1e308}"},
    ],
)
def test_divergence_is_an_outcome_with_exit_code_0(changes, broken):
    project, command = broken(**changes)
    assert command.code == 0, command.output
    metrics = project.metrics("broken")
    assert metrics["status"] == "diverged" and "step" in metrics["reason"], metrics
    assert None in metrics["final"]["max@K"]  # not a number that could be averaged


def test_one_seed_that_diverges_leaves_the_others_alone(broken):
    project, _ = broken()
    healthy = project.metrics("broken")["final"]
    project, command = broken(at_log_probs=DIVERGES)
    final = project.metrics("broken")["final"]
    assert command.code == 0 and project.metrics("broken")["status"] == "diverged"
    assert final["max@K"][1] is None and final["ladder"]["1"][1] is None
    assert final["max@K"][0] == healthy["max@K"][0]
    assert "seed 1" in project.metrics("broken")["reason"] and "seed 0" not in project.metrics("broken")["reason"]


DIVERGES = "log_probs = log_probs * torch.tensor([float('nan') if s == 1 else 1.0 for s in self.seeds]).view(-1, 1, 1)"


def test_a_large_step_of_an_mlp_is_divergence_and_not_a_fault(finished, from_base):
    project = from_base("cartpole")
    project.add("cartpole", optimiser="{name: sgd, lr: 1e30}")
    assert project.run("base", "cartpole").code == 0
    command = project.run("train", "cartpole", "maxpo")
    assert command.code == 0 and project.metrics("cartpole")["status"] == "diverged", command.output


def test_metrics_name_the_code_behind_the_advantages(broken):
    """The estimator's own file and those that every estimator is built on."""
    folder = Path(contract.__file__).parent
    about = json.loads((broken()[0].cell("broken") / "provenance.json").read_text())
    assert about["source_sha256"] == files.sha256(folder / "maxpo.py")
    assert about["shared_sha256"] == {name: files.sha256(folder / name) for name in SHARED_SOURCES}


def test_an_estimator_that_refuses_the_rewards_is_not_applicable(finished, from_base):
    project = from_base("maze")
    command = project.run("train", "maze", "passk_training")
    assert command.code == 0, command.output
    metrics = project.metrics("maze", "passk_training")
    assert metrics["status"] == "not_applicable" and "passk_training" in metrics["reason"]


@pytest.mark.parametrize(
    "argv, words",
    [
        (("train", "maze", "maxop"), "did you mean 'maxpo'"),
        (("train", "mase", "maxpo"), "did you mean 'maze'"),
        (("train", "maze", "maxpo"), "run `maxpo-bench base maze` first"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv, words, new_project):
    project = new_project()
    project.add("maze")
    command = project.run(*argv)
    assert command.code == 2 and words in command.output and command.output.count("\n") == 1, command.output


def test_a_failed_cell_goes_on_when_what_broke_is_mended(broken, finished):
    project, command = broken(at_reward="import os\n        if step == 9 and not os.path.exists('mended'): raise OSError('gone')")
    assert command.code == 1 and "gone" in project.metrics("broken")["reason"]
    (project.folder / "mended").touch()
    assert project.run("train", "broken", "maxpo").code == 0
    untroubled, _ = broken(at_reward="pass")
    assert project.curve("broken") == untroubled.curve("broken")


def test_a_verifier_that_raises_is_counted_and_never_reward_0(finished, from_base, monkeypatch):
    """The completions are judged in this process's workers, with a verifier that gives up on every third prompt."""
    from maxpo_bench.pipeline import cell
    from maxpo_bench.problems.prompts import countdown

    project = from_base("countdown3")
    monkeypatch.chdir(project.folder)
    verify = countdown.Source.verify

    def fragile(self, row, text):
        if "9" in row["prompt"]:
            raise RecursionError("too deep")
        return verify(self, row, text)

    monkeypatch.setattr(countdown.Source, "verify", fragile)
    assert cell.run_cell("countdown3", "maxpo") == 1
    metrics = project.metrics("countdown3")
    assert metrics["status"] == "failed" and "final" not in metrics
    times = re.search(r"verifier raised (\d+) times, first RecursionError: too deep on prompt", metrics["reason"])
    assert times and int(times[1]) > 1, metrics["reason"]
    assert metrics["verifier_errors"] == int(times[1])


def test_verifier_errors_of_the_base_stage_are_counted(finished, new_project, monkeypatch):
    from maxpo_bench.pipeline import base
    from maxpo_bench.problems.prompts import countdown

    project = new_project()
    project.add("countdown3")
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(countdown.Source, "verify", lambda self, row, text: 1 / 0)
    assert base.run_base("countdown3") == 1
    base = json.loads((project.folder / "results" / "base" / "countdown3" / "base.json").read_text())
    assert base["status"] == "failed" and f"raised {base['verifier_errors']} times" in base["reason"]
