"""What a training step costs under each default estimator: all take the same step in turns, in one process, on a task of each kind.

Estimators that are timed one cell after the other are told apart by what else the machine does. Here every round takes a step of
each, in an order drawn anew, from one policy that is put back after it: the same prompts and samples, and what an estimator does
with them (samples of advantage 0 cost a language model nothing) makes the difference.
"""

import gc
import time
from dataclasses import replace

import numpy as np

from maxpo_bench.measure import bootstrap
from maxpo_bench.training.streams import generator

TITLE = "Time of a training step"
NUM_SEEDS, FIRST_SEED = 16, 10_000  # trained side by side in one step; a language model takes one
NUM_ROUNDS, WARM_UP = 60, 2
REFERENCE = "maxpo"


def one_of_each(tasks):
    """The first task of every sort of problem, of task names: by default bandit, tabular, MLP, language."""
    from maxpo_bench import problems
    from maxpo_bench.settings.task_file import load

    found = {}
    for task in map(load, tasks):
        found.setdefault(type(problems.build(task, (FIRST_SEED,))), task)
    return list(found.values())


def start(task):
    """(problem, Run) of a task after half of its steps under maxpo: early policies have hardly a group with two outcomes."""
    from maxpo_bench import problems
    from maxpo_bench.estimators import get
    from maxpo_bench.training.loop import train

    problem = problems.build(task, (FIRST_SEED,))
    if not problem.row_wise:
        problem = problems.build(task, tuple(range(FIRST_SEED, FIRST_SEED + NUM_SEEDS)))
    problem.prepare()
    half = replace(task, steps=max(1, task.steps // 2), evaluation={**task.evaluation, "every": 0, "prompts": 1})
    return problem, train(half, get(REFERENCE), problem)


def one_step(task, problem, run, estimator, step):
    """Processor seconds of one step: sample, reward, advantage, update. The policy is put back afterwards, off the clock."""
    import torch

    from maxpo_bench.training.loop import learning_rate, update

    states = problem.policy_states(run.policy)
    before = time.process_time()
    with torch.no_grad():
        batch = problem.sample(run.policy, step)
    rewards = problem.reward(batch)
    side = {name: getattr(problem, name)(batch) for name in estimator.side}
    advantages = estimator(rewards, k=task.k, **side)
    update(task, problem, run.policy, run.optimiser, batch, advantages, learning_rate(task.optimiser, step))
    seconds = time.process_time() - before
    problem.load_states(run.policy, states)
    return seconds


def measure(task, estimators):
    """({estimator: seconds [NUM_ROUNDS]}, number of seeds) of a task; an estimator that refuses its rewards is left out."""
    from maxpo_bench.errors import InputError
    from maxpo_bench.estimators import get

    problem, run = start(task)
    times = {e: [] for e in estimators}
    gc.collect()
    gc.disable()  # a collection would fall on whoever is just measured
    try:
        for number in range(WARM_UP + NUM_ROUNDS):
            step = run.step + number
            for e in generator("step_time", 0, f"order on {task.name}", number).permutation(list(times)):
                try:
                    seconds = one_step(task, problem, run, get(str(e)), step)
                except InputError:
                    del times[e]
                    continue
                if number >= WARM_UP:
                    times[e].append(seconds)
    finally:
        gc.enable()
    return {e: np.array(found) for e, found in times.items()}, len(problem.seeds)


def ratio(times, reference, noise):
    """(ratio of medians, low, high): 95% bootstrap interval over rounds. times, reference: [R] of the same rounds."""
    picks = bootstrap.picks(noise, len(times))  # a round is drawn with both of its times
    draws = np.median(times[picks], axis=1) / np.median(reference[picks], axis=1)
    return np.median(times) / np.median(reference), *bootstrap.bounds(draws)


def run():
    """Rows task, estimator, time_ms, ratio, low, high, num_rounds, num_seeds. About 2 min, one thread. No two runs are the same."""
    import pandas as pd

    from maxpo_bench.machine.workers import single_thread
    from maxpo_bench.settings import params
    from maxpo_bench.settings.task_file import root

    single_thread()
    declared, rows = params.read(root()), []
    for task in one_of_each(declared["tasks"]):
        times, num_seeds = measure(task, [REFERENCE, *(e for e in declared["estimators"] if e != REFERENCE)])
        for e, found in times.items():
            row = {"task": task.name, "estimator": e, "time_ms": np.median(found) * 1e3}
            noise = generator("step_time", 0, f"bootstrap of {e} on {task.name}")
            row |= dict(zip(("ratio", "low", "high"), ratio(found, times[REFERENCE], noise), strict=True))
            rows.append(row | {"num_rounds": len(found), "num_seeds": num_seeds})
    return pd.DataFrame(rows)


def caption(data):
    seeds = " or ".join(f"{n} seed{'s' if n > 1 else ''}" for n in sorted(data["num_seeds"].unique()))
    others = data[data["estimator"] != REFERENCE]
    slower, faster = others[others["low"] > 1], others[others["high"] < 1]
    return (
        f"Processor time of a training step (sample, reward, advantage, update) over {REFERENCE}'s: ratio of the medians of "
        f"M = {int(data['num_rounds'].min())} rounds, with its 95% interval (bootstrap over rounds). In every round each estimator "
        f"takes the same step, of {seeds} (never reported ones), in one process and in an order drawn anew; all start from the "
        f"policy that {REFERENCE} reached in half of the task's steps. A language model's update leaves out samples of advantage "
        f"0, and estimators differ in how many they have. Of {len(others)} ratios {len(slower)} lie above 1 beyond their interval, "
        f"{len(faster)} below."
    )


def figure(data):
    """A panel per task: ratio with interval, a row per estimator."""
    from maxpo_bench.studies import style

    tasks = list(data["task"].unique())
    names = [e for e in data["estimator"].unique() if e != REFERENCE]
    colours, markers = style.colours(names), style.markers(names)
    fig, axes = style.new_figure("full", 0.9 + 0.17 * len(names), cols=len(tasks), sharey=True)
    for ax, task in zip(np.atleast_1d(axes), tasks, strict=True):
        rows = data[data["task"] == task].set_index("estimator")
        ax.axvline(1, color=style.GREY, linewidth=0.8)
        for place, name in enumerate(names):
            if name in rows.index:
                row = rows.loc[name]
                ax.plot([row["low"], row["high"]], [place, place], color=colours[name])
                ax.plot(row["ratio"], place, markers[name], color=colours[name])
        ax.set(title=task, xlabel=f"step time / {REFERENCE}'s", yticks=range(len(names)), yticklabels=names)
        ax.set_ylim(len(names) - 0.5, -0.5)
    return fig
