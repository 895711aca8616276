"""The gradient estimator itself: bias, variance and signal-to-noise ratio of every estimator, on the same samples.

M groups are drawn from a policy, in batches of the size training uses, and the score of each sample (the gradient of
its log-probability by all parameters) is computed once. Every estimator's gradient is linear in its advantages, so all
of them are one matrix product away. Only some batches are ever held; what is kept are sums and inner products:

    norms_g = ||g_g||^2     near_g = <g_g, mean of the batch's other gradients>     total = sum_g g_g
    ||E g||^2    = (||total||^2 - sum norms) / (M (M - 1))        unbiased: inner products of different groups only
    tr Cov g     = mean norms - ||E g||^2

For estimators that look at the other groups of a batch (fitted_blend) tr Cov is that of one group's gradient; what the
groups of a batch share through the fit is in the study `regimes`, which measures whole batches.
"""

import math

import numpy as np
import torch

from maxpo_bench import files, problems, workers
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names
from maxpo_bench.streams import generator
from maxpo_bench.task_file import load, root

CHECKPOINTS = ("initial", "middle", "final")
NUM_RESAMPLES = 2000
WHOLE_SCORES = "fitted_blend_scores"  # fitted_blend given whole scores instead of their norms: measured, not trained
HELD_NUMBERS = 2**25                  # scores, and gradients, held at once, as numbers: bounds the memory
MIN_INFORMATIVE = 10                  # groups with unequal rewards; fewer: no interval, said in words


def run(task_name, out_csv, results=None):
    """The variance stage of a task: measures the checkpoints of the `variance_policy` cell and writes out_csv.

    One row per checkpoint (initial, middle, final of seed 0) and estimator of the registry, see `measure`.
    InputError when a checkpoint is missing.
    """
    task = load(task_name)
    results = results or root() / "results"
    folder = results / "runs" / task.name / _variance_policy() / "checkpoints"
    paths = {when: folder / f"{when}-seed0.safetensors" for when in CHECKPOINTS}
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"{path} is missing; run `maxpo-bench train {task.name} {_variance_policy()}` first")
    num_batches = math.ceil(task.variance["groups"] / task.groups)

    def work(when, tick):
        problem = problems.build(task, (0,), results / "base" / task.name)
        # The weights come from the checkpoints: a language model need not be warm-started first.
        policy = problem.untrained_policy() if hasattr(problem, "untrained_policy") else problem.initial_policy()
        problem.load_states(policy, [files.load_tensors(paths[when])[0]])
        rows = measure(problem, policy, task.k, num_batches, purpose=when)
        tick(1)
        return [{"checkpoint": when, **row} for row in rows]

    parts = workers.run(list(CHECKPOINTS), work, f"variance {task.name}", 1)
    files.write_csv(out_csv, [_rounded(row) for part in parts for row in part])


def _variance_policy():
    """The estimator whose checkpoints are measured: variance_policy of params.yaml; maxpo without that file."""
    import yaml

    path = root() / "params.yaml"
    return yaml.safe_load(path.read_bytes())["variance_policy"] if path.is_file() else "maxpo"


def _rounded(row):
    """Floats to 10 significant digits; infinite and missing values empty."""
    return {key: (float(f"{x:.10g}") if math.isfinite(x) else "") if isinstance(x, float) else x
            for key, x in row.items()}


class Sums:
    """Running sums over groups of gradients [G, E, D] of E estimators: for ||E g||^2, tr Cov and their errors."""

    def __init__(self, leader=None):
        self.leader = leader  # place of the estimator whose inner products with all others are kept
        self.norms, self.near, self.pairs = [], [], []
        self.total = self.crossed = 0.0
        self.num_blocks = 0

    def add(self, gradients):
        """gradients: [G, E, D], at least 2 groups."""
        total = gradients.sum(0)
        norms = gradients.square().sum(-1).double()
        self.norms.append(norms)  # [G, E]
        self.near.append((torch.einsum("ged,ed->ge", gradients, total).double() - norms) / (len(norms) - 1))
        self.pairs.append((gradients[0:-1:2] * gradients[1::2]).sum(-1).double())  # groups in disjoint pairs
        self.total = self.total + total.double()  # [E, D]
        if self.leader is not None:
            self.crossed = self.crossed + torch.einsum("ged,gd->e", gradients, gradients[:, self.leader]).double()
        self.num_blocks += 1

    def close(self):
        self.norms, self.near, self.pairs = (torch.cat(x) for x in (self.norms, self.near, self.pairs))
        self.num_groups = len(self.norms)
        return self

    def mean_squared(self):
        """Unbiased ||E g||^2 of each estimator, and its standard error: two [E] tensors.

        The error is that of a U-statistic, 4/M zeta_1 + 2/M^2 zeta_2: zeta_2 the variance of <g, g'> over disjoint
        pairs, zeta_1 that of <g, E g>, the variance of `near` less what zeta_2 explains of it.
        """
        m, mates = self.num_groups, self.num_groups / self.num_blocks - 1
        value = (self.total.square().sum(-1) - self.norms.sum(0)) / (m * (m - 1))
        zeta_2 = self.pairs.var(0)
        zeta_1 = (self.near.var(0) - zeta_2 / mates).clamp(min=0)
        return value, (4 / m * zeta_1 + 2 / (m * (m - 1)) * zeta_2).sqrt()

    def product_with_leader(self):
        """Unbiased <E g, E g of the leader> of each estimator, [E]."""
        m = self.num_groups
        return (self.total @ self.total[self.leader] - self.crossed) / (m * (m - 1))

    def spread(self):
        """What each group contributes to tr Cov, [M, E]: its squared norm less its inner product with its block."""
        return self.norms - self.near


