"""A hundred arms, started at a local optimum (the RS-GRPO setting, arXiv:2509.24261): who escapes, how fast.

Arm 0 is worth .6 and has probability .9, the last arm is worth 1 and has about .001, the others up to .5. The mean
objective makes arm 0 certain before the best arm is found; an objective of the maximum keeps looking.

400 steps, where tasks/local_optimum.yaml has 100: the task stops while estimators still differ (after 200 steps those of
the maximum have all but arrived), the study follows the escape to its end.
"""

from functools import partial

import numpy as np

from maxpo_bench.machine import numerics
from maxpo_bench.training.streams import generator

TITLE = "Leaving a local optimum"
ARMS, START, N, GROUPS, K = 100, 0.9, 16, 4, 4
NUM_SEEDS, STEPS, EVERY = 50, 400, 10
LEARNING_RATE, BETAS, EPS = 0.05, (0.9, 0.999), 1e-8
ESCAPED = 0.5  # probability of the best arm
BETAS_SHOWN = (8.0, 16.0)  # of rs_grpo, beside its default


def arm_rewards():
    """Rewards of the arms, [100] float64; every seed has the same."""
    values = generator("local_optimum", 0, "arms").uniform(0, 0.5, size=ARMS)
    values[0], values[-1] = 0.6, 1.0
    return values


def wilson(count, n):
    """95% interval of a proportion (Wilson 1927)."""
    z, p = 1.96, count / n
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, (centre - half) / (1 + z**2 / n)), min(1.0, (centre + half) / (1 + z**2 / n))


def train(estimator, k, values, noise):
    """Adam on the logits, all seeds side by side. noise: [STEPS, S, G, N] uniform. P(best arm), [STEPS+1, S]."""
    import torch

    logits = torch.zeros(NUM_SEEDS, ARMS, dtype=torch.float64)
    logits[:, 0] = np.log(START / (1 - START) * (ARMS - 1))
    first, second, path = torch.zeros_like(logits), torch.zeros_like(logits), []
    for step in range(STEPS + 1):
        policy = logits.softmax(-1)
        path.append(policy[:, -1].clone())
        if step == STEPS:
            break
        cdf = policy.cumsum(-1)
        arms = torch.searchsorted(cdf, noise[step].flatten(1) * cdf[:, -1:], right=True).clamp(max=ARMS - 1)
        rewards = values[arms].view(NUM_SEEDS, GROUPS, N)
        norms = (1 - 2 * policy.gather(1, arms) + policy.square().sum(-1, keepdim=True)).view_as(rewards)
        a = estimator(rewards, k=k, score_norms=norms).flatten(1) / (GROUPS * N)
        gradient = torch.zeros_like(logits).scatter_add_(1, arms, a) - a.sum(1, keepdim=True) * policy
        first.lerp_(gradient, 1 - BETAS[0])
        second.lerp_(gradient.square(), 1 - BETAS[1])
        root = numerics.sqrt(second / (1 - BETAS[1] ** (step + 1))) + EPS
        logits += LEARNING_RATE * first / (1 - BETAS[0] ** (step + 1)) / root
    return torch.stack(path)


def run():
    """Rows estimator, k, step, escaped, low, high, best_arm_probability, median_step: 50 seeds, one noise for all.

    escaped: share of seeds whose best arm has probability above 1/2; median_step: when half of them had, else empty.
    """
    import pandas as pd
    import torch

    from maxpo_bench.errors import InputError
    from maxpo_bench.estimators import get, names

    values = torch.as_tensor(arm_rewards())
    draws = [generator("local_optimum", seed, "samples").random((STEPS, GROUPS, N)) for seed in range(NUM_SEEDS)]
    noise = torch.as_tensor(np.stack(draws, axis=1))
    rows = []
    for name, beta in [*((name, None) for name in names()), *(("rs_grpo", beta) for beta in BETAS_SHOWN)]:
        estimator = get(name)
        k = K if K in estimator.valid_k(N) else estimator.valid_k(N)[-1]
        function = estimator if beta is None else partial(estimator, beta=beta)
        name = name if beta is None else f"{name}, beta {beta:g}"
        try:
            path = train(function, k, values, noise).numpy()
        except InputError:  # not for graded rewards
            continue
        escaped = np.maximum.accumulate(path > ESCAPED).sum(1)
        reached = np.flatnonzero(escaped * 2 >= NUM_SEEDS)
        for step in range(0, STEPS + 1, EVERY):
            low, high = wilson(escaped[step], NUM_SEEDS)
            rows.append(
                {
                    "estimator": name,
                    "k": k,
                    "step": step,
                    "escaped": escaped[step] / NUM_SEEDS,
                    "low": low,
                    "high": high,
                    "best_arm_probability": path[step].mean(),
                    "median_step": reached[0] if len(reached) else np.nan,
                    "num_seeds": NUM_SEEDS,
                }
            )
    return pd.DataFrame(rows)


def caption(data):
    last = data[data["step"] == data["step"].max()].sort_values("escaped", ascending=False, kind="stable")
    listed = ", ".join(f"{row.estimator} {row.escaped:.0%}" for row in last.itertuples())
    text = (
        f"Share of {NUM_SEEDS} seeds (the same noise for all estimators) in which the best of {ARMS} arms has come "
        f"to probability above 1/2, started with .9 on an arm worth .6; N = {N}, {GROUPS} groups a step, K = {K} "
        f"(best_gap: K = N), Adam {LEARNING_RATE:g}; bars: 95% Wilson intervals at the last step. After {STEPS} "
        f"steps: {listed}. The setting of arXiv:2509.24261."
    )
    by_name = last.set_index("estimator")
    if "rs_grpo" in by_name.index and by_name["high"]["rs_grpo"] < 0.5:
        text += (
            " This contradicts the published escape of the risk-seeking objective, at the default beta = 2 and this learning rate"
        )
        more = [
            name for name in by_name.index if name.startswith("rs_grpo, ") and by_name["low"][name] > by_name["high"]["rs_grpo"]
        ]
        text += f"; it escapes more often, its interval above the default's, as {'; '.join(more)}." if more else "."
    return text


def figure(data):
    """Share of seeds that escaped: against the step (left), and at the last step with its interval (right)."""
    from maxpo_bench.studies import style

    last = data[data["step"] == data["step"].max()].sort_values("escaped", kind="stable")
    names = list(last["estimator"])
    fig, (left, right) = style.new_figure("full", max(4.2, 0.8 + 0.14 * len(names)), cols=2, gridspec_kw={"width_ratios": (3, 2)})
    for name in names:
        rows = data[data["estimator"] == name]
        look = style.line_style(name, names) | {"markevery": 10}
        left.plot(rows["step"], rows["escaped"], **look)
    for y, row in enumerate(last.itertuples()):
        look = style.line_style(row.estimator, names)
        right.plot([row.low, row.high], [y, y], color=look["color"], linewidth=1.0)
        right.plot(row.escaped, y, marker=look["marker"], color=look["color"], markeredgecolor="white")
    right.set_yticks(range(len(names)), names)
    for tick, name in zip(right.get_yticklabels(), names, strict=True):  # the legend of both panels
        tick.set_color(style.colours(names)[name])
        tick.set_fontweight("bold")
    left.set(xlabel="step [updates]", ylabel="share of seeds that escaped [0 to 1]", ylim=(-0.03, 1.03))
    right.set(xlabel=f"share at step {STEPS} [0 to 1]", xlim=(-0.03, 1.03))
    return fig
