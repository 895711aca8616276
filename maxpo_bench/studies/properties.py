"""The property table: what every estimator does, by exact enumeration."""

TITLE = "What each estimator really estimates"
CAPTION = (
    "Derived, not declared: every group of softmax bandits with 3 arms (binary, graded, negative and tied rewards; "
    "uniform, mild and peaked policies; N = 4 and 5; every valid K > 1; lengths 3, 1, 2 by arm and score norms where an "
    "estimator uses them) is enumerated, and E[g] is compared with the exact gradients of J_1, J_K, three sums of J_j, the "
    "mean minimum of K and E exp(2 r). `bias_j1` and `bias_jk` are the worst ||E[g] - grad J|| / ||grad J|| over the (N, K); "
    "`scale` is c where E[g] = c grad J for one c over all policies and rewards; `direction` names the J to whose gradient E[g] "
    "is parallel for each prompt alone, whatever its size. `own_sample`: sample i enters its own scale or baseline; "
    "`flat_group`: what a group of equal rewards gets; `all_but_one`: largest |A| in a group of five with one success or one "
    "failure. By enumeration: no samples, so no M, no seed and no interval. An estimator may be scaled (dr_grpo) or mean another "
    "objective (tailrl, maxrl): then it is away from 0 on both sides."
)


def run():
    """The property table as a DataFrame, one row per estimator of the registry. About 0.1 s per estimator."""
    from maxpo_bench.check.properties import table

    data = table()
    for column in ("bias_j1", "bias_jk"):  # below this only rounding is left, which differs between machines
        data[column] = data[column].where(data[column] > 1e-10, 0.0).round(6)
    return data


def figure(data):
    """Worst relative bias of each estimator towards J_1 and towards J_K; a filled mark at 0 is unbiased."""
    from maxpo_bench.studies import style

    rows = data.sort_values(["bias_jk", "bias_j1", "estimator"], ascending=False, kind="stable").reset_index(drop=True)
    fig, axes = style.new_figure("full", 0.8 + 0.16 * len(rows), cols=2, sharey=True)
    palette, marks = style.colours(rows["estimator"]), style.markers(rows["estimator"])
    for ax, column, title in ((axes[0], "bias_j1", "towards J_1, the mean"), (axes[1], "bias_jk", "towards J_K, the best of K")):
        for y, (name, bias) in enumerate(zip(rows["estimator"], rows[column], strict=True)):
            ax.plot([0, bias], [y, y], color=palette[name], linewidth=0.8)
            ax.plot(
                bias,
                y,
                marks[name],
                color=palette[name] if bias == 0 else "white",
                markeredgecolor=palette[name],
                clip_on=False,
                zorder=4,
            )
        ax.axvline(0, color=style.GREY, linewidth=0.7)
        ax.set_title(title)
        ax.set_xscale("symlog", linthresh=1)  # mc_grpo is off by thousands
        ax.set_xticks([0, 0.5, 1, 10, 100, 1000], ["0", ".5", "1", "10", "100", "1000"])
        ax.minorticks_off()
        ax.set_xlim(left=0)
    axes[0].set_yticks(range(len(rows)), rows["estimator"], fontsize=7)
    axes[0].set_ylim(-0.6, len(rows) - 0.4)
    fig.supxlabel("worst relative bias ||E[g] - grad J|| / ||grad J|| [1]; filled at 0: unbiased", fontsize=8)
    return fig