@torch.no_grad()
def measure(problem, policy, k, num_batches, purpose="policy", estimators=None):
    """Bias, variance and SNR of every estimator at one policy (of the problem's first seed). Returns row dicts.

    num_batches batches of task.groups groups (at least 2) of task.group_size samples. Columns:
      trace_cov        trace of the covariance of one group's gradient, on the estimator's own scale
      snr, low, high   ||E g||^2 / tr Cov of one group, unbiased numerator, 95% interval; no scale changes it
      cosine           of E g with the exact gradient of J_k; empty where there is none
      cosine_to_maxpo  of E g with maxpo's, from inner products of different groups
      bias, low, high  ||E g - c grad J|| / ||c grad J||, J and c as the estimator declares, J_k where it declares none;
                       0 inside the interval: no bias was found
      ratio_to_maxpo, ratio_low, ratio_high   tr Cov over maxpo's with a 95% bootstrap interval over groups, for
                       estimators with the same E[g]; empty for the others
      reason           why an estimator has no numbers, or no intervals, here
    """
    task = problem.task
    groups, n = max(task.groups, 2), task.group_size
    chosen, reasons = _valid(estimators or names(), k, n)
    leader = chosen.index("maxpo") if "maxpo" in chosen else None
    references = _references(problem, policy, chosen, k, n)  # [E, D] or None
    sums, shifted = Sums(leader), None if references is None else Sums()
    rewards_seen = []
    for rewards, norms, scores in _samples(problem, policy, num_batches, groups, n, f"variance {purpose}"):
        rewards_seen.append(rewards.flatten(0, 1))
        advantages = _advantages(chosen, reasons, rewards, k, norms, scores)
        for gradients in _gradients(advantages.flatten(1, 2), scores.flatten(0, 1)):
            sums.add(gradients)
            if shifted is not None:
                shifted.add(gradients - references.to(gradients))
    for kept in (sums, shifted):
        if kept is not None:
            kept.close()
    seen = torch.cat(rewards_seen)  # [M, N]
    about = {"k": k, "group_size": n, "num_groups": len(seen), "num_samples": seen.numel(),
             "num_informative": int((seen.amax(-1) > seen.amin(-1)).sum()), "num_parameters": scores.shape[-1],
             "mean_reward": seen.mean().item()}
    noise = generator(task.name, 0, f"variance {purpose} bootstrap")
    rows = _rows(chosen, reasons, about, sums, shifted, references, noise)
    return [rows[name] for name in sorted(rows)]


def _samples(problem, policy, num_batches, groups, n, purpose):
    """(rewards, score norms or None, scores) as [B, G, N], [B, G, N], [B, G, N, D], B batches at a time."""
    held = []
    for number in range(num_batches):
        batch = problem.sample(policy, number, purpose=purpose, groups=groups, group_size=n)
        norms = problem.score_norms(batch)
        with torch.enable_grad():
            scores = problem.scores(policy, batch)[0].detach().view(groups, n, -1)
        held.append((problem.reward(batch)[0], None if norms is None else norms[0], scores))
        if number == num_batches - 1 or (len(held) + 1) * scores.numel() > HELD_NUMBERS:
            columns, held = list(zip(*held, strict=True)), []
            yield tuple(None if column[0] is None else _stack(column) for column in columns)


