"""PKPO's toy at theta = 1, K = 4 (arXiv:2505.15201, figure 4): variance of the gradient estimate against N."""

import math

import numpy as np

from maxpo_bench.training.streams import generator

TITLE = "Variance on the PKPO toy"
K, THETA, STD = 4, 1.0, 0.1
SIZES = (8, 12, 16, 24, 32, 48, 64)
NUM_ESTIMATES = 10_000
BATCH = 50  # groups that fitted_blend sees at once
LABELS = {"pkpo_raw": "raw", "pkpo_loo": "loo", "pkpo": "loo-1"}  # the paper's names of its three estimators


def partitioned(rewards, k, baseline):
    """The plain estimator: N/k disjoint subsets of k samples, each with its own max. rewards [..., N] -> advantages.

    baseline: subtract the mean of the other subsets' maxima. Mean-loss scale: A_i = k (max of i's subset - baseline).
    """
    import torch

    best = rewards.unflatten(-1, (-1, k)).amax(-1)  # [..., N/k]
    if baseline:
        num = best.shape[-1]
        best = (best - best.mean(-1, keepdim=True)) * num / (num - 1)
    return k * torch.repeat_interleave(best, k, dim=-1)


def advantages(rewards, scores):
    """{name: [B, G, N]} of every estimator of the figure; rewards, scores: [B, G, N]."""
    from maxpo_bench.estimators import get

    n = rewards.shape[-1]
    found = {name: get(name)(rewards, k=K) for name in (*LABELS, "maxpo")}
    found["partitioned"] = partitioned(rewards, K, baseline=False)
    found["partitioned, baseline"] = partitioned(rewards, K, baseline=True)
    found["baseline_blend"] = get("baseline_blend")(rewards, k=K, w=(n - K) / (n - 1))
    found["fitted_blend"] = get("fitted_blend")(rewards, k=K, score_norms=scores.square())
    return found


def run():
    """Rows estimator, group_size, k, theta, mean, variance, low, high, num_estimates: 10,000 estimates a point."""
    import pandas as pd
    import torch

    rows = []
    for n in SIZES:
        noise = generator("pkpo_variance", 0, "samples", n).normal(size=(NUM_ESTIMATES // BATCH, BATCH, n))
        x = THETA + STD * torch.as_tensor(noise)
        rewards = torch.where((x >= 0) & (x <= 1), x.square(), 0.0)
        scores = (x - THETA) / STD**2
        for name, a in advantages(rewards, scores).items():
            g = (a * scores).mean(-1).flatten()  # [10,000]
            squares = (g - g.mean()).square()
            variance = squares.sum().item() / (len(g) - 1)
            error = math.sqrt((squares.var() / len(g)).item())
            rows.append(
                {
                    "estimator": name,
                    "group_size": n,
                    "k": K,
                    "theta": THETA,
                    "mean": g.mean().item(),
                    "variance": variance,
                    "low": variance - 1.96 * error,
                    "high": variance + 1.96 * error,
                    "num_estimates": len(g),
                }
            )
    return pd.DataFrame(rows)


def caption(data):
    wide = data.pivot(index="group_size", columns="estimator")
    ratio = wide["variance"]["maxpo"] / wide["variance"]["pkpo"]
    more = int((wide["low"]["maxpo"] > wide["high"]["pkpo"]).sum())  # intervals apart: strict, the samples are the same
    less = int((wide["high"]["maxpo"] < wide["low"]["pkpo"]).sum())
    text = (
        f"Variance of {NUM_ESTIMATES:,} gradient estimates a point (one seed; bars: 95% interval of a variance) at "
        f"K = {K}, theta = {THETA:g}, the setting of figure 4 of arXiv:2505.15201; all are unbiased. "
        "baseline_blend has the bootstrap weight (N-K)/(N-1); fitted_blend is fitted on batches of "
        f"{BATCH} groups with their score norms. maxpo has {ratio.min():.2f} to {ratio.max():.2f} times "
        f"the variance of pkpo (loo-1): with the two intervals apart, more at {more} and less at {less} of the "
        f"{len(ratio)} group sizes"
    )
    if more:
        return text + (
            "; this contradicts the claim that the leave-two-out baseline reduces variance, in this policy of one parameter."
        )
    return text + ("; the leave-two-out baseline reduces variance here, as claimed." if less else ".")


def figure(data):
    """Variance against N, log-log, one line per estimator."""
    from maxpo_bench.studies import style

    fig, ax = style.new_figure("full", 3.6)
    names = list(data["estimator"].unique())
    for name, rows in data.groupby("estimator", sort=False):
        look = style.line_style(name, names)
        bars = [rows["variance"] - rows["low"], rows["high"] - rows["variance"]]
        ax.errorbar(rows["group_size"], rows["variance"], yerr=np.array(bars), elinewidth=0.6, label=LABELS.get(name, name), **look)
    ax.set(xscale="log", yscale="log", xlabel="group size N [samples]", ylabel="variance of the gradient [(reward per unit of x)²]")
    ax.set_xticks(SIZES, [str(n) for n in SIZES])
    ax.minorticks_off()
    fig.legend(loc="outside right upper")
    return fig
