"""What `maxpo-bench bench --against` times. Run as a script it serves one revision: a case's name in, seconds out.

The script of this tree is used for both revisions, with maxpo_bench imported from the revision's own folder.
"""

import json
import sys
import time
from pathlib import Path

NUM_BATCHES = 8  # different rewards in turn: a branch predictor learns to sort the same ones three times as fast
SHAPES = {"batch": (1024, 64), "wide": (64, 1024), "small": (32, 16)}
ESTIMATORS = ("fitted_blend", "grpo", "maxpo", "pkpo", "rloo", "tailrl")
CASES = (
    *(f"advantages {name} {shape}" for name in ESTIMATORS for shape in SHAPES),
    "evaluation ladder",
    "training step bandit",
    "training step maze",
    "training step countdown3",
)
REFERENCE = "reference sort"


def batches(shape):
    import torch

    return torch.rand(NUM_BATCHES, *SHAPES[shape], generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make(case):
    """The function of one case: call(turn), some 0.05 to 50 ms. Raises whatever a revision that lacks it raises."""
    import torch

    words = case.split()
    if case == REFERENCE:
        rewards = batches("batch")
        return lambda turn: rewards[turn % NUM_BATCHES].sort(-1)
    if words[0] == "advantages":
        from maxpo_bench.estimators import get

        estimator, rewards = get(words[1]), batches(words[2])
        return lambda turn: estimator(rewards[turn % NUM_BATCHES], k=4)
    if case == "evaluation ladder":
        from maxpo_bench.training.evaluation import ladder

        rewards = batches("batch").numpy().reshape(-1, 128, 64)
        return lambda turn: ladder(rewards, 0.75, [1, 2, 4, 8, 16, 32])
    if words[:2] == ["training", "step"]:
        return training_step(words[2], torch)
    raise ValueError(f"unknown case {case!r}")


def training_step(name, torch):
    """Sample, judge, advantages and update, for one seed of a task of this tree's tasks/, from its untrained policy."""
    from maxpo_bench import problems
    from maxpo_bench.estimators import get
    from maxpo_bench.settings import task_file
    from maxpo_bench.training.loop import make_optimiser, update

    task = task_file.load(Path(__file__).resolve().parents[2] / "tasks" / f"{name}.yaml")
    problem = problems.build(task, (0,))
    policy = problem.untrained_policy() if hasattr(problem, "untrained_policy") else problem.initial_policy()
    optimiser = make_optimiser(task, list(policy.parameters()))

    def step(turn):
        with torch.no_grad():
            batch = problem.sample(policy, turn % NUM_BATCHES)
        advantages = get("maxpo")(problem.reward(batch), k=task.k)
        update(task, problem, policy, optimiser, batch, advantages, 0.0)  # learning rate 0: every step is the same work

    return step


def burst(function, seconds=0.02):
    """Seconds of the fastest call in a burst of at least so many seconds, one call at least."""
    fastest, done, start = float("inf"), 0, time.perf_counter()
    while not done or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        function(done)
        fastest = min(fastest, time.perf_counter() - before)
        done += 1
    return fastest


def serve():
    """Answer each line {"case"} with {"seconds"} of a burst, or {"error"} when this revision has no such thing."""
    import torch

    import maxpo_bench

    torch.set_num_threads(1)
    print(json.dumps({"package": maxpo_bench.__file__}), flush=True)
    functions = {}
    for line in sys.stdin:
        case = json.loads(line)["case"]
        try:
            if case not in functions:
                functions[case] = make(case)
                functions[case](0)
            answer = {"seconds": burst(functions[case])}
        except Exception as error:  # the other revision may lack the estimator, the task or the function
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
