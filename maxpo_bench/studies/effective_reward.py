"""What an estimator makes of a reward (arXiv:2505.15201, figure 5): advantage against raw reward in one group."""

import math

from maxpo_bench.training.streams import generator

TITLE = "Advantage against reward"
N, K = 32, 4
COLUMNS = 4


def groups():
    """The groups shown, [8, 32] float64: uniform on [-.5, .5], and the same shifted to [0, 1] for what needs r >= 0."""
    return generator("effective_reward", 0, "rewards").uniform(-0.5, 0.5, size=(8, N))


def run():
    """Rows estimator, reward, advantage, scaled, rewards: the first of 8 groups; scaled has a root mean square of 1.

    rewards says what the group was: "uniform on [-.5, .5]", "shifted to [0, 1]", or "1 when positive, else 0".
    """
    import pandas as pd
    import torch

    from maxpo_bench.errors import InputError
    from maxpo_bench.estimators import get, names

    raw = torch.as_tensor(groups())
    kinds = {"uniform on [-.5, .5]": raw, "shifted to [0, 1]": raw + 0.5, "1 when positive, else 0": (raw > 0).double()}
    rows = []
    for name in names():
        estimator = get(name)
        k = K if K in estimator.valid_k(N) else estimator.valid_k(N)[-1]
        for label, rewards in kinds.items():
            try:
                advantages, kind = estimator(rewards, k=k)[0], label
                break
            except InputError:  # not for such rewards: try the next kind
                continue
        else:  # for none of them: not shown
            continue
        size = math.sqrt(advantages.square().mean().item())
        columns = rewards[0].tolist(), advantages.tolist(), (advantages / size).tolist()
        rows += [
            {"estimator": name, "k": k, "reward": r, "advantage": a, "scaled": s, "rewards": kind}
            for r, a, s in zip(*columns, strict=True)
        ]
    return pd.DataFrame(rows)


def caption(data):
    others = data[data["rewards"] != data["rewards"].iloc[0]].groupby("rewards")["estimator"].unique()
    listed = "; ".join(f"{kind} for {', '.join(found)}" for kind, found in others.items())
    return (
        f"Advantages of one group of N = {N} rewards at K = {K} (best_gap: K = N), each panel scaled to a root "
        f"mean square of 1, uniform rewards on [-.5, .5] ({listed}); fitted_blend saw 7 other such groups. One "
        "draw, one seed: the function itself, so no interval. The setting of figure 5 of arXiv:2505.15201. Above "
        "the line pushes a sample up, below pushes it down; pkpo pushes nothing down."
    )


def figure(data):
    """One small panel per estimator: scaled advantage against the rank-ordered reward."""
    from maxpo_bench.studies import style

    names = list(data["estimator"].unique())
    num_rows = -(-len(names) // COLUMNS)
    fig, axes = style.new_figure("full", 1.05 * num_rows + 0.3, num_rows, COLUMNS, sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        rows = data[data["estimator"] == name].sort_values("reward", kind="stable")
        look = style.line_style(name, names)
        ax.axhline(0, color=style.GREY, linewidth=0.7)
        ax.plot(rows["reward"], rows["scaled"], **look)
        ax.set_title(name, color=look["color"])
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    fig.supxlabel("reward [1]", fontsize=8)
    fig.supylabel("advantage / root mean square [1]", fontsize=8)
    return fig
