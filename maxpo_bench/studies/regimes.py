"""Where the leave-two-out baseline reduces variance and where it does not: the map, exact where it can be.

A regime is success probability x K/N x score geometry, binary rewards. What the variance depends on of a policy is
the mean squared norm of the scores of successes and failures, n_1 and n_0, and the mean score of each: r the reward,
E[S | r] = (r - p) d. Two samples of a group meet (same context) with probability 1/C. Then for advantages f(r, c), c
the successes among the others,
    E ||g||^2 = (1/N) E[f^2 n_r] + (N-1)/N (|d|^2 / C) E[f(r_1, c_1) f(r_2, c_2) (r_1 - p) (r_2 - p)]
is a sum over binomial counts: maxpo, pkpo in its three forms and every constant blend are exact. fitted_blend is a blend
whose weight comes from the other groups: the weights are sampled, in batches of 64 groups, and given them the same sum is
exact. What the groups of a batch share through them is sampled too: it is the variance of the whole batch's gradient.
"""

import numpy as np

from maxpo_bench.machine import workers
from maxpo_bench.measure import bootstrap
from maxpo_bench.training.streams import generator

TITLE = "Variance of the leave-two-out baseline, by regime"
GROUPS = 64
SIZES = ((2, 8), (4, 8), (2, 16), (4, 16), (8, 16), (12, 16))  # K, N
CHANCES = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95)
GEOMETRIES = {  # name: arms, contexts (None: infinitely many, scores of different samples are orthogonal), n_0 / n_1
    "1 parameter": (None, 1, None),
    "10 arms": (10, 1, None),
    "100 arms": (100, 1, None),
    "10 contexts of 10 arms": (10, 10, None),
    "orthogonal": (None, None, 1.0),
    "orthogonal, failures 2.5 x": (None, None, 2.5),
    "orthogonal, prompts p and 1-p": (None, None, 1.0),
}
NUM_BATCHES = 80


def shape_of(name, p):
    """(n_1, n_0, |d|^2 / C) of a geometry at success probability p: see the module's docstring."""
    arms, contexts, failures = GEOMETRIES[name]
    if contexts is None:
        return 1.0, failures, 0.0
    if arms is None:  # one logit: S = r - p
        return (1 - p) ** 2, p**2, 1.0
    policy, good = arm_policy(arms, p)
    square = (policy**2).sum()
    norms = 1 - 2 * policy + square  # ||onehot - policy||^2
    mean = np.where(good, 1 / good.sum(), 0.0) - policy  # E[S | success] = (1 - p) d
    return norms[0], norms[-1], (mean**2).sum() / (1 - p) ** 2 / contexts


def direction(name, p):
    """d / C over all parameters, [D]: E g is kind.slope() times this."""
    arms, contexts, _ = GEOMETRIES[name]
    if arms is None:
        return np.ones(1)
    policy, good = arm_policy(arms, p)
    return np.tile((np.where(good, 1 / good.sum(), 0.0) - policy) / (1 - p), contexts) / contexts


def arm_policy(arms, p):
    """Probabilities of the arms, a tenth of which succeed and share p, and which those are: [A] float64, [A] bool."""
    good = np.arange(arms) < arms // 10
    return np.where(good, p / good.sum(), (1 - p) / (~good).sum()), good


