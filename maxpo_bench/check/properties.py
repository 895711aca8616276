"""What an advantage function really does, derived by enumerating every group of small softmax bandits.

A bandit with A arms and groups of N samples has A^N groups; summing over all of them gives E[g] without sampling
error, to be held against the exact gradients of J_1, J_K and what else the registry aims at. Nothing here reads a declaration
except the domain of rewards, the range of k, and whether a function takes side information or reads other groups.
"""

import copy
import functools
import itertools
from dataclasses import dataclass

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names
from maxpo_bench.estimators.contract import OBJECTIVES
from maxpo_bench.estimators.order_statistics import include_one_max
from maxpo_bench.measure.exact import arms_expected_max

KINDS = {  # rewards of the arms; ties included, because ties are where implementations break
    "binary": (0.0, 0.0, 1.0),
    "binary, two good arms": (0.0, 1.0, 1.0),
    "graded": (0.1, 0.4, 1.0),
    "graded, worst is 0": (0.0, 0.4, 1.0),  # some formulas count rewards that are not 0
    "graded, tied best": (0.25, 0.75, 0.75),
    "negative": (-1.0, -0.25, 0.5),
    "negative, tied worst": (-2.0, -2.0, -0.5),
}
POLICIES = ((0.0, 0.0, 0.0), (1.0, -0.5, 0.3), (-2.0, 0.5, 1.0))  # logits: uniform, mild, peaked
SIZES = (4, 5)  # N
SIZES_ACROSS = (3, 4)  # N for functions that read other groups: two groups are enumerated together
BETA = 2.0  # of the exponential objective
TARGETS = (*OBJECTIVES, "min_K", f"E exp({BETA:g} r)")  # what a function can be unbiased for, in the order of trial
EXACT = 1e-10  # relative; what exact enumeration leaves of a bias that is zero

SCALES = {  # names for a factor c in E[g] = c grad J
    "1": lambda n, k: 1.0,
    "1 - 1/N": lambda n, k: 1 - 1 / n,
    "1 - K/N": lambda n, k: 1 - k / n,
    "1/N": lambda n, k: 1 / n,
    "N": lambda n, k: n,
    "1/K": lambda n, k: 1 / k,
    "K": lambda n, k: k,
    "K/N": lambda n, k: k / n,
    "N/K": lambda n, k: n / k,
    "N/(N-1)": lambda n, k: n / (n - 1),
    "N/(N-K)": lambda n, k: n / (n - k) if k < n else float("nan"),
    "(1 - K/N)/K": lambda n, k: (1 - k / n) / k,
    "(1 - 1/N)/K": lambda n, k: (1 - 1 / n) / k,
}


def in_domain(rewards, domain):
    """Whether a tuple of rewards lies in a domain of estimators.contract.DOMAINS."""
    from maxpo_bench.estimators.contract import DOMAINS

    return DOMAINS[domain] is None or bool(DOMAINS[domain][0](torch.tensor(rewards)).all())


@functools.cache
def all_groups(num_arms, n, num_groups=1):
    """Every outcome of `num_groups` groups of n arms: [A^(n num_groups), num_groups, n] long."""
    outcomes = torch.tensor(list(itertools.product(range(num_arms), repeat=n * num_groups)))
    return outcomes.view(-1, num_groups, n)


@functools.cache
def exact_gradients(rewards, logits, n, k):
    """Exact gradients in the logits [A] of TARGETS, and of J_N and J_(K-1): {name: [A] float64}."""
    theta = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    values = torch.tensor(rewards, dtype=torch.float64)
    terms = {j: torch.autograd.grad(arms_expected_max(theta, values, j), theta)[0] for j in range(1, n + 1)}
    found = {name: sum(weight * terms[j] for j, weight in weights(n, k).items()) for name, weights in OBJECTIVES.items()}
    found["min_K"] = -torch.autograd.grad(arms_expected_max(theta, -values, k), theta)[0]
    found[TARGETS[-1]] = torch.autograd.grad(arms_expected_max(theta, torch.exp(BETA * values), 1), theta)[0]
    return found | {"J_N": terms[n], "J_(K-1)": terms[k - 1] if k > 1 else torch.zeros_like(terms[1])}


