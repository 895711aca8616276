"""The gradient estimator itself: bias, variance and signal-to-noise ratio of every estimator, on the same samples.

M groups are drawn from a policy, in batches of the size training uses, and the score of each sample (the gradient of
its log-probability by all parameters) is computed once. An estimator's gradient of a group is linear in its advantages,
g = sum_i w_i S_i with w = A/N, so all that is needed of it comes from the Gram matrix of the group's scores and from
products of the scores with a few vectors; the gradients themselves are never formed, and only some batches ever held:

    norms_g = ||g_g||^2     near_g = <g_g, mean of the other gradients held>     total = sum_g g_g
    ||E g||^2    = (||total||^2 - sum norms) / (M (M - 1))        unbiased: inner products of different groups only
    tr Cov g     = mean norms - ||E g||^2

The groups of a batch are not independent for an estimator that looks across them (fitted_blend). Its numbers use inner
products of different batches only, with the B batches as the units, so they are unbiased too; its intervals are wider.
tr Cov is that of one group's gradient; what the groups of a batch share through the fit is in the study `regimes`,
which measures whole batches. The row baseline_blend is at its default weight w = 0.5, as in training; `regimes` has it at
the bootstrap weight (N-K)/(N-1).
"""

import math

import numpy as np
import torch

from maxpo_bench import files, problems, workers
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names, shared_sha256
from maxpo_bench.streams import generator
from maxpo_bench.task_file import load, root

CHECKPOINTS = ("initial", "middle", "final")
NUM_RESAMPLES = 2000
WHOLE_SCORES = "fitted_blend_scores"  # fitted_blend given whole scores instead of their norms: measured, not trained
HELD_NUMBERS = 2**25                  # scores, or their Gram matrices, held at once, as numbers: bounds the memory
MIN_INFORMATIVE = 10                  # groups with unequal rewards; fewer: no interval, said in words
MIN_BATCHES = 3                       # of an estimator that looks across groups; fewer: no interval, said in words


def run(task_name, out_csv, results=None):
    """The variance stage of a task: measures the checkpoints of the `variance_policy` cell and writes out_csv.

    One row per checkpoint (initial, middle, final of seed 0) and estimator of the registry, see `measure`, with the
    sha256 of the task, of the estimator's file and of the files all estimators share, as in metrics.json. InputError when
    a checkpoint is missing.
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
        shared = {f"{file.removesuffix('.py')}_sha256": digest for file, digest in shared_sha256().items()}
        return [{"checkpoint": when, **row, "task_sha256": task.sha256,
                 "source_sha256": files.sha256(_estimator(row["estimator"]).path), **shared} for row in rows]

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
    """Running sums and inner products of the gradients of E estimators, less a reference each where that is asked.

    leader: place of the estimator whose inner products with all others are kept, or None. across: places of those that
    look at the other groups of a batch. references: [E, D] or None.
    """

    def __init__(self, leader=None, across=(), references=None):
        self.leader, self.across, self.references = leader, list(across), references
        self.kept, self.shifts, self.batches = [], [], []
        self.total = self.crossed = 0.0

    def add(self, weights, scores):
        """weights: [B, G, E, N] float64, the advantages over N; scores: [B, G, N, D]. At least 2 groups."""
        cast = weights.to(scores.dtype)
        totals = cast.transpose(1, 2).flatten(2) @ scores.flatten(1, 2)  # [B, E, D], of each batch
        total = totals.sum(0)
        self.total = self.total + total.double()
        # Of the leader too: what is said of the others is said relative to it.
        watched = self.across + [self.leader] * bool(self.across and self.leader is not None)
        self.batches.append(totals[:, watched].double() / weights.shape[1])
        weights, cast, scores = weights.flatten(0, 1), cast.flatten(0, 1), scores.flatten(0, 1)
        mates = len(weights) - 1

        def product(vectors):
            """<g_g, vector of the estimator>, [G, E]."""
            by_sample = (vectors.to(scores) @ scores.flatten(0, 1).T).unflatten(1, scores.shape[:2])  # [E, G, N]
            return torch.einsum("gen,egn->ge", weights, by_sample.double())

        with_sample = weights @ (scores @ scores.mT).double()  # <g_g, S_i>, [G, E, N]
        norms = (with_sample * weights).sum(-1)
        if self.leader is not None:
            self.crossed = self.crossed + (with_sample * weights[:, [self.leader]]).sum((0, -1))
        pairs = weights[0:-1:2] @ (scores[0:-1:2] @ scores[1::2].mT).double()  # groups in disjoint pairs
        pairs = (pairs * weights[1::2]).sum(-1)
        self.kept.append((norms, (product(total) - norms) / mates, pairs))
        if self.references is not None:
            along = product(self.references)
            others = (along.sum(0) - along) / mates
            self.shifts.append((2 * along, along + others, along[0:-1:2] + along[1::2]))

    def close(self):
        self.num_blocks = len(self.kept)
        self.kept = [torch.cat(x) for x in zip(*self.kept, strict=True)]
        self.shifts = [torch.cat(x) for x in zip(*self.shifts, strict=True)]
        self.norms, self.near, _ = self.kept
        self.num_groups = len(self.norms)
        self.batches = torch.cat(self.batches)
        return self

    def mean_squared(self, shifted=False):
        """Unbiased ||E g||^2 of each estimator, or ||E g - its reference||^2; and half its 95% interval: [E] tensors.

        The error is that of a U-statistic, 4/M zeta_1 + 2/M^2 zeta_2: zeta_2 the variance of <g, g'> over disjoint
        pairs, zeta_1 that of <g, E g>, the variance of `near` less what zeta_2 explains of it.
        """
        m, mates = self.num_groups, self.num_groups / self.num_blocks - 1
        total, (norms, near, pairs), batches = self.total, self.kept, self.batches[:, : len(self.across)]
        if shifted:
            size, total = self.references.square().sum(-1), total - m * self.references
            norms, near, pairs = (x - shift + size for x, shift in zip(self.kept, self.shifts, strict=True))
            batches = batches - self.references[self.across]
        value = (total.square().sum(-1) - norms.sum(0)) / (m * (m - 1))
        zeta_2 = pairs.var(0)
        zeta_1 = (near.var(0) - zeta_2 / mates).clamp(min=0)
        margin = 1.96 * (4 / m * zeta_1 + 2 / (m * (m - 1)) * zeta_2).sqrt()
        if self.across:
            near = between(batches, batches)
            value[self.across] = near.mean(0)
            margin[self.across] = t_quantile(len(near)) * jackknife_error(near)
        return value, margin

    def snr_margin(self, square, margin, trace):
        """Half the 95% interval of ||E g||^2 / tr Cov of each estimator, [E]. margin: that of ||E g||^2.

        The trace of many independent groups counts as known. Those that look across groups have few batches: theirs is the
        jackknife of the ratio, leaving out one batch at a time.
        """
        margin, num = margin / trace, len(self.batches)
        if self.across and num > 2:
            batches = self.batches[:, : len(self.across)]
            near = between(batches, batches)  # [B, X]
            norms = self.norms[:, self.across].unflatten(0, (num, -1)).mean(1)
            square = (num * near.mean(0) - 2 * near) / (num - 2)  # without one batch
            trace = (norms.sum(0) - norms) / (num - 1) - square
            ratio = square / trace
            error = ((num - 1) / num * (ratio - ratio.mean(0)).square().sum(0)).sqrt()
            margin[self.across] = t_quantile(num) * error
        return margin

    def product_with_leader(self):
        """Unbiased <E g, E g of the leader> of each estimator, [E]."""
        m = self.num_groups
        value = (self.total @ self.total[self.leader] - self.crossed) / (m * (m - 1))
        if self.across:
            value[self.across] = between(self.batches[:, :-1], self.batches[:, -1:]).mean(0)
        return value

    def ratios(self, square, trace, noise):
        """tr Cov over the leader's, [E], and 95% intervals [E][2].

        Groups are resampled for all estimators at once; those that look across groups have the interval of the
        logarithm's linear form over batches.
        """
        spread = self.norms - 2 * self.near + square  # ||g_g - E g||^2 without bias
        counts = noise.multinomial(self.num_groups, np.full(self.num_groups, 1 / self.num_groups), size=NUM_RESAMPLES)
        resampled = counts @ spread.numpy()  # [resamples, E]
        resampled = resampled / np.maximum(resampled[:, [self.leader]], 1e-300)
        ratio = trace / trace[self.leader]
        interval = torch.as_tensor(np.quantile(resampled, [0.025, 0.975], axis=0)).T.contiguous()  # [E, 2]
        if self.across:
            near = between(self.batches, self.batches)
            norms = self.norms[:, [*self.across, self.leader]].unflatten(0, (len(near), -1)).mean(1)
            parts = (norms - 2 * near) / trace[[*self.across, self.leader]]
            error = (parts[:, :-1] - parts[:, -1:]).std(0) / math.sqrt(len(near))
            margin = t_quantile(len(near)) * error
            interval[self.across] = ratio[self.across, None] * torch.stack([-margin, margin], -1).exp()
        return ratio.tolist(), interval.tolist()


def between(means, others):
    """<mean of a batch, mean of all other batches>: [B, X, D] each (or X = 1) -> [B, X]; nan for a single batch."""
    mates = len(means) - 1 or math.nan
    return ((means * others.sum(0)).sum(-1) - (means * others).sum(-1)) / mates


def jackknife_error(near):
    """Standard error of the mean inner product of two batches, leaving out one batch at a time: [B, X] -> [X].

    Never too small on average; up to sqrt(3) too large where there is no signal. nan below 3 batches.
    """
    num = len(near)
    scale = 4 * (num - 1) / (num * (num - 2) ** 2) if num > 2 else math.nan
    return (scale * (near - near.mean(0)).square().sum(0)).sqrt()


def t_quantile(num_batches):
    """Half the width of a 95% interval in standard errors, from so many batches."""
    from scipy.stats import t

    return float(t.ppf(0.975, num_batches - 1))


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
    across = [e for e, name in enumerate(chosen) if _estimator(name).across_groups]
    sums, rewards_seen = Sums(leader, across, references), []
    for rewards, norms, scores in _samples(problem, policy, num_batches, groups, n, f"variance {purpose}"):
        rewards_seen.append(rewards.flatten(0, 1))
        advantages = _advantages(chosen, reasons, rewards, k, norms, scores)
        sums.add(advantages.permute(1, 2, 0, 3) / n, scores)
    sums.close()
    seen = torch.cat(rewards_seen)  # [M, N]
    about = {"k": k, "group_size": n, "num_groups": len(seen), "num_samples": seen.numel(),
             "num_informative": int((seen.amax(-1) > seen.amin(-1)).sum()), "num_parameters": scores.shape[-1],
             "mean_reward": seen.mean().item()}
    noise = generator(task.name, 0, f"variance {purpose} bootstrap")
    rows = _rows(chosen, reasons, about, sums, noise)
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
        if number == num_batches - 1 or (len(held) + 1) * groups * n * max(n, scores.shape[-1]) > HELD_NUMBERS:
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


def _references(problem, policy, chosen, k, n):
    """What E g should be for each estimator, [E, D] float64; None where the problem has no exact gradient."""
    weights = {"J_1": {1: 1.0}, "J_K": {k: 1.0}, "sum J_K/K": {j: 1 / j for j in range(1, n)}}
    gradients, found = {}, []
    for name in chosen:
        estimator = _estimator(name)
        scale = estimator.scale(n, k)
        objective = "J_K" if scale is None or estimator.objective not in weights else estimator.objective
        if objective not in gradients:
            gradients[objective] = problem.exact_gradient(policy, weights[objective])
            if gradients[objective] is None:
                return None
        found.append(gradients[objective][0].detach().double() * (1.0 if scale is None else scale))
    return torch.stack(found)


def _rows(chosen, reasons, about, sums, noise):
    """{estimator: row} of what `measure` documents."""
    square, margin = sums.mean_squared()
    trace = sums.norms.mean(0) - square
    snr_margin = sums.snr_margin(square, margin, trace)
    leader, references, k = sums.leader, sums.references, about["k"]
    if leader is not None:
        products, (ratios, intervals) = sums.product_with_leader(), sums.ratios(square, trace, noise)
    if references is not None:
        bias, bias_margin = sums.mean_squared(shifted=True)
    rows = {name: {"estimator": name, **about, "objective": get(name).objective}
            for name in reasons if name not in chosen}
    for e, name in enumerate(chosen):
        estimator = _estimator(name)
        row = rows[name] = {"estimator": name, **about, "objective": estimator.objective}
        if name in reasons:
            continue
        reason = _no_interval(about["num_informative"], len(sums.norms), len(sums.batches) if e in sums.across else None)
        variance, size = trace[e].item(), square[e].item()
        row["trace_cov"] = variance
        if variance > 0:
            row["snr"] = size / variance
            if not reason:
                row["snr_low"], row["snr_high"] = (row["snr"] + sign * snr_margin[e].item() for sign in (-1, 1))
        if leader is not None and size > 0 and square[leader] > 0:
            row["cosine_to_maxpo"] = _cosine(products[e], square[e] * square[leader])
        if references is not None:
            target = references[leader if leader is not None else e]  # grad J_k
            if size > 0 and target.norm() > 0:
                row["cosine"] = _cosine(sums.total[e] / sums.num_groups @ target, square[e] * target.square().sum())
            length = references[e].norm().item()
            if length > 0 and not reason:
                row |= {column: math.sqrt(max(0.0, (bias[e] + shift * bias_margin[e]).item())) / length
                        for column, shift in (("bias", 0), ("bias_low", -1), ("bias_high", 1))}
        same = estimator.unbiased and (estimator.objective == "J_K" or k == 1 and estimator.objective == "J_1")
        if same and leader is not None and trace[leader] > 0:
            row["ratio_to_maxpo"] = ratios[e]
            if not reason:
                row["ratio_low"], row["ratio_high"] = intervals[e]
        if reason:
            row["reason"] = reason
    for name, reason in reasons.items():
        rows[name]["reason"] = reason
    return rows


def _no_interval(num_informative, num_groups, num_batches):
    """Why there is no interval, or None. num_batches: None for an estimator whose groups are independent."""
    if num_informative < MIN_INFORMATIVE:
        return f"rewards differ in {num_informative} of {num_groups} groups: no interval"
    if num_batches is not None and num_batches < MIN_BATCHES:
        return f"batches: {num_batches}, and its groups are independent between batches only: no interval"
    return None


def _cosine(product, squares):
    return min(1.0, max(-1.0, (product / squares.sqrt()).item()))