class Exact:
    """Inner products of gradient estimates E<g_f, g_h>, f and h arrays [2, n] over (reward, successes among others)."""

    def __init__(self, name, p, k, n):
        from scipy.special import comb
        from scipy.stats import binom

        self.p, (self.n_1, self.n_0, self.overlap) = p, shape_of(name, p)
        count = np.arange(n)
        self.others = binom.pmf(count, n - 1, p)  # successes among n-1 others
        self.others_but_one = binom.pmf(count[:-1], n - 2, p)
        u = 1 - comb(n - 1 - count, k - 1) / comb(n - 1, k - 1)
        without = 1 - comb(n - 1 - count, k) / comb(n - 1, k)
        self.include = np.stack([u, np.ones(n)])  # q: pkpo_raw
        self.without = np.stack([without] * 2)  # v_-i
        self.added = np.stack([u - u, 1 - u])  # D = q - u: pkpo
        self.control = np.stack([without - u] * 2)  # v_-i - u
        self.k, self.n = k, n

    def same(self, f, h):
        """The terms of a sample with itself: all that fitted_blend sees of the product, K apart."""
        chance = np.array([1 - self.p, self.p])
        norms = np.array([self.n_0, self.n_1])
        return ((chance * norms)[:, None] * self.others * f * h).sum() / self.n

    def product(self, f, h):
        chance = (1 - self.p, self.p)
        other = 0.0
        for a in (0, 1):
            for b in (0, 1):
                both = (self.others_but_one * f[a, b : b + self.n - 1] * h[b, a : a + self.n - 1]).sum()
                other += chance[a] * chance[b] * (a - self.p) * (b - self.p) * both
        return self.k**2 * (self.same(f, h) + (self.n - 1) / self.n * self.overlap * other)

    def slope(self):
        """|E g| along d, with mean score (r - p) d: E g = slope d."""
        return self.k * self.p * (1 - self.p) * (self.others * (self.added[1] - self.added[0])).sum()

    def mean_squared(self):
        return self.overlap * self.slope() ** 2

    def variance(self, f):
        """tr Cov of the unbiased gradient estimate with advantages K f."""
        return self.product(f, f) - self.mean_squared()

    def blend(self, w):
        """baseline_blend at a constant w, over K."""
        return self.added - w * self.control

    def blend_variance(self, w):
        """variance(blend(w)) for an array of w: a parabola."""
        pairs = ((self.added, self.added), (self.added, self.control), (self.control, self.control))
        a, b, c = (self.product(*pair) for pair in pairs)
        return a - 2 * b * w + c * w**2 - self.mean_squared()

    def fit_limit(self):
        """The weight that fitted_blend goes to in large batches."""
        return float(self.same(self.added, self.control) / self.same(self.control, self.control))

    def live(self):
        """Chance that a group has advantages that are not all zero under maxpo."""
        from scipy.stats import binom

        return binom.cdf(self.n - self.k, self.n, self.p) - binom.pmf(0, self.n, self.p)


def kinds_of(name, p, k, n):
    """The kinds of prompts of a regime, equally frequent: p, or p and 1-p in turn."""
    return [Exact(name, q, k, n) for q in ((p, 1 - p) if name.endswith("1-p") else (p,))]


def exact_rows(kinds, k, n):
    """({estimator: variance}, live), exact."""

    def mean(advantages):
        return np.mean([kind.variance(advantages(kind)) for kind in kinds])

    def blend(w):
        return mean(lambda kind: kind.blend(w))

    top, bottom = (
        sum(kind.product(a(kind), kind.control) for kind in kinds) for a in (lambda kind: kind.added, lambda kind: kind.control)
    )
    return {
        "maxpo": blend(1.0),
        "pkpo": blend(0.0),
        "baseline_blend": blend((n - k) / (n - 1)),
        "pkpo_raw": mean(lambda kind: kind.include),
        "pkpo_loo": mean(lambda kind: kind.include - n / (n - 1) * kind.without),
        "best constant w": blend(top / bottom),
    }, np.mean([kind.live() for kind in kinds])


def draw(name, p, n, num_batches, noise):
    """(rewards [R, G, N], score norms [R, G, N], scores [R, G, N, D] or None when orthogonal), float64 tensors."""
    import torch

    arms, contexts, failures = GEOMETRIES[name]
    shape = (num_batches, GROUPS, n)
    chance = np.full((GROUPS, 1), p)
    if name.endswith("1-p"):
        chance[1::2] = 1 - p
    if arms is None or contexts is None:
        rewards = torch.as_tensor((noise.random(shape) < chance).astype(np.float64))
        if contexts is None:
            return rewards, torch.where(rewards > 0, 1.0, failures).double(), None
        scores = (rewards - p)[..., None]
    else:
        policy, good = arm_policy(arms, p)
        arm = np.searchsorted(policy.cumsum(), noise.random(shape) * policy.sum(), side="right").clip(max=arms - 1)
        context = noise.integers(contexts, size=shape)
        rewards = torch.as_tensor(good[arm].astype(np.float64))
        scores = torch.zeros(*shape, contexts, arms, dtype=torch.float64)
        block = torch.eye(arms, dtype=torch.float64)[torch.as_tensor(arm)] - torch.as_tensor(policy)
        place = torch.as_tensor(context)[..., None, None].expand(*shape, 1, arms)
        scores = scores.scatter_(-2, place, block.unsqueeze(-2)).flatten(-2)
    return rewards, scores.square().sum(-1), scores


