"""Is E[g] the gradient of the objective? By exact enumeration, and in words what it is when it is not."""

import itertools
import math

import torch

from maxpo_bench.check import properties

BESIDE_K = tuple(name for name in properties.TARGETS if name not in ("J_1", "J_K"))
TOLERANCE = 2e-5  # relative: a function may compute in float32 inside


def check_unbiased(subject, report, objective):
    """E[g] by exact enumeration against the exact gradient of the objective."""
    takes_k = subject.depends_on_k or (subject.only_k or 1) > 1 or objective == "J_K"
    report.objective = objective or ("J_K" if takes_k else "J_1")
    if report.objective == "none":
        report.add("unbiased", "note", "not tested: objective none")
        return
    kinds = list(subject.bandits.values())
    binary = [arms for name, arms in subject.bandits.items() if name.startswith("binary")]

    def fit_all(chosen, side=subject.side):
        cases = [(n, k) for n in subject.sizes for k in subject.valid[n]]
        if not takes_k:  # one k stands for all
            cases = [(n, subject.valid[n][0]) for n in subject.sizes]
        fits = [properties.fit_objectives(subject.call, chosen, n, k, subject.num_groups, side) for n, k in cases]
        return {target: [fit[target] for fit in fits if target in fit] for target in fits[0]}

    fits = fit_all(kinds)
    if not all(math.isfinite(fit.factor) for fit in fits["J_1"]):
        report.add(
            "unbiased",
            "fail",
            "E[g] is not finite: some groups get advantages that are not",
            bias_example(subject, report.objective),
        )
        return
    targets = [report.objective]
    if objective is None:
        targets += [name for name in BESIDE_K if name in fits] if takes_k else ["sum J_K/K"]
    for target in targets:
        if max(fit.bias for fit in fits[target]) < TOLERANCE:
            report.objective = target
            report.add("unbiased", "pass", f"E[g] = grad {target} on every bandit tried")
            return
    target = report.objective
    worst = max(fits[target], key=lambda fit: fit.bias)
    biased = f"biased: ||E[g] - grad {target}|| is {worst.bias:.2g} of ||grad {target}|| at N = {worst.n}, K = {worst.k}"
    reason = (
        explain(fits, target, subject.num_groups)
        or explain_direction(subject, target, takes_k)
        or explain_binary(fit_all(binary) if binary else {}, kinds != binary)
        or biased + (explain_k(fits[target]) or explain_side(subject, target, fit_all))
    )
    report.add("unbiased", "fail", reason, bias_example(subject, target))


def explain(fits, target, groups=1):
    """In words, what E[g] is instead of the gradient of the target; None when it is nothing known."""
    if all(abs(fit.factor) < TOLERANCE and fit.residual < TOLERANCE for fit in fits[target]):
        return "E[g] = 0 on every bandit tried: on average nothing is learned"
    for name in (target, "J_1", "J_K", "sum J_K/K", "J_N"):
        if max(fit.residual for fit in fits[name]) > TOLERANCE:
            continue
        scale = properties.name_scale(fits[name], TOLERANCE)
        if groups > 1 and all(abs(fit.factor - 1 + 1 / (groups * fit.n)) < TOLERANCE for fit in fits[name]):
            scale = "1 - 1/(GN), N samples in each of the G groups of a batch"
        if name == target:
            what = "sign" if all(fit.factor < 0 for fit in fits[name]) else "scale"
            return f"wrong {what}: E[g] = c grad {target} with c = {scale if scale != 'varies' else factors(fits[name])}"
        times = "" if scale == "1" else f"({scale}) "
        return f"another objective: E[g] = {times}grad {name}" + (
            ", a formula for k = N used at k < N" if name == "J_N" else f", not grad {target}"
        )
    mixed = [fit for fit in fits["J_K"] if fit.mixture]  # K > 1
    if target == "J_K" and mixed and all(fit.mixture[2] < TOLERANCE for fit in mixed):
        fit = next((fit for fit in mixed if abs(fit.mixture[1]) > TOLERANCE), None)
        if fit:
            a, b, _ = fit.mixture
            return (
                f"biased: at N = {fit.n}, K = {fit.k} E[g] = {a:.4g} grad J_K + {b:.4g} grad J_(K-1), as when a "
                "baseline is a mean over the full group, which depends on sample i"
            )
    return None


