"""A tiny Llama learns countdown3 in TRL with MaxPO's advantages, on a CPU in a minute or two.

    pip install "maxpo-bench[suite]" "trl==1.16.0"
    python examples/trl_maxpo.py

Prints TRL's log and pass@4 on held-out prompts, before and after.
"""

import tempfile

import torch
from trl import RLOOConfig, RLOOTrainer

from maxpo_bench.adapters.trl import with_estimator
from maxpo_bench.problems import build
from maxpo_bench.settings import task_file
from maxpo_bench.training.evaluation import pass_at_k

K, GROUP_SIZE, GROUPS = 4, 16, 64


def countdown(warm_start=150):
    """The problem of tasks/countdown3.yaml and a model that solves a few of its prompts."""
    task = task_file.load("countdown3")
    task.section("warm_start")["steps"] = warm_start
    problem = build(task, (0,))
    return problem, problem.initial_policy()


def make_trainer(problem, model, folder, steps=40, estimator="maxpo", k=K, **settings):
    """TRL's RLOOTrainer around the model, with the estimator's advantages."""

    def solved(completions, digits, target, **_):
        rows = zip(completions, digits, target, strict=True)
        return [problem.source.verify({"digits": digit, "target": goal}, text) for text, digit, goal in rows]

    chosen = {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": GROUPS * GROUP_SIZE,
        "num_generations": GROUP_SIZE, "max_completion_length": problem.max_new_tokens, "temperature": 1.0, "beta": 0.0,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5, "adam_beta2": 0.99,
        "max_grad_norm": 0.0, "logging_steps": 5, "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "seed": 0, "disable_tqdm": True,
    } | settings  # fmt: skip
    return with_estimator(RLOOTrainer, estimator, k=k)(
        model=model,
        reward_funcs=solved,
        args=RLOOConfig(**chosen),
        train_dataset=problem.source.table("train"),
        processing_class=problem.tokenizer,
    )


def pass_at_4(problem, model, prompts=128, samples=64):
    """Mean over held-out prompts."""
    with torch.no_grad():
        rewards = problem.evaluate(model, 0, prompts, samples).rewards[0]
    return float(pass_at_k(rewards.sum(-1), samples, 4).mean())


def main(steps=40):
    torch.set_num_threads(1)  # tiny matrices
    problem, model = countdown()
    with tempfile.TemporaryDirectory() as folder:
        before = pass_at_4(problem, model)
        make_trainer(problem, model, folder, steps).train()
        after = pass_at_4(problem, model)
    print(f"pass@4 on held-out prompts: {before:.3f} before, {after:.3f} after {steps} steps")
    return before, after


if __name__ == "__main__":
    main()
