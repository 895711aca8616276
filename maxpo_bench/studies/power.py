"""How many seeds a verdict takes: a pilot measures the spread of paired differences, and that says what a task's seeds can decide.

The pilot trains maxpo and its default rivals on seeds from 10000 on, which no report shows, exactly as a cell does. Spread:
standard deviation over seeds of max@K after training, maxpo minus rival, on the 0-1 scale of the report. From it, for the number of
seeds in the task file: the half-width of the 95% interval, the seeds that would reach the width aimed at, and, were the true
difference so and so large, the probability of each verdict of a single comparison (normal differences, Student's t, no correction
for others).
"""

import math
import os
from dataclasses import replace

import numpy as np

from maxpo_bench.machine import workers

TITLE = "How many seeds a verdict takes"
REFERENCE = "maxpo"
FIRST_SEED = 10_000
NUM_SEEDS, NUM_LANGUAGE_SEEDS = 32, 4
LANGUAGE_RIVALS = ("pkpo", "rloo", "grpo")  # a language model takes ten times as long
MARGIN = 0.02  # of claims.yaml
TRUTHS = (0.0, 0.01, 0.02, 0.04)
AIMED = {"pkpo": 0.012}  # half-width of the 95% interval
AIMED_AT_OTHERS = 0.02
NUM_QUANTILES = 2000  # of the estimated spread, over which probabilities are averaged


def final_max_at_k(task, estimator, problem, states=None):
    """{seed: max@K after training}; seeds that diverged are left out. The evaluations along training change nothing and are not
    made."""
    from maxpo_bench.training.loop import train

    task = replace(task, evaluation={**task.evaluation, "every": 0})
    return {row["seed"]: row["max_at_k"] for row in train(task, estimator, problem, states).rows}


def _trained(job, tick):
    """{estimator: {seed: max@K}} of one job: (task, seeds, estimators). All start from one policy. None: refuses the rewards."""
    from maxpo_bench import problems
    from maxpo_bench.estimators import get
    from maxpo_bench.training.loop import NotApplicable

    task, seeds, estimators = job
    problem = problems.build(task, seeds)
    states = problem.policy_states(problem.initial_policy()) if problem.row_wise else None  # a warm start, made once
    found = {}
    for name in estimators:
        try:
            found[name] = final_max_at_k(task, get(name), problem, states)
        except NotApplicable:
            found[name] = None
    tick(1)
    return found


def pilot(tasks, estimators):
    """{task name: {estimator: {seed: max@K after training}}}. tasks: Tasks. In forked workers."""
    from maxpo_bench import problems

    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for a GPU must not open it before the fork
    jobs = []
    for task in tasks:
        problem = problems.build(task, (FIRST_SEED,))
        problem.prepare()
        if problem.row_wise:
            chosen = [e for e in estimators if e in (REFERENCE, *LANGUAGE_RIVALS)]
            jobs += [(task, (FIRST_SEED + s,), chosen) for s in range(NUM_LANGUAGE_SEEDS)]
        else:
            jobs += [(task, tuple(range(FIRST_SEED, FIRST_SEED + NUM_SEEDS)), [e]) for e in estimators]
    jobs.sort(key=lambda job: len(job[1]))  # those of one seed take longest; the sort is stable
    found = {task.name: {} for task in tasks}
    for (task, _, _), part in zip(jobs, workers.run(jobs, _trained, "study power", 1), strict=True):
        for name, values in part.items():
            if values is not None:
                found[task.name].setdefault(name, {}).update(values)
    return found


def differences(values):
    """{rival: maxpo - rival [P]} of one task's pilot, paired by seed, on the 0-1 scale: rewards that leave it are put on it."""
    from maxpo_bench.measure import statistics

    known = [v for by_seed in values.values() for v in by_seed.values()]
    low, high = min(known), max(known)
    size = 1.0 if low >= 0 and high <= 1 or low == high else high - low
    mine = values[REFERENCE]
    return {rival: statistics.pair(mine, other)[0] / size for rival, other in values.items() if rival != REFERENCE}


def half_width(spread, num_seeds):
    """Of the 95% interval of a mean of num_seeds paired differences."""
    from scipy import stats

    return float(stats.t.ppf(0.975, num_seeds - 1)) * spread / math.sqrt(num_seeds)


def seeds_for(spread, width):
    """The fewest seeds, at least 3, whose half-width is at most `width`."""
    low, high = 2, 3  # `low` is too few
    while half_width(spread, high) > width:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if half_width(spread, middle) > width else (low, middle)
    return high


def verdict_rates(spread, num_seeds, truth, margin=MARGIN):
    """{verdict: probability} of one comparison alone (measure.statistics.decide), for normal differences of mean `truth`.

    Given the spread that the seeds themselves show, each verdict is a range of the estimated mean; the probabilities of these
    ranges are averaged over the quantiles of that spread (chi-square).
    """
    from scipy import stats

    levels = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
    seen = np.sqrt(stats.chi2.ppf(levels, num_seeds - 1) / (num_seeds - 1))
    half, error = half_width(spread, num_seeds) * seen, spread / math.sqrt(num_seeds)
    inside = np.maximum(margin - half, 0.0)  # a mean nearer to 0 than this: equivalent
    beyond = np.maximum(half, margin - half)  # and farther than this: supported or contradicted

    def below(bound):
        return stats.norm.cdf((bound - truth) / error)

    rates = {
        "supported": 1 - below(beyond),
        "contradicted": below(-beyond),
        "equivalent": below(inside) - below(-inside),
    }
    rates = {verdict: float(found.mean()) for verdict, found in rates.items()}
    return rates | {"undecided": max(0.0, 1 - sum(rates.values()))}