def explain_direction(subject, target, takes_k):
    """That E[g] points the right way in every single bandit and policy, with a factor that depends on them; None otherwise."""
    n = subject.sizes[-1]
    ks = subject.valid[n] if takes_k else subject.valid[n][:1]
    factors = []
    for k, rewards, logits in itertools.product(ks, subject.bandits.values(), properties.POLICIES):
        arms = properties.all_groups(len(rewards), n, subject.num_groups)
        side = properties.side_information(subject.side, arms, logits)
        advantages = subject.call(torch.tensor(rewards, dtype=torch.float64)[arms], k=k, **side)
        got = properties.expected_gradient(advantages, arms, logits)
        wanted = properties.exact_gradients(tuple(rewards), logits, n, k)[target]
        factors.append(((got @ wanted) / (wanted @ wanted)).item())
        if (got - factors[-1] * wanted).norm() > TOLERANCE * got.norm():
            return None
    return (
        f"the direction of grad {target} in every bandit, but scaled by its rewards and policy: {min(factors):.4g} to "
        f"{max(factors):.4g} at N = {n}"
    )


def explain_binary(fits, wider):
    for name in ("J_1", "J_K", "sum J_K/K") if fits and wider else ():
        if max(fit.bias for fit in fits[name]) < TOLERANCE:
            return f"unbiased on binary rewards only, there for {name}"
    return None


def explain_k(fits):
    """At which K it is unbiased where it is at some; "" otherwise."""
    wrong = {fit.k for fit in fits if fit.bias >= TOLERANCE}
    right = sorted({fit.k for fit in fits} - wrong)
    return f"; unbiased at K = {', '.join(map(str, right))}, not at K = {', '.join(map(str, sorted(wrong)))}" if right else ""


def explain_side(subject, target, fit_all):
    """What is left of a bias when the side information is the same for all samples; "" where there is none."""
    if not subject.side:
        return ""
    words = " and ".join(name.replace("_", " ") for name in subject.side)
    fits = fit_all(list(subject.bandits.values()), side=())
    if max(fit.bias for fit in fits[target]) < TOLERANCE:
        return f"; with {words} all alike it is unbiased"
    left = explain(fits, target, subject.num_groups)
    return f"; with {words} all alike, {left}" if left else f"; also with {words} all alike"


def factors(fits):
    return ", ".join(f"{fit.factor:.4g} at N = {fit.n}, K = {fit.k}" for fit in fits[:3])


def bias_example(subject, target):
    """The smallest bandit that shows a bias, in words: rewards of its arms, N, K, the two gradients."""
    pairs = ((0.0, 1.0), (0.0, 0.5, 1.0), (-1.0, 0.0, 1.0), *properties.KINDS.values())
    for n, pair in itertools.product(sorted(subject.valid), pairs):
        probe = torch.tensor([(pair * n)[:n]], dtype=torch.float64)
        for k in subject.valid[n]:
            if subject.num_groups > 1 and n > 3 or subject.error(probe, k):
                continue
            arms = properties.all_groups(len(pair), n, subject.num_groups)
            uniform = (0.0,) * len(pair)
            side = properties.side_information(subject.side, arms, uniform)
            advantages = subject.call(torch.tensor(pair, dtype=torch.float64)[arms], k=k, **side)
            got = properties.expected_gradient(advantages, arms, uniform)
            wanted = properties.exact_gradients(pair, uniform, n, k)[target]
            if not (got - wanted).norm() <= 1e-4 * wanted.norm().clamp_min(1e-3):
                got, wanted = ([round(x, 5) for x in gradient.tolist()] for gradient in (got, wanted))
                batch = f", {subject.num_groups} groups in a batch" if subject.num_groups > 1 else ""
                lengths = f", lengths {list(properties.LENGTHS[: len(pair)])}" if "lengths" in subject.side else ""
                return (
                    f"{list(pair)}, one per arm{lengths}, uniform policy, N = {n}, K = {k}{batch}: E[g] = {got}, "
                    f"grad {target} = {wanted}"
                )
    return None