def expected_gradient(advantages, arms, logits):
    """E[(1/N) sum_i A_i grad log pi(a_i)] over the enumerated batches of all_groups, on average over their groups.

    advantages: [B, G, N] for arms [B, G, N]; logits: tuple of A. Returns [A] float64.
    """
    policy = torch.tensor(logits, dtype=torch.float64).softmax(0)
    chance = policy[arms].flatten(1).prod(1)  # [B]
    weight = chance[:, None, None] * advantages.double() / arms[0].numel()
    by_arm = torch.zeros_like(policy).index_add_(0, arms.flatten(), weight.flatten())
    return by_arm - policy * weight.sum()  # score of arm a: onehot(a) - policy


def squared_score_norms(arms, logits):
    """||onehot(a) - pi||^2 of every sample: the shape of arms, float64."""
    policy = torch.tensor(logits, dtype=torch.float64).softmax(0)
    return (1 - 2 * policy + policy.square().sum())[arms]


@dataclass
class Fit:
    """How E[g] relates to one objective at one (N, k), over all bandits tried together."""

    n: int
    k: int
    factor: float
    """Least-squares c in E[g] = c grad J, one c for all policies and rewards."""
    residual: float
    """||E[g] - c grad J|| / ||E[g]||: 0 where parallel."""
    bias: float
    """||E[g] - grad J|| / ||grad J||."""
    direction: float = 0.0
    """The worst residual of one bandit and policy alone, with a factor of its own: 0 where E[g] is parallel on each."""
    mixture: tuple | None = None
    """(a, b, residual) of the least-squares E[g] = a grad J_K + b grad J_(K-1); on the Fit of J_K with K > 1 only."""


LENGTHS = (3.0, 1.0, 2.0)  # of a sample of each arm: a completion's length comes with it


def side_information(names, arms, logits):
    """{name: [B, G, N]} of the side information in `names`, as a bandit with these logits has it for arms [B, G, N]."""
    known = {
        "score_norms": lambda: squared_score_norms(arms, logits),
        "lengths": lambda: torch.tensor(LENGTHS, dtype=torch.float64)[arms],
    }
    return {name: known[name]() for name in names}


def fit_objectives(function, kinds, n, k, num_groups=1, side=()):
    """{objective: Fit} of function(rewards [..., N], k=k) on the bandits `kinds` (tuples of arm rewards) at (n, k).

    side: names of the side information that the function takes as keyword arguments.
    """
    arms = all_groups(len(kinds[0]), n, num_groups)
    estimates, noise, exact = [], [], {}
    for rewards in kinds:
        drawn = torch.tensor(rewards, dtype=torch.float64)[arms]  # [B, G, N]
        advantages = None
        for logits in POLICIES:
            if side or advantages is None:
                advantages = function(drawn, k=k, **side_information(side, arms, logits))
            estimates.append(expected_gradient(advantages, arms, logits))
            noise.append(1e-14 * advantages.abs().max())
            for objective, gradient in exact_gradients(tuple(rewards), logits, n, k).items():
                exact.setdefault(objective, []).append(gradient)
    estimate = torch.cat(estimates)
    fits = {}
    for objective, gradients in exact.items():
        gradient = torch.cat(gradients)
        if not gradient.any():
            continue
        factor = (estimate @ gradient / (gradient @ gradient)).item()
        residual = ((estimate - factor * gradient).norm() / estimate.norm().clamp_min(1e-300)).item()
        bias = ((estimate - gradient).norm() / gradient.norm()).item()
        direction = max(off_direction(*case) for case in zip(estimates, gradients, noise, strict=True))
        fits[objective] = Fit(n, k, factor, residual, bias, direction)
    basis = torch.stack([torch.cat(exact["J_K"]), torch.cat(exact["J_(K-1)"])], dim=1)
    if k > 1:
        weights = torch.linalg.lstsq(basis, estimate[:, None]).solution
        left = (estimate[:, None] - basis @ weights).norm() / estimate.norm().clamp_min(1e-300)
        fits["J_K"].mixture = (*weights[:, 0].tolist(), left.item())
    return fits


