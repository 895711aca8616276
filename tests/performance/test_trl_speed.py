"""A training step of SmolLM2-135M beside TRL's GRPOTrainer: the same model, prompts, number of completions and optimiser.

Needs TRL and the converted model: after `make smollm2` and `.ci/peers`, `.peers/bin/python -m pytest -s -m performance` this file.
All parameters are trained. Every group is given both outcomes, so that every row has an advantage: with the task's own rewards most
groups fail altogether, and we skip them, TRL does not. TRL gets all rows at once, its fastest way. CPU seconds of one thread.
"""

import random
import time
from dataclasses import replace

import pytest
import torch

from maxpo_bench.estimators import get
from maxpo_bench.policies import packaged
from maxpo_bench.problems import build
from maxpo_bench.settings import task_file

trl = pytest.importorskip("trl", reason="needs the extra peers: pip install '.[peers]'")
pytestmark = pytest.mark.performance
STEPS = 2  # the first of each side warms up


@pytest.fixture
def task():
    task = replace(task_file.load("sums_smollm2", {"lora.rank": 0}), steps=STEPS)
    task.section("sampling")["stop"] = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield task
    torch.set_num_threads(before)


def coin(texts, **_):
    return [float(random.random() < 0.5) for _ in texts]


def ours(task):
    """Seconds of each step."""
    from maxpo_bench.training import loop

    problem = build(task, (0,))
    policy = problem.initial_policy()
    optimiser, estimator, taken = loop.make_optimiser(task, list(policy.parameters())), get("grpo"), []
    for step in range(STEPS):
        start = time.process_time()
        with torch.no_grad():
            batch = problem.sample(policy, step)
        texts = [text for group in problem._judged(batch) for text, _, _ in group]
        rewards = torch.tensor(coin(texts), dtype=torch.float64).view(1, task.groups, task.group_size)
        loop.update(task, problem, policy, optimiser, batch, estimator(rewards, k=1), loop.learning_rate(task.optimiser, step))
        taken.append(time.process_time() - start)
    return taken


def theirs(task, folder):
    import datasets
    from transformers import TrainerCallback

    problem, begun, taken = build(task, (0,)), [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            begun.append(time.process_time())

        def on_step_end(self, *_, **__):
            taken.append(time.process_time() - begun[-1])

    rows, _ = problem.split("train")
    prompts = [problem.source.format_prompt(row["prompt"], problem.tokenizer) for row in rows]
    config = trl.GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=task.groups * task.group_size, num_generations=task.group_size,
        max_completion_length=problem.max_new_tokens, max_steps=STEPS, beta=0.0, learning_rate=1e-5, logging_steps=10**6,
        save_strategy="no", report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trl.GRPOTrainer(
        model=problem.untrained_policy(), reward_funcs=lambda completions, **_: coin(completions), args=config, callbacks=[Clock()],
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}), processing_class=problem.tokenizer,
    ).train()  # fmt: skip
    return taken


def test_a_step_is_three_times_as_fast_as_trl_s(task, tmp_path):
    if not packaged.is_there("smollm2"):
        pytest.skip("needs the pretrained model: make smollm2")
    random.seed(0)
    mine = min(ours(task)[1:])
    print(f"\na step of 8 x 16 completions: ours {mine:.1f} s", flush=True)
    other = min(theirs(task, tmp_path)[1:])
    print(f"TRL {trl.__version__} {other:.1f} s, {other / mine:.1f} x")
    assert other >= 3 * mine
