"""Signal-to-noise ratio of the gradient on small bandits, against K: the settings of OrderGrad (arXiv:2606.06096)."""

import numpy as np

from maxpo_bench.training.streams import generator

TITLE = "Signal-to-noise ratio on bandits"
N, KS, ARMS = 64, (1, 2, 3, 4, 5, 6), (4, 8, 16)
REWARDS = ("linear", "exponential", "gaussian")
ESTIMATORS = ("rloo", "grpo", "bon_mean", "pkpo_loo", "pkpo", "maxpo", "tailrl", "fitted_blend")
NUM_GROUPS, BATCH, NUM_BLOCKS = 1600, 16, 50


def arm_rewards(kind, arms):
    """Rewards of the arms, [A] float64 in [0, 1], ascending."""
    grid = np.arange(1, arms + 1) / arms
    if kind == "linear":
        return grid
    if kind == "exponential":
        return np.exp(4 * (grid - 1))
    values = np.sort(generator("bandit_snr", 0, "gaussian arms", arms).normal(size=arms))
    return (values - values[0]) / (values[-1] - values[0])


def signal_to_noise(gradients):
    """(||E g||^2 / tr Cov, standard error) from independent gradients [M, D], by jackknife over blocks of groups.

    ||E g||^2 is unbiased: products of different groups only.
    """
    blocks = gradients.reshape(NUM_BLOCKS, -1, gradients.shape[-1])
    total, squares, m = blocks.sum(1), (blocks**2).sum((1, 2)), len(gradients)

    def ratio(total, squares, m):
        size = ((total**2).sum(-1) - squares) / (m * (m - 1))
        return size / (squares / m - size)

    left_out = ratio(total.sum(0) - total, squares.sum() - squares, m - m // NUM_BLOCKS)
    error = np.sqrt((NUM_BLOCKS - 1) * left_out.var())
    return ratio(total.sum(0), squares.sum(), m), error


def run():
    """Rows rewards, arms, k, estimator, snr, low, high, ...: uniform policy, N = 64, 1,600 groups a point."""
    import pandas as pd
    import torch

    from maxpo_bench.estimators import get
    from maxpo_bench.measure import exact

    rows = []
    for kind in REWARDS:
        for arms in ARMS:
            values = torch.as_tensor(arm_rewards(kind, arms))
            picks = generator("bandit_snr", 0, "arms", arms).integers(arms, size=(NUM_GROUPS // BATCH, BATCH, N))
            scores = torch.eye(arms, dtype=torch.float64)[torch.as_tensor(picks)] - 1 / arms  # [B, G, N, A]
            norms = scores.square().sum(-1)
            for k in KS:
                logits = torch.zeros(arms, dtype=torch.float64, requires_grad=True)
                exact.arms_expected_max(logits, values, k).backward()
                for name in ESTIMATORS:
                    advantages = get(name)(values[torch.as_tensor(picks)], k=k, score_norms=norms)
                    g = torch.einsum("bgn,bgna->bga", advantages, scores).flatten(0, 1).numpy() / N
                    snr, error = signal_to_noise(g)
                    rows.append(
                        {
                            "rewards": kind,
                            "arms": arms,
                            "k": k,
                            "estimator": name,
                            "snr": snr,
                            "low": snr - 1.96 * error,
                            "high": snr + 1.96 * error,
                            "group_size": N,
                            "num_groups": NUM_GROUPS,
                            "exact_gradient_norm": logits.grad.norm().item(),
                        }
                    )
    return pd.DataFrame(rows)


def caption(data):
    wide = data[data["k"] > 1].pivot(index=["rewards", "arms", "k"], columns="estimator")
    gain = wide["snr"]["maxpo"] / wide["snr"]["pkpo"]
    above = int((wide["low"]["maxpo"] > wide["high"]["pkpo"]).sum())  # intervals apart: strict, the samples are the same
    below = int((wide["high"]["maxpo"] < wide["low"]["pkpo"]).sum())
    text = (
        f"||E g||^2 / tr Cov of one group's gradient, uniform policy, N = {N}, M = {NUM_GROUPS:,} groups a point, "
        "one seed, 95% jackknife intervals; the settings of arXiv:2606.06096. Each estimator against its own mean: "
        "rloo, grpo and tailrl do not aim at J_K. At K > 1 maxpo has "
        f"{gain.min():.2f} to {gain.max():.2f} times the ratio of pkpo (point estimates): higher in "
        f"{(gain > 1).sum()} of {len(gain)} settings, in {above} with the two intervals apart; lower in "
        f"{(gain < 1).sum()}, in {below} with the intervals apart"
    )
    return text + (", which contradicts that L2O always reduces variance." if below else ".")


def figure(data):
    """A grid of panels, rewards x arms: SNR against K."""
    from maxpo_bench.studies import style

    fig, axes = style.new_figure("full", 1.45 * len(REWARDS) + 0.8, len(REWARDS), len(ARMS), sharex=True, squeeze=False)
    for i, kind in enumerate(REWARDS):
        for j, arms in enumerate(ARMS):
            ax, panel = axes[i, j], data[(data["rewards"] == kind) & (data["arms"] == arms)]
            for name in ESTIMATORS:
                rows = panel[panel["estimator"] == name]
                bars = np.array([rows["snr"] - rows["low"], rows["high"] - rows["snr"]])
                ax.errorbar(rows["k"], rows["snr"], yerr=bars, elinewidth=0.6, label=name, **style.line_style(name, ESTIMATORS))
            ax.set(yscale="log", title=f"{kind}, {arms} arms")
            ax.set_xticks(KS)
            style.plain_log_ticks(ax.yaxis, *ax.get_ylim(), most=5)
    fig.supxlabel("K [samples]", fontsize=8)
    fig.supylabel("SNR of the gradient [ratio]", fontsize=8)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(ESTIMATORS) // 2)
    return fig
