"""What training does to correct answers that are rarely sampled: F-GRPO's categorical simulation (arXiv:2602.06717, appendix J).

A softmax over 128,000 actions, 10,000 of them correct (reward 1, the others -1); logits 5 for one correct action, 3 for the
other correct ones, 0 for the rest. Each of 1,000 steps samples N actions and climbs (1/N) sum_j A_j p_j / p_j(old), the gradient
of log p, by Adam with step .01; A_j = (1 - successes / N)^gamma (R_j - mean). `retained`: 1 - sum max(0, p0 - p) / sum p0 over
the correct actions.

Exact in distribution at a cost of what was sampled: sum_j A_j = 0, so the gradient of an action that was not sampled is exactly 0,
and one that never was keeps its first logit. Those of a kind stand side by side as a count; which of them a draw falls on does
not matter, only how many different ones do.

How the step of .01 is taken was not readable. Plain ascent at that rate moves no mass by .001; Adam on p_j itself, without
the old p_j, loses the rare actions at every N. By Adam on the ratio the published picture appears, so it is the one drawn here.
"""

import numpy as np

from maxpo_bench.machine import workers
from maxpo_bench.training.streams import generator

TITLE = "Rare correct answers against the group size"
NUM_ACTIONS, NUM_CORRECT = 128_000, 10_000
ANCHOR, LOGITS = 5.0, (3.0, 0.0)  # of one correct action; of the other correct and of the wrong ones
SIZES = tuple(2**j for j in range(1, 18))
GAMMAS = (0, 1)
NUM_SEEDS, STEPS, LR = 4, 1000, 0.01


class Policy:
    """The actions sampled so far, in the order of their first sample, with Adam's state; of the others only how many there are."""

    def __init__(self):
        self.logits, self.first, self.second, self.correct = (np.zeros(NUM_ACTIONS, np.float32) for _ in range(4))
        self.logits[0], self.correct[0] = ANCHOR, 1
        self.num, self.step = 1, 0
        self.left = [NUM_CORRECT - 1, NUM_ACTIONS - NUM_CORRECT]

    def masses(self):
        """exp(logit - 5) of each sampled action, then of all others that are correct, of all others that are wrong."""
        rest = [count * np.exp(logit - ANCHOR) for count, logit in zip(self.left, LOGITS, strict=True)]
        return np.concatenate([np.exp(self.logits[: self.num] - np.float32(ANCHOR)), rest])

    def sample(self, n, noise):
        """How often each action is drawn among n: [num]; those drawn for the first time join the sampled ones."""
        edges = self.masses().cumsum()
        uniforms = noise.standard_exponential(n + 1).cumsum()  # n sorted uniforms, by their spacings
        places = np.searchsorted(edges, uniforms[:-1] * (edges[-1] / uniforms[-1]), side="right")
        counts = np.bincount(np.minimum(places, self.num + 1), minlength=self.num + 2)
        found = [counts[: self.num]]
        for kind, number in enumerate(counts[self.num :]):
            if number:
                fresh = np.unique(noise.integers(self.left[kind], size=number), return_counts=True)[1]
                own = slice(self.num, self.num + len(fresh))
                self.logits[own], self.correct[own] = LOGITS[kind], kind == 0
                self.num, self.left[kind] = own.stop, self.left[kind] - len(fresh)
                found.append(fresh)
        return np.concatenate(found)

    def climb(self, counts, n, gamma):
        """One step of Adam up (1/n) sum_j A_j log p_j, with counts of the sampled actions."""
        correct, first, second = self.correct[: self.num], self.first[: self.num], self.second[: self.num]
        counts = counts.astype(np.float32)
        share = float(counts @ correct) / n  # R_j - mean is 2 (1 - share) or -2 share
        gradient = counts * (correct - np.float32(share)) * np.float32(2 * (1 - share) ** gamma / n)
        self.step += 1
        first *= np.float32(0.9)
        first += np.float32(0.1) * gradient
        second *= np.float32(0.999)
        second += np.float32(0.001) * gradient * gradient
        scale, root = LR / (1 - 0.9**self.step), np.sqrt(1 - 0.999**self.step)
        self.logits[: self.num] += np.float32(scale * root) * first / (np.sqrt(second) + np.float32(1e-8 * root))

    def correct_mass(self):
        """(Q_pos, part of the first correct mass that no correct action has lost, probability of the anchor)."""
        masses = self.masses()
        kept = self.correct[: self.num] > 0
        now = masses[:-2][kept] / masses.sum()
        start = np.full(len(now), np.exp(LOGITS[0]))
        start[0] = np.exp(ANCHOR)
        whole = start[0] + (NUM_CORRECT - 1) * np.exp(LOGITS[0])
        total = whole + (NUM_ACTIONS - NUM_CORRECT) * np.exp(LOGITS[1])
        lost = np.maximum(start / total - now, 0).sum()
        if self.left[0]:
            lost += self.left[0] * max(0.0, np.exp(LOGITS[0]) / total - masses[-2] / masses.sum() / self.left[0])
        return (masses[:-2][kept].sum() + masses[-2]) / masses.sum(), 1 - lost * total / whole, now[0]