def _stack(tensors):
    """torch.stack that does not copy a single tensor: the scores of a language model are large."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


def _valid(estimators, k, n):
    """(names that allow this k and N, {other name: reason}); fitted_blend brings its whole-scores form along."""
    chosen, reasons = [], {}
    for name in estimators:
        legal = get(name).valid_k(n)
        if k in legal:
            chosen += [name, WHOLE_SCORES] if name == "fitted_blend" else [name]
        else:
            reasons[name] = f"k = {k} is not in {legal[0]}..{legal[-1]}" if len(legal) else f"no k is valid for N = {n}"
    return chosen, reasons


def _estimator(name):
    return get("fitted_blend" if name == WHOLE_SCORES else name)


def _advantages(chosen, reasons, rewards, k, norms, scores):
    """[E, B, G, N] float64; zeros, and a reason, for an estimator these rewards are not for."""
    found = []
    for name in chosen:
        try:
            options = {"scores": scores} if name == WHOLE_SCORES else {}
            found.append(_estimator(name)(rewards.double(), k=k, score_norms=norms, **options))
        except InputError as error:
            reasons.setdefault(name, str(error))
            found.append(torch.zeros_like(rewards))
    return torch.stack(found)


def _gradients(advantages, scores):
    """g = (1/N) sum_i A_i S_i of every group and estimator, in blocks of groups that fit in memory: [G', E, D]."""
    num_estimators, num_groups, n = advantages.shape
    weights = (advantages / n).transpose(0, 1).to(scores.dtype)  # [G, E, N]
    block = max(2, HELD_NUMBERS // (num_estimators * scores.shape[-1]))
    starts = list(range(0, num_groups, block))
    if num_groups - starts[-1] < 2 and len(starts) > 1:
        starts.pop()  # no block of one group: it would have no neighbour
    for start, stop in zip(starts, [*starts[1:], num_groups], strict=True):
        yield weights[start:stop] @ scores[start:stop]


def _references(problem, policy, chosen, k, n):
    """What E g should be for each estimator, [E, D] float64; None where the problem has no exact gradient."""
    target = problem.exact_gradient(policy, k)
    if target is None:
        return None
    found, gradients = [], {k: target[0].detach().double()}

    def gradient(j):
        if j not in gradients:
            gradients[j] = problem.exact_gradient(policy, j)[0].detach().double()
        return gradients[j]

    for name in chosen:
        estimator = _estimator(name)
        scale = estimator.scale(n, k)
        if scale is None or estimator.objective not in ("J_1", "sum J_K/K"):
            found.append(gradient(k) * (1.0 if scale is None else scale))
        elif estimator.objective == "J_1":
            found.append(gradient(1) * scale)
        else:
            found.append(sum(gradient(j) / j for j in range(1, n)) * scale)
    return torch.stack(found)


def _rows(chosen, reasons, about, sums, shifted, references, noise):
    """{estimator: row} of what `measure` documents."""
    square, error = sums.mean_squared()
    trace = sums.norms.mean(0) - square
    leader, k, enough = sums.leader, about["k"], about["num_informative"] >= MIN_INFORMATIVE
    ratios, intervals = _ratios(sums.spread(), trace, leader, noise) if leader is not None else ([], [])
    rows = {name: {"estimator": name, **about, "objective": get(name).objective}
            for name in reasons if name not in chosen}
    for e, name in enumerate(chosen):
        estimator = _estimator(name)
        row = rows[name] = {"estimator": name, **about, "objective": estimator.objective}
        if name in reasons:
            continue
        variance, size = trace[e].item(), square[e].item()
        row["trace_cov"] = variance
        if variance > 0:
            row["snr"] = size / variance
            if enough:
                margin = 1.96 * error[e].item()
                row["snr_low"], row["snr_high"] = (size - margin) / variance, (size + margin) / variance
        if leader is not None and size > 0 and square[leader] > 0:
            row["cosine_to_maxpo"] = _cosine(sums.product_with_leader()[e], square[e] * square[leader])
        if references is not None:
            target = references[leader if leader is not None else e]  # grad J_k
            if size > 0 and target.norm() > 0:
                row["cosine"] = _cosine(sums.total[e] / sums.num_groups @ target, square[e] * target.square().sum())
            bias, spread = (x[e].item() for x in shifted.mean_squared())
            length = references[e].norm().item()
            if length > 0 and enough:
                row |= {column: math.sqrt(max(0.0, bias + shift * 1.96 * spread)) / length
                        for column, shift in (("bias", 0), ("bias_low", -1), ("bias_high", 1))}
        same = estimator.unbiased and (estimator.objective == "J_K" or k == 1 and estimator.objective == "J_1")
        if same and leader is not None and trace[leader] > 0:
            row["ratio_to_maxpo"] = ratios[e]
            if enough:
                row["ratio_low"], row["ratio_high"] = intervals[e]
        if not enough:
            row["reason"] = f"rewards differ in {about['num_informative']} of {about['num_groups']} groups: no interval"
    for name, reason in reasons.items():
        rows[name]["reason"] = reason
    return rows


def _cosine(product, squares):
    return min(1.0, max(-1.0, (product / squares.sqrt()).item()))


def _ratios(spread, trace, leader, noise):
    """tr Cov over the leader's, [E], and 95% intervals [E][2]: groups are resampled for all estimators at once."""
    m = len(spread)
    counts = noise.multinomial(m, np.full(m, 1 / m), size=NUM_RESAMPLES)  # [B, M]
    resampled = counts @ spread.numpy()  # [B, E]
    resampled = resampled / np.maximum(resampled[:, [leader]], 1e-300)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return (trace / trace[leader]).tolist(), list(zip(low.tolist(), high.tolist(), strict=True))
