"""The sum of a group's advantages, by estimator: zero for a centred one, a push on all samples alike for the others."""

import numpy as np

from maxpo_bench.training.streams import generator

TITLE = "Which advantages sum to zero"
N, K = 16, 4
NUM_GROUPS = 2000
KINDS = {"uniform": "uniform on [0, 1]", "binary": "0 or 1, success .3", "rare": "0 or 1, success .05"}
QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)


def rewards(kind):
    """[NUM_GROUPS, N] float64."""
    u = generator("centring", 0, "rewards").random((NUM_GROUPS, N))
    return u if kind == "uniform" else (u < (0.3 if kind == "binary" else 0.05)).astype(np.float64)


def run():
    """Rows estimator, kind, mean, q025..q975 of (1/N) sum_i A_i over 2,000 groups, largest: max |(1/N) sum_i A_i|."""
    import pandas as pd
    import torch

    from maxpo_bench.errors import InputError
    from maxpo_bench.estimators import get, names

    rows = []
    for kind in KINDS:
        r = torch.as_tensor(rewards(kind)).view(-1, 50, N)  # batches of 50 groups
        for name in names():
            estimator = get(name)
            k = K if K in estimator.valid_k(N) else estimator.valid_k(N)[-1]
            try:
                mean = estimator(r, k=k).mean(-1).flatten().numpy()
            except InputError:  # not for such rewards
                continue
            mean = np.where(np.abs(mean) < 1e-12, 0.0, mean)  # rounding
            found = dict(zip(("q025", "q25", "q50", "q75", "q975"), np.quantile(mean, QUANTILES), strict=True))
            rows.append(
                {
                    "estimator": name,
                    "kind": kind,
                    "k": k,
                    "group_size": N,
                    "num_groups": NUM_GROUPS,
                    "mean": mean.mean(),
                    **found,
                    "largest": np.abs(mean).max(),
                    "centred": bool((mean == 0).all()),
                }
            )
    return pd.DataFrame(rows)


def caption(data):
    centred = data.groupby("estimator")["centred"].all()
    return (
        f"Mean advantage of a group, (1/N) sum of A_i, over M = {NUM_GROUPS} groups at N = {N}, K = {K} (best_gap: "
        "K = N), one seed: median, half and 95% of the groups (spread of groups, not of an estimate). Exactly "
        f"centred (below 1e-12 in every group): {', '.join(centred[centred].index)}. A mean that is not zero does "
        "not bias the expected gradient by itself; pkpo's is never negative."
    )


def figure(data):
    """One panel per kind of reward: interval of (1/N) sum A_i for each estimator."""
    from maxpo_bench.studies import style

    names = list(data["estimator"].unique())
    fig, axes = style.new_figure("full", 0.8 + 0.16 * len(names), cols=len(KINDS), sharey=True)
    palette = style.colours(names)
    for ax, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for row in data[data["kind"] == kind].itertuples():
            y = names.index(row.estimator)
            ax.plot([row.q025, row.q975], [y, y], color=palette[row.estimator], linewidth=1.0)
            ax.plot([row.q25, row.q75], [y, y], color=palette[row.estimator], linewidth=3.0, solid_capstyle="butt")
            ax.plot(row.q50, y, "o", color=palette[row.estimator], markeredgecolor="white", markeredgewidth=0.4)
        ax.axvline(0, color=style.GREY, linewidth=0.7)
        ax.set_title(title)
        ax.set_xscale("symlog", linthresh=0.1)
        ax.set_xticks([-10, -1, 0, 1, 10, 100], ["-10", "-1", "0", "1", "10", "100"])
        ax.minorticks_off()
    axes[0].set_yticks(range(len(names)), names, fontsize=7)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    fig.supxlabel("mean advantage of a group [reward]", fontsize=8)
    return fig