def train(n, gamma, noise):
    """Policy.correct_mass() after STEPS steps on groups of n."""
    policy = Policy()
    for _ in range(STEPS):
        policy.climb(policy.sample(n, noise), n, gamma)
    return policy.correct_mass()


def run():
    """Rows group_size, gamma, correct_mass, retained, anchor: means over seeds after training, each with low and high."""
    import pandas as pd

    jobs = [(n, gamma) for n in reversed(SIZES) for gamma in GAMMAS]  # the longest first
    found = workers.run(jobs, _seeds, "study rare_correct", NUM_SEEDS)
    rows = []
    for (n, gamma), values in sorted(zip(jobs, found, strict=True), key=lambda part: part[0]):
        values = np.array(values)  # [seeds, 3]
        margin = 3.182 * values.std(0, ddof=1) / np.sqrt(NUM_SEEDS)  # Student's t, 3 degrees of freedom
        row = {"group_size": n, "gamma": gamma}
        for column, mean, half in zip(("correct_mass", "retained", "anchor"), values.mean(0), margin, strict=True):
            row |= {column: mean, f"{column}_low": mean - half, f"{column}_high": mean + half}
        rows.append(row | {"num_seeds": NUM_SEEDS, "steps": STEPS})
    return pd.DataFrame(rows)


def _seeds(job, tick):
    """The three masses of every seed; the same noise for both gammas."""
    n, gamma = job
    found = []
    for seed in range(NUM_SEEDS):
        found.append(train(n, gamma, generator("rare_correct", seed, f"groups of {n}")))
        tick(seed + 1)
    return found


def caption(data):
    start = Policy().correct_mass()
    plain, focal = (data[data["gamma"] == gamma].set_index("group_size") for gamma in GAMMAS)
    worst = plain["retained"].idxmin()
    small, large = plain.index.min(), plain.index.max()
    middle = plain.index[plain["retained"] < 0.5]
    better = int((focal["retained_low"] > plain["retained_high"]).loc[middle].sum())

    def mass(column, n):
        return f"{plain[column].loc[n]:.3f}"

    return (
        f"Means over M = {int(data['num_seeds'].iloc[0])} runs with seeds of their own, 95% intervals, "
        f"{int(data['steps'].iloc[0]):,} steps at the published size: {NUM_ACTIONS:,} actions, {NUM_CORRECT:,} correct. Start: "
        f"correct mass {start[0]:.2f}, the likeliest correct action {start[2]:.1e}. N = {small} learns little "
        f"({mass('correct_mass', small)}) and keeps what it has (retained {mass('retained', small)}); N = {worst} reaches "
        f"{mass('correct_mass', worst)} and retains {mass('retained', worst)}; N = {large} reaches "
        f"{mass('correct_mass', large)} and retains {mass('retained', large)}. gamma = 1 retains more, the intervals apart, at "
        f"{better} of the {len(middle)} sizes that retain less than half. The picture of appendix J of arXiv:2602.06717."
    )


def figure(data):
    """Correct mass (left) and retained mass (right) after training against N, a line per gamma."""
    from maxpo_bench.studies import style

    fig, axes = style.new_figure("full", 2.7, cols=2, sharey=True)
    columns = (("correct_mass", "mass of correct actions [probability]"), ("retained", "retained correct mass [share]"))
    for ax, (column, label) in zip(axes, columns, strict=True):
        for (gamma, rows), colour in zip(data.groupby("gamma"), ("#0072B2", "#D55E00"), strict=True):
            ax.plot(rows["group_size"], rows[column], "o-", markersize=2.5, color=colour, label=f"gamma {gamma}")
            ax.fill_between(rows["group_size"], rows[f"{column}_low"], rows[f"{column}_high"], color=colour, alpha=0.2)
        ax.set_xscale("log", base=2)
        ax.set(ylabel=label, ylim=(0, 1.03))
    axes[0].axhline(Policy().correct_mass()[0], color=style.GREY, linewidth=0.7)
    axes[0].legend()
    fig.supxlabel("group size N [samples]", fontsize=8)
    return fig
