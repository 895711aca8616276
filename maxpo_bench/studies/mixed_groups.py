"""What is left out when flat groups are: the group mean given that a group is mixed (HA-DW, arXiv:2601.08521, figure 2)."""

import numpy as np

TITLE = "Bias of the group mean among mixed groups"
SIZES = (2, 4, 8, 16, 64)
CHANCES = np.arange(1, 100) / 100


def mixed(p, n):
    """Chance that n samples of success probability p are neither all right nor all wrong."""
    return 1 - (1 - p) ** n - p**n


def conditional_mean(p, n):
    """E[group mean | mixed] = p (1 - p^(n-1)) / chance of mixed."""
    return p * (1 - p ** (n - 1)) / mixed(p, n)


def run():
    """Rows group_size, success_probability, bias of the mean given mixed, chance_mixed, gradient_factor: closed forms.

    gradient_factor: E[g | mixed] = factor x grad J for rloo. Its flat groups give exactly 0, so leaving them out divides the
    mean gradient by the chance of a mixed group and leaves its direction.
    """
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "group_size": n,
                "success_probability": p,
                "bias": conditional_mean(p, n) - p,
                "chance_mixed": mixed(p, n),
                "gradient_factor": 1 / mixed(p, n),
            }
            for n in SIZES
            for p in CHANCES
        ]
    )


def caption(data):
    rows = data[data["group_size"] == 8].set_index("success_probability")
    listed = ", ".join(f"p = {p:g}: {rows['bias'].loc[p]:+.3f}" for p in (0.01, 0.1, 0.25, 0.5, 0.9))
    return (
        f"Closed form, no sampling, so no interval. Among the mixed groups alone the mean is off by (N = 8) {listed}: too high "
        "on hard prompts, too low on easy ones, the figure of arXiv:2601.08521. That is a bias of the mean, not of the "
        "gradient: over all groups, flat ones counted, rloo's E[g] is exactly grad J, and over mixed groups alone it is grad J "
        "over the chance of a mixed group (right): another size, the same direction, prompt by prompt."
    )


def figure(data):
    """Bias of the mean (left) and the factor on rloo's gradient (right) against the success probability, one line per N."""
    import seaborn

    from maxpo_bench.studies import style

    fig, (left, right) = style.new_figure("full", 2.7, cols=2)
    for colour, (n, rows) in zip(seaborn.color_palette(style.SEQUENCE, len(SIZES)), data.groupby("group_size"), strict=True):
        left.plot(rows["success_probability"], rows["bias"], color=colour, label=f"N = {n}")
        right.plot(rows["success_probability"], rows["gradient_factor"], color=colour)
    left.axhline(0, color=style.GREY, linewidth=0.7)
    left.set(xlabel="success probability p", ylabel="E[mean | mixed] - p [reward]")
    right.set(xlabel="success probability p", ylabel="E[g | mixed] / grad J [ratio]", yscale="log")
    left.legend()
    return fig
