"""Is a baseline shrunk towards the other prompts nearer to a prompt's success rate? Where it is, and where it reverses.

Prompts have success rates p with mean mu and variance tau^2, rewards are 0 or 1; of the variance v = mu (1-mu) of a reward the
part share = tau^2 / v lies between prompts and the rest, sigma^2 = v - tau^2, within. Mean squared error as an estimate of p:
    mean of the group              sigma^2 / N             mean of the others        sigma^2 / (N-1)
    known moments                  (1-S) sigma^2 / N       with S = (sigma^2/N) / (sigma^2/N + tau^2): never more
    EBPO (arXiv:2602.05165)        (1-S)^2 sigma^2 / N + S^2 tau^2
EBPO's S has the variance of all rewards for sigma^2 and of all group means for tau^2, so that after many steps at one policy
S = 1 / (2 - share + N share), and it is worse than the group's mean where share > 1/2 and N is large enough (`reversal`).
jspo (arXiv:2511.03710) takes its moments from the other groups of one batch: sampled, p from a Beta distribution.
"""

import numpy as np

from maxpo_bench.training.streams import generator

TITLE = "Mean squared error of shrunk baselines"
SIZES = (2, 4, 8, 16, 32, 64)
SHARES = (0.02, 0.1, 0.3, 0.5, 0.6, 0.7, 0.9)
BATCHES = (4, 32)  # groups in a batch
MEAN, NUM_BATCHES = 0.3, 1000


def known(share, n):
    """Mean squared error with known moments, over that of the group's mean."""
    return n * share / (1 - share + n * share)


def ebpo(share, n):
    """EBPO's, in the limit of many steps, over that of the group's mean."""
    s = 1 / (2 - share + n * share)
    return (1 - s) ** 2 + s**2 * n * share / (1 - share)


def reversal(share):
    """Group size from which on EBPO's error is larger than the group mean's; infinity for a share of at most 1/2."""
    return (1 - share) * (3 - 2 * share) / (share * (2 * share - 1)) if share > 0.5 else np.inf


def sampled(share, n, num_groups):
    """Squared errors, means over each batch, of jspo's baseline and of the mean of the others: [NUM_BATCHES] twice."""
    import torch

    from maxpo_bench.estimators import get

    noise = generator("shrunk_baseline", 0, f"share {share}, N {n}, groups {num_groups}")
    size = 1 / share - 1
    chance = noise.beta(MEAN * size, (1 - MEAN) * size, size=(NUM_BATCHES, num_groups, 1))
    rewards = torch.as_tensor((noise.random((NUM_BATCHES, num_groups, n)) < chance).astype(np.float64))
    errors = [rewards - get(name)(rewards) - torch.as_tensor(chance) for name in ("jspo", "rloo")]
    return [error.square().mean((1, 2)).numpy() for error in errors]


def run():
    """Rows baseline, against, share, group_size, groups, ratio, low, high, exact, num_groups: mean squared error over that of
    the baseline it is `against`; exact ones have no interval."""
    import pandas as pd

    rows = []
    for share in SHARES:
        for n in SIZES:
            about = {"share": share, "group_size": n}
            rows += [
                {
                    "baseline": name,
                    "against": "mean of the group",
                    **about,
                    "groups": 0,
                    "ratio": form(share, n),
                    "low": np.nan,
                    "high": np.nan,
                    "exact": True,
                    "num_groups": 0,
                }
                for name, form in (("known moments", known), ("ebpo", ebpo))
            ]
            for num_groups in BATCHES:
                own, plain = sampled(share, n, num_groups)
                ratio = own.mean() / plain.mean()
                margin = 1.96 * (own - ratio * plain).std() / plain.mean() / np.sqrt(len(own))
                rows.append(
                    {
                        "baseline": "jspo",
                        "against": "mean of the others",
                        **about,
                        "groups": num_groups,
                        "ratio": ratio,
                        "low": ratio - margin,
                        "high": ratio + margin,
                        "exact": False,
                        "num_groups": NUM_BATCHES * num_groups,
                    }
                )
    return pd.DataFrame(rows)


def caption(data):
    worse = data[(data["baseline"] == "ebpo") & (data["ratio"] > 1)]
    shown = [f"share {share:g}: N > {reversal(share):.1f}" for share in sorted(set(data["share"])) if share > 0.5]
    jspo = data[data["baseline"] == "jspo"]
    lost = jspo[jspo["low"] > 1]
    text = (
        f"Error of the baseline over that of the plain mean; share: part of a reward's variance that lies between prompts. "
        f"EBPO exactly, in the limit of many steps: less than 1 wherever the share is at most a half; reversed in {len(worse)} "
        f"of {(data['baseline'] == 'ebpo').sum()} points ({'; '.join(shown)}), which contradicts the claim of a smaller error "
        "always: its variances are those of all rewards and of all group means, not within and between prompts. With those, "
        "known, the ratio is below 1 everywhere. jspo: M = "
        f"{jspo['num_groups'].min():,} to {jspo['num_groups'].max():,} groups a point, mean reward {MEAN}, one seed, 95% "
        f"intervals over batches; above 1 with the interval in {len(lost)} of {len(jspo)} points"
    )
    if not len(lost):
        return text + "."
    return text + f", with {lost['groups'].max()} groups in a batch or fewer, at worst {lost['ratio'].max():.1f} (never biased)."


def figure(data):
    """Ratio of errors against N, one line per share: EBPO's and, for each number of groups, jspo's."""
    import seaborn

    from maxpo_bench.studies import style

    panels = [("EBPO, many steps", data[data["baseline"] == "ebpo"])]
    panels += [(f"jspo, {b} groups", data[(data["baseline"] == "jspo") & (data["groups"] == b)]) for b in BATCHES]
    fig, axes = style.new_figure("full", 2.9, cols=len(panels), sharey=True)
    palette = seaborn.color_palette(style.SEQUENCE, len(SHARES))
    for ax, (title, rows) in zip(axes, panels, strict=True):
        for colour, share in zip(palette, SHARES, strict=True):
            line = rows[rows["share"] == share]
            bars = np.array([line["ratio"] - line["low"], line["high"] - line["ratio"]])
            bars = None if line["low"].isna().all() else bars
            ax.errorbar(line["group_size"], line["ratio"], yerr=bars, color=colour, elinewidth=0.6, label=f"share {share:g}")
        ax.axhline(1, color=style.GREY, linewidth=0.7)
        ax.set(xscale="log", yscale="log", title=title)
        ax.set_xticks(SIZES, [str(n) for n in SIZES])
        ax.minorticks_off()
    axes[1].set_xlabel("group size N [samples]")
    axes[0].set_ylabel("mean squared error / plain mean's [ratio]")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return fig