def off_direction(estimate, gradient, noise):
    """Part of the estimate [A] that is not along the gradient, beyond rounding; all of it where it points the other way."""
    along = (estimate @ gradient / gradient.square().sum().clamp_min(1e-300)).clamp_min(0) * gradient
    return ((estimate - along).norm() - noise).clamp_min(0).item() / estimate.norm().clamp_min(1e-300).item()


def name_scale(fits, tolerance=EXACT):
    """The closed form in SCALES that gives the factor of every Fit, a number when all agree on one, else "varies"."""
    for name, scale in SCALES.items():
        if all(abs(fit.factor - scale(fit.n, fit.k)) < tolerance * max(1, abs(fit.factor)) for fit in fits):
            return name
    factors = [fit.factor for fit in fits]
    return f"{factors[0]:.6g}" if max(factors) - min(factors) < tolerance * max(map(abs, factors)) else "varies"


def accepted_k(estimator, n):
    """The k in 1..n that the function takes without an InputError, tried on one group."""
    rewards = torch.zeros(1, n, dtype=torch.float64)
    accepted = []
    for k in range(1, n + 1):
        try:
            estimator(rewards, k=k)
            accepted.append(k)
        except InputError:
            pass
    return accepted


def samples(domain, n, num_rows=64, seed=0):
    """Random groups in a domain for the invariance checks: [num_rows, n] float64, half of the rows with ties."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(num_rows, n, generator=generator, dtype=torch.float64)
    if domain == "any":
        rewards = rewards * 3 - 1.5
    if domain == "binary":
        return (rewards > 0.6).double()
    rewards[::2] = (rewards[::2] * 4).round() / 4
    return rewards


def form(name, **options):
    """A registry Estimator with some options fixed, called as users write it: grpo(ddof=1)."""
    fixed = copy.copy(get(name))
    if options:
        get(name)(torch.zeros(2, 4), k=get(name).valid_k(4)[0], **options)  # refuses options it does not have
        fixed.function = functools.partial(fixed.function, **options)
        fixed.name = f"{name}({', '.join(f'{key}={value}' for key, value in options.items())})"
    return fixed


def aims(estimator, kinds, sizes, valid, num_groups):
    """{objective: [Fit at each (N, k > 1)]} on the bandits `kinds`."""
    found = {}
    for n in sizes:
        for k in [k for k in valid[n] if k > 1]:
            for objective, fit in fit_objectives(estimator, kinds, n, k, num_groups, estimator.side).items():
                found.setdefault(objective, []).append(fit)
    return found


def derive(estimator):
    """One row of the property table for a registry Estimator: {column: value}. About 0.5 s."""
    across, domain = estimator.across_groups, estimator.rewards
    sizes, num_groups = (SIZES_ACROSS, 2) if across else (SIZES, 1)
    kinds = {name: rewards for name, rewards in KINDS.items() if in_domain(rewards, domain)}
    binary = [rewards for name, rewards in kinds.items() if name.startswith("binary")]
    valid = {n: accepted_k(estimator, n) if not across else list(estimator.valid_k(n)) for n in sizes}
    n, ks = sizes[-1], valid[sizes[-1]]
    fitted = aims(estimator, list(kinds.values()), sizes, valid, num_groups)
    on_binary = fitted if domain == "binary" else aims(estimator, binary, sizes, valid, num_groups)
    objective, scale, direction = "none", "not parallel", "none"
    for (table, note), name in itertools.product(((fitted, ""), (on_binary, " on binary rewards")), TARGETS):
        if objective == "none" and max(fit.residual for fit in table[name]) < EXACT:
            objective, scale = name + note, name_scale(table[name])
            direction = name + note if not note or direction == "none" else direction
        if direction == "none" and max(fit.direction for fit in table[name]) < EXACT:
            direction = name + note
    row = {
        "estimator": estimator.name,
        "unbiased_for": objective if scale == "1" else "none",
        "parallel_to": objective,
        "scale": scale,
        "direction": direction,
        "bias_j1": max(fit.bias for fit in fitted["J_1"]),
        "bias_jk": max(fit.bias for fit in fitted["J_K"]),
        "valid_k": {(1, n): "1..N", (1, n - 1): "1..N-1", (n, n): "N"}.get((ks[0], ks[-1]), str(ks)),
    }
    row.update(invariances(estimator, domain, n, ks, across))
    row.update({"rewards": domain, "cost": estimator.cost, "source": estimator.source})
    return row


def side_of(names, rewards):
    """Side information for the invariance checks, alike for tied rewards: {name: shape of rewards}."""
    given = {"score_norms": lambda: 1 + rewards.double().square(), "lengths": lambda: 1 + (4 * rewards).round().abs() % 3}
    return {name: given[name]() for name in names}


def invariances(function, domain, n, ks, across=False):
    """The columns of the table that need no expectation, on random groups of n: {column: value}."""
    k = 2 if 2 in ks else ks[-1]
    rewards = samples(domain, n)
    rewards = rewards.view(32, 2, n) if across else rewards

    def call(values, like=None):
        """The function of `values`; side information as of the rewards `like`, where it takes any."""
        return function(values, k=k, **side_of(function.side, values if like is None else like))

    base = call(rewards)
    size = base.abs().max().item()

    def differs(other, tolerance=EXACT):
        return (other - base).abs().max().item() > tolerance * size

    def shift():
        if domain == "binary":
            return "n/a"
        low = call(rewards / 5, rewards)  # a fifth, so that the shifted rewards stay in the unit interval
        return "invariant" if (call(rewards / 5 + 0.75, rewards) - low).abs().max() < 1e-9 * low.abs().max() else "no"

    def scaling():
        if domain == "binary":
            return "n/a"
        half = call(rewards * 0.5, rewards)
        if not differs(half * 2):
            return "equivariant"
        return "invariant" if not differs(half) else "nearly invariant" if not differs(half, 1e-4) else "no"

    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    reordered = call(rewards[..., order])[..., torch.argsort(order)]
    tied = rewards.unsqueeze(-1) == rewards.unsqueeze(-2)  # [..., N, N]
    tie_gap = ((base.unsqueeze(-1) - base.unsqueeze(-2)).abs() * tied).max().item()
    single = call(rewards.float(), rewards)
    exact_input = (
        rewards if domain == "binary" else (rewards > 0).double() if domain == "unit interval" else (rewards * 4).round().abs()
    )
    whole = call(exact_input.long(), exact_input)
    sums = base.sum(-1).abs().max().item() / size
    return {
        "centred": "yes" if sums < 1e-12 * n else "no",
        "sign": ">= 0" if base.min() >= 0 else "<= 0" if base.max() <= 0 else "both",
        "shift": shift(),
        "scaling": scaling(),
        "depends_on_order": "yes" if differs(reordered) else "no",
        "ties": "equal" if tie_gap <= 1e-14 * size else f"differ by {tie_gap:.1e}",
        "flat_group": flat_group(call, domain, n, across),
        "all_but_one": all_but_one(call, n, across),
        "own_sample": own_sample(function, domain, n, ks, across),
        "k_1": at_k_one(function, domain, n, ks, across),
        "k_n_minus_1": at_k_last(function, domain, n, ks, across),
        "float32": "ok" if single.dtype == torch.float32 and not differs(single.double(), 1e-4) else "wrong",
        "integers": "ok"
        if whole.dtype == torch.get_default_dtype() and torch.allclose(whole.double(), call(exact_input), rtol=1e-5, atol=1e-5)
        else "wrong",
    }


def flat_group(call, domain, n, across):
    """What a group of equal rewards gets, beside a group that is not flat where groups are read: "zeros" or "not zero"."""
    constants = [0.0, 1.0] + [0.1, 1 / 3] * (domain != "binary") + [-7.3e6] * (domain == "any")
    flat = torch.tensor(constants, dtype=torch.float64)[:, None].expand(-1, n)
    if not across:
        return "not zero" if call(flat).any() else "zeros"
    beside = (torch.arange(n) % 2).double().expand_as(flat)
    return "not zero" if call(torch.stack([flat, beside], 1))[:, 0].any() or call(flat.unsqueeze(1)).any() else "zeros"


def all_but_one(call, n, across):
    """Largest |A| in a group of one success or of one failure, rewards 0 or 1; of two such groups where groups are read."""
    groups = torch.zeros(2, n, dtype=torch.float64)
    groups[0, -1], groups[1, 1:] = 1.0, 1.0
    return float(f"{call(groups).abs().max().item():.4g}")


def utilities(rewards, k):
    """What the objectives make of sample 0's own reward beside its others: {objective: [...]}, k_j-subsets by their max."""
    n = rewards.shape[-1]
    q = {j: include_one_max(rewards, j)[..., 0] for j in range(1, n + 1)}
    found = {name: sum(j * weight * q[j] for j, weight in weights(n, k).items()) for name, weights in OBJECTIVES.items()}
    found["min_K"] = -include_one_max(-rewards, k)[..., 0]
    found[TARGETS[-1]] = torch.exp(BETA * rewards[..., 0])
    return found


def own_sample(function, domain, n, ks, across, side=None, tolerance=1e-9):
    """Whether sample i enters its own scale or baseline, beyond what the objective makes of its reward: "yes" or "no".

    Everything else held fixed, A_i has to be a times the utility of r_i plus b, whatever i's own reward, length and score
    norm, for one objective's utility. "n/a" on binary rewards: two values always lie on a line. side: the function's, by default.
    """
    if domain == "binary":
        return "n/a"
    k = 2 if 2 in ks else ks[-1]
    own = torch.tensor([0.0, 0.15, 0.4, 0.55, 0.8, 1.0] * 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    rewards = torch.rand(24, 1, 2, n, generator=generator, dtype=torch.float64).repeat(1, len(own), 1, 1)  # [sets, own, 2, N]
    used = function.side if side is None else side
    given = {name: values.clone() for name, values in side_of(used, rewards).items()}
    rewards[..., 0, 0] = own
    for values in given.values():
        values[..., 0, 0] = torch.where(torch.arange(len(own)) < len(own) // 2, 1.0, 3.0)
    if not across:
        rewards, given = rewards[..., 0, :], {name: values[..., 0, :] for name, values in given.items()}
    advantages = function(rewards, k=k, **given).double()
    advantages, group = (values if not across else values[..., 0, :] for values in (advantages, rewards))
    wanted = advantages[..., 0]  # [sets, own]
    for utility in utilities(group, k).values():
        basis = torch.stack([utility, torch.ones_like(utility)], -1)
        left = wanted - (basis @ torch.linalg.lstsq(basis, wanted[..., None]).solution)[..., 0]
        if left.abs().max() <= tolerance * wanted.abs().max():
            return "no"
    return "yes"


def at_k_one(function, domain, n, ks, across=False):
    """What the function is at k = 1: "rloo", "reinforce", either times a factor, "other" or "refused"."""
    if 1 not in ks:
        return "refused"
    rewards = samples(domain, n)[:, None] if across else samples(domain, n)
    advantages = function(rewards, k=1)
    for name in ("rloo", "reinforce"):
        reference = get(name)(rewards)
        factor = ((advantages * reference).sum() / reference.square().sum()).item()
        if torch.allclose(advantages, factor * reference, rtol=0, atol=1e-10):
            scale = name_scale([Fit(n, 1, factor, 0.0, 0.0)])
            return name if scale == "1" else f"({scale}) {name}"
    return "other"


def at_k_last(function, domain, n, ks, across=False):
    """What is left at k = N-1: "best against rest" when all but the best share one advantage, "graded" or "refused"."""
    if n - 1 not in ks:
        return "refused"
    if domain == "binary":
        return "n/a"
    rewards = samples(domain, n)
    if across:
        rewards = rewards[:, None]
    rest = function(rewards, k=n - 1).masked_fill(rewards == rewards.amax(-1, keepdim=True), float("nan"))
    spread = rest.nan_to_num(nan=-1e300).amax(-1) - rest.nan_to_num(nan=1e300).amin(-1)  # all best: -2e300
    return "best against rest" if spread.max() < 1e-10 else "graded"


def table(estimators=None):
    """The property table, derived: a DataFrame with a row for each name in `estimators` (default: the registry)."""
    import pandas as pd  # of the suite: what checks a function needs torch and numpy alone

    from maxpo_bench.check.shipped import shipped_as

    return pd.DataFrame([derive(get(name)) | {"shipped_as": shipped_as(name)} for name in (estimators or names())])