def row(task, rival, gaps):
    """One line of the table; gaps: [P] paired differences of the pilot."""
    from scipy import stats

    dof = len(gaps) - 1
    spread = float(np.std(gaps, ddof=1)) if dof > 0 and np.ptp(gaps) > 1e-9 else math.nan
    found = {"task": task.name, "rival": rival, "num_seeds": len(gaps), "spread": spread}
    for column, level in (("low", 0.975), ("high", 0.025)):  # of a standard deviation, from chi-square
        found[column] = spread * math.sqrt(dof / stats.chi2.ppf(level, dof)) if spread > 0 else math.nan
    aimed = AIMED.get(rival, AIMED_AT_OTHERS)
    found |= {"seeds": task.seeds, "half_width": math.nan, "aimed_at": aimed, "seeds_for_it": math.nan}
    rates = {truth: dict.fromkeys(("supported", "contradicted", "equivalent", "undecided"), math.nan) for truth in TRUTHS}
    if spread > 0:  # without, nothing can be said
        found |= {"half_width": half_width(spread, task.seeds), "seeds_for_it": seeds_for(spread, aimed)}
        rates = {truth: verdict_rates(spread, task.seeds, truth) for truth in TRUTHS}
    return found | {f"{verdict} at {truth:g}": p for truth, by in rates.items() for verdict, p in by.items()}


def run():
    """A row per task and default rival: the pilot's spread with its 95% interval, what the task's seeds reach, and the probability
    of each verdict at TRUTHS. About 8 min on two cores."""
    import pandas as pd

    from maxpo_bench.settings import params
    from maxpo_bench.settings.task_file import load, root

    declared = params.read(root())
    tasks = [load(name) for name in declared["tasks"]]
    found = pilot(tasks, [REFERENCE, *(e for e in declared["estimators"] if e != REFERENCE)])
    return pd.DataFrame([row(task, rival, gaps) for task in tasks for rival, gaps in differences(found[task.name]).items()])


def caption(data):
    known = data.dropna(subset=["half_width"])
    fewest, most = int(data["num_seeds"].min()), int(data["num_seeds"].max())
    reached = int((known["half_width"] <= known["aimed_at"]).sum())
    return (
        f"Pilot: M = {fewest} to {most} seeds a task, from 10000 on and in no other figure. Spread: standard deviation over seeds "
        f"of {REFERENCE} minus rival in max@K after training, with its 95% interval; that of {fewest} seeds is rough. Left: "
        f"half-width of the 95% interval that it gives with the seeds of the task file; lines at {AIMED['pkpo']:g} (aimed at for "
        f"pkpo) and {AIMED_AT_OTHERS:g} (for the others): {reached} of {len(known)} reach theirs. Right: probability that "
        f"{REFERENCE} against pkpo on one task alone would be anything but undecided, against the true difference (normal theory, "
        f"margin {MARGIN:g}); verdicts of the report are on averages over tasks, which are surer, and corrected for how many there "
        "are."
    )


def figure(data):
    """Half-widths by task (left); probability of a decision against the true difference, pkpo (right)."""
    from maxpo_bench.studies import style

    tasks, rivals = list(data["task"].unique()), list(data["rival"].unique())
    colours, markers = style.colours(rivals), style.markers(rivals)
    fig, (left, right) = style.new_figure("full", 3.2, cols=2)
    for rival in rivals:
        rows = data[data["rival"] == rival].dropna(subset=["half_width"])
        places = [tasks.index(task) + 0.06 * (rivals.index(rival) - len(rivals) / 2) for task in rows["task"]]
        left.plot(rows["half_width"], places, markers[rival], color=colours[rival], label=rival)
    for width in (AIMED["pkpo"], AIMED_AT_OTHERS):
        left.axvline(width, color=style.GREY, linestyle="--", linewidth=0.8)
    left.set(xlabel="half-width of the 95% interval [max@K]", yticks=range(len(tasks)), yticklabels=tasks, xscale="log")
    left.set_ylim(len(tasks) - 0.5, -0.5)
    shown = data[data["rival"] == "pkpo"].dropna(subset=["half_width"]).set_index("task")
    if len(shown):
        style.plain_log_ticks(left.xaxis, *left.get_xlim())
    for number, task in enumerate(shown.index):
        decided = [1 - shown.loc[task, f"undecided at {truth:g}"] for truth in TRUTHS]
        right.plot(TRUTHS, decided, "osD^v<>PX*"[number % 10] + "-", label=task)
    right.set(xlabel="true maxpo - pkpo [max@K]", ylabel="probability of a decision", ylim=(-0.03, 1.03))
    if len(shown):
        fig.legend(*right.get_legend_handles_labels(), loc="outside right center")
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig
