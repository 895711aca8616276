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

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names
from maxpo_bench.estimators.contract import OBJECTIVES, SIDE
from maxpo_bench.machine import numerics
from maxpo_bench.measure.gradient_sums import Sums
from maxpo_bench.training.streams import generator

HELD_NUMBERS = 2**25  # scores, or their Gram matrices, held at once, as numbers: bounds the memory
MOST_NUMBERS = 2**29  # scores of one batch, as numbers; more: by parts of the parameters, see _gram_factor
MIN_INFORMATIVE = 10  # groups with unequal rewards; fewer: no interval, said in words
MIN_BATCHES = 3  # of an estimator that looks across groups; fewer: no interval, said in words


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
    across = [e for e, name in enumerate(chosen) if get(name).across_groups]
    sums, rewards_seen = Sums(leader, across, references), []
    for rewards, side, scores in _samples(problem, policy, num_batches, groups, n, f"variance {purpose}"):
        rewards_seen.append(rewards.flatten(0, 1))
        advantages = _advantages(chosen, reasons, rewards, k, side)
        sums.add(advantages.permute(1, 2, 0, 3) / n, scores)
    sums.close()
    seen = torch.cat(rewards_seen)  # [M, N]
    num_parameters = _num_trained(policy) if problem.row_wise else scores.shape[-1]
    about = {
        "k": k,
        "group_size": n,
        "num_groups": len(seen),
        "num_samples": seen.numel(),
        "num_informative": int((seen.amax(-1) > seen.amin(-1)).sum()),
        "num_parameters": num_parameters,
        "mean_reward": seen.mean().item(),
    }
    noise = generator(task.name, 0, f"variance {purpose} bootstrap")
    rows = _rows(chosen, reasons, about, sums, noise)
    return [rows[name] for name in sorted(rows)]


def _samples(problem, policy, num_batches, groups, n, purpose):
    """(rewards [B, G, N], {side information: [B, G, N] or None}, scores [B, G, N, D]), B batches at a time."""
    held = []
    for number, (batch, scores) in enumerate(_scored(problem, policy, num_batches, groups, n, purpose), start=1):
        scores = scores.view(groups, n, -1)
        side = [getattr(problem, name)(batch) for name in SIDE]
        held.append((problem.reward(batch)[0], scores, *(None if values is None else values[0] for values in side)))
        if number == num_batches or (len(held) + 1) * groups * n * max(n, scores.shape[-1]) > HELD_NUMBERS:
            columns, held = list(zip(*held, strict=True)), []
            rewards, scores, *side = (None if column[0] is None else _stack(column) for column in columns)
            yield rewards, dict(zip(SIDE, side, strict=True)), scores


def _scored(problem, policy, num_batches, groups, n, purpose):
    """(batch, its scores [G N, D]) in turn; a factor of all batches' Gram matrix where the scores would not fit."""
    draws = (problem.sample(policy, number, purpose=purpose, groups=groups, group_size=n) for number in range(num_batches))
    if not problem.row_wise or groups * n * _num_trained(policy) <= MOST_NUMBERS:
        return ((batch, _scores(problem, policy, batch)) for batch in draws)
    draws = list(draws)
    return zip(draws, _gram_factor(problem, policy, draws).split(groups * n), strict=True)


def _num_trained(policy):
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


def _scores(problem, policy, batch):
    with torch.enable_grad():
        return problem.scores(policy, batch)[0].detach()


def _gram_factor(problem, policy, batches):
    """F [M N, M N] float64 with F F^T the Gram matrix of all scores: what is asked of scores are inner products only.

    The matrix is summed over parts of the parameters: one tensor at a time requires a gradient, and of a large tensor's
    scores as many columns are kept as fit. Time: a backward pass per sample and part.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]
    gram = 0.0
    try:
        for one in parameters:
            for p in parameters:
                p.requires_grad_(p is one)
            width = max(1, MOST_NUMBERS // (len(batches) * batches[0].log_probs.numel()))
            for start in range(0, one.numel(), width):
                part = torch.cat([_scores(problem, policy, batch)[:, start : start + width] for batch in batches]).double()
                gram = gram + part @ part.T
    finally:
        for p in parameters:
            p.requires_grad_(True)
    values, vectors = torch.linalg.eigh(gram)
    return vectors * numerics.sqrt(values.clamp(min=0))


def _stack(tensors):
    """torch.stack that does not copy a single tensor: the scores of a language model are large."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


def _valid(estimators, k, n):
    """(names that allow this k and N, {other name: reason})."""
    chosen, reasons = [], {}
    for name in estimators:
        legal = get(name).valid_k(n)
        if k in legal:
            chosen.append(name)
        else:
            reasons[name] = f"k = {k} is not in {legal[0]}..{legal[-1]}" if len(legal) else f"no k is valid for N = {n}"
    return chosen, reasons


def _advantages(chosen, reasons, rewards, k, side):
    """[E, B, G, N] float64; zeros, and a reason, for an estimator these rewards are not for."""
    found = []
    for name in chosen:
        try:
            found.append(get(name)(rewards.double(), k=k, **side))
        except InputError as error:
            reasons.setdefault(name, str(error))
            found.append(torch.zeros_like(rewards))
    return torch.stack(found)


def _references(problem, policy, chosen, k, n):
    """What E g should be for each estimator, [E, D] float64; None where the problem has no exact gradient."""
    gradients, found = {}, []
    for name in chosen:
        objective, scale = get(name).objective, get(name).scale(n, k)
        if scale is None or objective not in OBJECTIVES:
            objective, scale = "J_K", 1.0
        if objective not in gradients:
            gradients[objective] = problem.exact_gradient(policy, OBJECTIVES[objective](n, k))
            if gradients[objective] is None:
                return None
        found.append(gradients[objective][0].detach().double() * scale)
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
    rows = {name: {"estimator": name, **about, "objective": get(name).objective} for name in reasons if name not in chosen}
    for e, name in enumerate(chosen):
        estimator = get(name)
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
                row |= {
                    column: math.sqrt(max(0.0, (bias[e] + shift * bias_margin[e]).item())) / length
                    for column, shift in (("bias", 0), ("bias_low", -1), ("bias_high", 1))
                }
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
    return min(1.0, max(-1.0, (product / numerics.sqrt(squares)).item()))