def sampled(name, p, k, n, kinds, noise):
    """[R]: contributions of batches to the variance of fitted_blend's batch gradient, times G; their mean is the variance.

        G tr Cov = mean over i of tr Cov g_i + (1/G) sum over i != j of Cov(g_i, g_j)

    The first part is exact for the weights of each batch. The second is sampled, less the same of the constant blend that
    the fit goes to in large batches, whose groups are independent: a control variate of mean zero. It is zero when the
    scores of different samples are orthogonal.
    """
    import torch

    from maxpo_bench.estimators import get
    from maxpo_bench.estimators.fitted_blend import parts, weights

    rewards, norms, scores = draw(name, p, n, NUM_BATCHES, noise)
    added, control = parts(rewards, k)
    fitted = weights(added, control, k, norms).numpy()  # [R, G]
    found = np.mean([kind.blend_variance(fitted[:, i :: len(kinds)]).mean(1) for i, kind in enumerate(kinds)], 0)
    if scores is not None:
        mean = torch.as_tensor(kinds[0].slope() * direction(name, p))  # E g
        near = get("baseline_blend")(rewards, k=k, w=kinds[0].fit_limit())
        found += (shared(get("fitted_blend")(rewards, k=k, score_norms=norms), scores, mean) - shared(near, scores, mean)).numpy()
    return found


def shared(advantages, scores, mean):
    """(1/G) sum over i != j of <g_i - E g, g_j - E g>: [R, G, N], [R, G, N, D], [D] -> [R]."""
    gradients = (advantages.unsqueeze(-2) @ scores)[:, :, 0] / scores.shape[-2] - mean  # [R, G, D]
    return (gradients.sum(1).square().sum(-1) - gradients.square().sum((1, 2))) / gradients.shape[1]


def run():
    """Rows regime, ..., estimator, ratio, low, high, exact, ...: ratio = Var(estimator)/Var(maxpo).

    to_best, to_best_low, to_best_high: over the better of maxpo and pkpo of the regime. Exact rows have no interval;
    sampled rows have a 95% bootstrap interval over batches. live: chance that maxpo's advantages are not all 0.
    """
    import pandas as pd
    import torch  # noqa: F401  (before the workers fork)

    jobs = [(name, p) for name in GEOMETRIES for p in CHANCES if not (name.endswith("1-p") and p >= 0.5)]
    parts = workers.run(jobs, _regimes, "study regimes", len(SIZES))
    return pd.DataFrame([row for part in parts for row in part])


def _regimes(job, tick):
    """The rows of all regimes of a geometry and a success probability. A stream of its own for each regime."""
    rows = []
    for done, (k, n) in enumerate(SIZES, start=1):
        rows += regime(*job, k, n)
        tick(done)
    return rows


def regime(name, p, k, n):
    """The rows of one regime."""
    kinds = kinds_of(name, p, k, n)
    exact, live = exact_rows(kinds, k, n)
    label = f"{name}, success {p:g}, K/N = {k}/{n}"
    noise = generator("regimes", 0, label)
    best = min(exact["maxpo"], exact["pkpo"])
    about = {
        "regime": label,
        "geometry": name,
        "success_probability": p,
        "group_size": n,
        "k": k,
        "k_over_n": f"{k}/{n}",
        "live": live,
    }
    rows = [
        {
            **about,
            "estimator": estimator,
            "ratio": value / exact["maxpo"],
            "low": np.nan,
            "high": np.nan,
            "exact": True,
            "num_groups": 0,
            "to_best": value / best,
        }
        for estimator, value in exact.items()
    ]
    values = sampled(name, p, k, n, kinds, noise)
    low, high = bootstrap.bounds(bootstrap.counts(noise, NUM_BATCHES, resamples=1000) @ values / NUM_BATCHES)
    rows.append(
        {
            **about,
            "estimator": "fitted_blend",
            "ratio": values.mean() / exact["maxpo"],
            "low": low / exact["maxpo"],
            "high": high / exact["maxpo"],
            "exact": False,
            "num_groups": NUM_BATCHES * GROUPS,
            "to_best": values.mean() / best,
            "to_best_low": low / best,
            "to_best_high": high / best,
        }
    )
    return sorted(rows, key=lambda row: row["estimator"])


def caption(data):
    wide = data[data["exact"]].pivot(index="regime", columns="estimator", values="ratio")
    best = data[data["estimator"] == "best constant w"]["to_best"]
    blend = data[data["estimator"] == "baseline_blend"]["to_best"]
    rows = data[data["estimator"] == "fitted_blend"].set_index("regime")
    num, won, lost = len(wide), int((wide["pkpo"] > 1 + 1e-9).sum()), int((wide["pkpo"] < 1 - 1e-9).sum())
    return (
        f"{num} regimes of binary rewards; maxpo, pkpo, pkpo_raw, pkpo_loo and constant blends exactly, by enumeration of "
        f"counts; fitted_blend: exactly given its weights, the weights from M = {NUM_BATCHES * GROUPS:,} groups in "
        f"batches of {GROUPS} with their score norms, variance of the whole batch's gradient, one seed; the 95% bootstrap "
        "intervals are in the CSV. Left: Var(maxpo)/Var(pkpo). Right: Var(fitted_blend) over the better of maxpo and pkpo. "
        f"maxpo has less variance than pkpo in {won} of {num} regimes and more in {lost}{_says(won, lost)}. "
        f"At most 1.02 x the better of the two: fitted_blend in {(rows['to_best'] <= 1.02).sum()} of {len(rows)} regimes, "
        f"baseline_blend at the bootstrap weight (N-K)/(N-1) in {(blend <= 1.02).sum()}; below 0.9 x in "
        f"{(rows['to_best'] < 0.9).sum()} and {(blend < 0.9).sum()}; at worst {rows['to_best'].max():.2f} x "
        f"({rows['to_best'].idxmax()}) and {blend.max():.2f} x. "
        f"The best constant weight known in advance would be below 0.9 x in {(best < 0.9).sum()} of {len(best)}. Grey: "
        "prompts p and 1-p at these p are the mirrored rows above."
    )


def _says(won, lost):
    """What exact counts say of the claim that the leave-two-out baseline reduces gradient variance."""
    claim = "that the leave-two-out baseline reduces gradient variance in general"
    return f", which contradicts the claim {claim}" if lost else f", as the claim says, {claim}" if won else ""


def figure(data):
    """Heat maps without numbers (they are in the CSV), success probability x K/N: a row per geometry, a column per ratio."""
    from matplotlib.colors import BoundaryNorm

    from maxpo_bench.studies import style

    leave = data[data["estimator"] == "pkpo"].assign(shown=lambda d: 1 / d["ratio"])
    fitted = data[data["estimator"] == "fitted_blend"].assign(shown=lambda d: d["to_best"])
    ratios = [("maxpo / pkpo", leave), ("fitted / better", fitted)]
    fig, axes = style.new_figure("full", 1.0 * len(GEOMETRIES) + 1.5, len(GEOMETRIES), len(ratios), sharex=True, sharey=True)
    fig.get_layout_engine().set(h_pad=0.01, w_pad=0.03, hspace=0.0)
    bounds = [0.35, 0.5, 0.7, 0.9, 0.98, 1.02, 1.1, 1.4, 2, 2.8]
    norm = BoundaryNorm(bounds, 256, extend="both")
    for line, name in zip(axes, GEOMETRIES, strict=True):
        for ax, (title, rows) in zip(line, ratios, strict=True):
            table = rows[rows["geometry"] == name]
            table = table.pivot(index="success_probability", columns="k_over_n", values="shown")
            table = table.reindex(index=CHANCES, columns=[f"{k}/{n}" for k, n in SIZES]).to_numpy(float)
            image = ax.imshow(np.ma.masked_invalid(table), cmap=style.DIVERGING + "_r", norm=norm, aspect="auto")
            ax.set_facecolor("#D0D0D0")
            ax.grid(False)
            ax.set_xticks(range(len(SIZES)), [f"{k}/{n}" for k, n in SIZES], rotation=90)
            ax.set_yticks(range(len(CHANCES)), [f"{p:g}" for p in CHANCES])
            ax.tick_params(length=0)
            if name == next(iter(GEOMETRIES)):
                ax.set_title(title, loc="center")
        line[0].set_ylabel(
            name.replace(", prompts", ",\nprompts").replace(", failures", ",\nfailures").replace(" of ", "\nof "),
            rotation=0,
            ha="right",
            va="center",
        )
    axes[-1][1].set_xlabel("K/N, both in samples")
    fig.supylabel("score geometry; ticks: success probability", fontsize=8)
    bar = fig.colorbar(image, ax=axes, location="bottom", fraction=0.025, aspect=40, pad=0.01, ticks=bounds)
    bar.ax.set_xticklabels([f"{b:g}" for b in bounds])
    bar.set_label("ratio of variances; purple: below 1, the first has less", fontsize=8)
    bar.outline.set_visible(False)
    return fig
