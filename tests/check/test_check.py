"""The conformance check finds every planted mistake, with a counter-example, and clears what is right."""

import math
import subprocess
import sys
from collections import defaultdict
from itertools import combinations

import pytest
import torch

from maxpo_bench.check import check_estimator
from maxpo_bench.check.conventions import detect, load
from maxpo_bench.cli import main
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names

# Planted mistakes, each in the shape it has in public code. All are f(rewards [..., N], k).


def full_group_baseline(rewards, k):
    """PKPO's signal minus its mean over the whole group: the baseline depends on the sample."""
    added = get("pkpo")(rewards, k=k) / k if k > 1 else rewards.double()
    return k * (added - added.mean(-1, keepdim=True))


def best_of_all_at_any_k(rewards, k):
    """The formula for k = N, whatever k."""
    best, second = rewards.double().topk(2, dim=-1).values.split(1, dim=-1)
    return rewards.shape[-1] * (rewards == best) * (best - second)


def shrunk(rewards, k):
    """k (q_i - v): short by 1 - k/N."""
    n = rewards.shape[-1]
    return (1 - k / n) * get("maxpo")(rewards.double(), k=k)


def residue_over_eps(rewards, k):
    """Mean and std in the rewards' own type; a constant group leaves rounding over eps."""
    mean = rewards.sum(-1, keepdim=True) / rewards.shape[-1]
    return (rewards - mean) / (rewards.std(-1, correction=0, keepdim=True) + 1e-8)


def truncated_integers(rewards, k):
    """Scatter into a tensor of the rewards' own type."""
    places = torch.arange(rewards.shape[-1]).expand(rewards.shape)
    return torch.zeros_like(rewards).scatter_(-1, places, get("maxpo")(rewards.double(), k=k).to(rewards.dtype))


def sample_std(rewards, k):
    """torch.std divides by N-1."""
    rewards = rewards.double()
    centred = get("dr_grpo")(rewards)
    return centred / (centred.std(-1, keepdim=True) + 1e-6)


def ties_by_order(rewards, k):
    """Ranks from argsort instead of values: the first of the tied samples gets less."""
    ranks = rewards.argsort(dim=-1, stable=True).argsort(dim=-1).double()
    best = rewards.amax(-1, keepdim=True)
    winner = ranks == rewards.shape[-1] - 1
    return (winner * (best - rewards.double().mean(-1, keepdim=True))) * k


def position_matters(rewards, k):
    """A baseline from the previous sample: unbiased, but the order of the samples counts."""
    return rewards.double() - rewards.double().roll(1, dims=-1)


def naive_variance(rewards, k):
    """E[x^2] - E[x]^2 loses everything under an offset."""
    rewards = rewards.double()
    variance = (rewards.square().mean(-1, keepdim=True) - rewards.mean(-1, keepdim=True).square()).clamp_min(0)
    centred = get("dr_grpo")(rewards)
    return centred / (variance.sqrt() + 1e-6)


def sum_scale(rewards, k):
    return get("maxpo")(rewards.double(), k=k) / rewards.shape[-1]


def in_place(rewards, k):
    return rewards.sub_(rewards.mean(-1, keepdim=True))


def float_binomials(rewards, k):
    """Binomials as floats: infinite above N of about 1000."""
    n = rewards.shape[-1]
    factorials = torch.arange(1, n + 1, dtype=torch.float64).cumprod(0)
    return get("maxpo")(rewards.double(), k=k) * (factorials / factorials)


def not_finite(rewards, k):
    return rewards.double() / 0.0


PLANTED = [  # function, the property that must fail, words its text must hold
    (full_group_baseline, "unbiased", "mean over the full group"),
    (best_of_all_at_any_k, "unbiased", "a formula for k = N used at k < N"),
    (shrunk, "unbiased", "c = 1 - K/N"),
    (residue_over_eps, "constant group", "residue"),
    (truncated_integers, "integers", "truncated"),
    (sample_std, "ddof", "ddof 1"),
    (ties_by_order, "ties", "tied rewards get different"),
    (position_matters, "permutation", "order of the samples"),
    (naive_variance, "offset", "offset of 1,000,000 in float64"),
    (sum_scale, "unbiased", "c = 1/N"),
    (in_place, "pure", "changes the rewards"),
    (float_binomials, "cost", "not finite"),
    (not_finite, "runs", "returned"),
]


@pytest.mark.parametrize("function, failing, words", PLANTED, ids=[row[0].__name__ for row in PLANTED])
@pytest.mark.parametrize("convention", ["groups", "trl", "verl"])
def test_planted_mistake(function, failing, words, convention):
    if function is in_place and convention != "groups":
        pytest.skip("the adapter's own tensor changes, which harms nobody")
    if function is truncated_integers and convention == "verl":
        function = integer_verl
        report = check_estimator(function)
    else:
        report = check_estimator(WRAPPERS[convention](function))
    assert not report.ok and failing in report.failed, str(report)
    assert words in report[failing].text, str(report)
    assert report.seconds < 30
    if failing != "cost":
        assert report[failing].counter_example is not None


def test_counter_examples_are_the_smallest():
    assert check_estimator(ties_by_order)["ties"].counter_example == [0.0, 1.0, 1.0]  # no smaller group shows it
    assert check_estimator(position_matters)["permutation"].counter_example == [0.0, 0.0, 1.0]
    assert check_estimator(truncated_integers)["integers"].counter_example == [0.0, 0.0, 1.0]
    bandit = check_estimator(shrunk)["unbiased"].counter_example
    assert bandit.startswith("[0.0, 1.0], one per arm, uniform policy, N = 2, K = 1: E[g] = [-0.125, 0.125]")
    constant = check_estimator(residue_over_eps)["constant group"].counter_example
    assert len(set(constant)) == 1 and len(constant) <= 10


# The registry, in the shapes of the two trainers.

def in_groups(function):
    return function


def in_trl(function):
    def flat(rewards, num_generations, k=1):
        return function(rewards.view(-1, num_generations), k=k).flatten()
    return flat


def in_verl(function):
    def outcome_advantage(token_level_rewards, response_mask, index, k=1):
        scores = token_level_rewards.sum(-1)
        rows = defaultdict(list)
        for row, name in enumerate(index):
            rows[name].append(row)
        order = torch.tensor(list(rows.values()))  # [groups, N]
        advantages = torch.empty(scores.shape, dtype=torch.float64 if scores.dtype == torch.float64 else torch.float32)
        advantages[order] = function(scores[order], k=k).to(advantages.dtype)
        advantages = advantages[:, None] * response_mask
        return advantages, advantages
    return outcome_advantage


def integer_verl(token_level_rewards, response_mask, index, k=1):
    advantages, _ = in_verl(get("maxpo"))(token_level_rewards, response_mask, index, k)
    return (advantages.to(token_level_rewards.dtype).to(response_mask.dtype) * response_mask,) * 2


WRAPPERS = {"groups": in_groups, "trl": in_trl, "verl": in_verl}


@pytest.mark.parametrize("convention", WRAPPERS)
@pytest.mark.parametrize("name", names())
def test_verdict_on_the_registry(name, convention):
    estimator = get(name)
    report = check_estimator(WRAPPERS[convention](estimator))
    assert report.convention == convention
    assert report.failed == ([] if estimator.unbiased else ["unbiased"]), str(report)
    assert report.equals == name
    assert report.seconds < 30
    if estimator.unbiased:
        assert report.objective == estimator.objective
    if name == "dr_grpo":
        assert "c = 1 - 1/N" in report["unbiased"].text
    if name == "maxrl":
        assert "binary rewards only, there for sum J_K/K" in report["unbiased"].text


# Functions written as the trainers have them.

def trl_group_advantages(rewards, num_generations):
    """As in TRL with scale_rewards: std with ddof 1 and eps 1e-4."""
    grouped = rewards.view(-1, num_generations)
    mean, std = grouped.mean(dim=1), grouped.std(dim=1)
    mean, std = mean.repeat_interleave(num_generations), std.repeat_interleave(num_generations)
    return (rewards - mean) / (std + 1e-4)


def test_trl_style_function():
    report = check_estimator(trl_group_advantages)
    assert report.convention == "trl"
    assert {"unbiased", "ddof"} <= set(report.failed)
    assert report.equals.startswith("grpo with ddof = 1")


def verl_passk(token_level_rewards, response_mask, index, epsilon=1e-6):
    """As verl's pass@k outcome advantage: best minus second best for the best response, zero for the others."""
    scores = token_level_rewards.sum(dim=-1)
    advantages = torch.zeros_like(scores)
    rows = defaultdict(list)
    for row in range(len(scores)):
        rows[index[row]].append(row)
    for places in rows.values():
        top, where = torch.topk(scores[places], 2)
        advantages[places[where[0]]] = top[0] - top[1]
    advantages = advantages.unsqueeze(-1) * response_mask
    return advantages, advantages


def test_verl_style_function():
    report = check_estimator(verl_passk)
    assert report.convention == "verl"
    assert "grad J_N" in report["unbiased"].text and "1/N" in report["unbiased"].text
    assert report.equals == "best_gap at k = N, times 1/N"


def test_verl_function_that_ignores_index():
    def contiguous(token_level_rewards, response_mask, index):
        scores = token_level_rewards.sum(-1)
        n = int((index == index[0]).sum())
        advantages = get("rloo")(scores.view(-1, n)).flatten()[:, None] * response_mask
        return advantages, advantages
    report = check_estimator(contiguous)
    assert "index" in report.failed and "unbiased" not in report.failed


def test_verl_function_that_ignores_the_mask():
    def unmasked(token_level_rewards, response_mask, index):
        advantages = token_level_rewards.sum(-1, keepdim=True).expand_as(response_mask)
        return advantages, advantages
    report = check_estimator(unmasked)
    assert report.failed == ["runs"] and "behind its end" in report["runs"].text


def test_function_that_reads_other_groups():
    def batch_std(rewards, k):
        centred = get("rloo")(rewards)
        return centred / (rewards.double().std() + 1e-4)
    report = check_estimator(batch_std)
    assert "other groups" in report["groups"].text
    assert "unbiased" in report.failed


def test_slow_brute_force_is_right_and_measured_as_slow():
    def brute_force(rewards, k):
        n = rewards.shape[-1]
        subsets = torch.tensor(list(combinations(range(n), k)))
        best = rewards.double()[..., subsets].amax(-1)  # [..., C]
        inside = (subsets[:, :, None] == torch.arange(n)).any(1).double()  # [C, N]
        return k * (best @ inside / math.comb(n - 1, k - 1) - best @ (1 - inside) / math.comb(n - 1, k))
    report = check_estimator(brute_force)
    assert report.ok and report.equals == "maxpo", str(report)
    assert "too slow for larger groups" in report["cost"].text


def test_k_told_for_a_function_that_takes_none():
    def at_two(rewards):
        return get("maxpo")(rewards, k=2)
    assert check_estimator(at_two, k=2).ok
    assert "unbiased" in check_estimator(at_two).failed
    assert check_estimator(at_two, k=2).equals == "maxpo"
    with pytest.raises(InputError, match="k = 9: the check enumerates"):
        check_estimator(at_two, k=9)


@pytest.mark.parametrize("k", [4, 6])
def test_k_told_beyond_the_usual_groups(k):
    def at_k(rewards):
        return get("maxpo")(rewards, k=k)
    report = check_estimator(at_k, k=k)
    assert report.ok and report.equals == "maxpo" and report.objective == "J_K", str(report)


def test_objective_told():
    assert check_estimator(get("grpo"), objective="none").ok
    assert not check_estimator(get("rloo"), objective="J_K").ok
    with pytest.raises(InputError, match="takes no k: say which"):
        check_estimator(trl_group_advantages, objective="J_K")
    with pytest.raises(InputError, match="unknown objective 'J_k', did you mean"):
        check_estimator(get("rloo"), objective="J_k")


def test_convention_told_and_detected():
    assert detect(lambda rewards, k: 0) == ("groups", "k")
    assert detect(lambda rewards, m: 0) == ("groups", "m")
    assert detect(lambda rewards, num_generations: 0) == ("trl", None)
    assert detect(lambda token_level_rewards, response_mask, index, K=1: 0) == ("verl", "K")
    with pytest.raises(InputError, match="unknown convention 'ver', did you mean 'verl'"):
        check_estimator(get("rloo"), convention="ver")


@pytest.mark.parametrize("wrong, words", [
    (lambda rewards, k: [0.0], "returned list"), (lambda rewards, k: rewards[..., :1], "returned shape"),
    (lambda rewards, k: rewards[7], "raised IndexError")])
def test_function_that_does_not_run(wrong, words):
    report = check_estimator(wrong)
    assert report.failed == ["runs"] and words in report["runs"].text


def test_load_errors(tmp_path):
    with pytest.raises(InputError, match="write module:function"):
        load("maxpo")
    with pytest.raises(InputError, match="cannot import no_such_module"):
        load("no_such_module:f")
    with pytest.raises(InputError, match="has no function 'maxpoo', did you mean 'maxpo'"):
        load("maxpo_bench.estimators.maxpo:maxpoo")
    with pytest.raises(InputError, match="no file"):
        load(f"{tmp_path}/nothing.py:f")


def test_command_line(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("def mine(rewards, k):\n    return (rewards - rewards.mean(-1, keepdim=True)).double() * k\n")
    assert main(["check", f"{file}:mine"]) == 1
    text = capsys.readouterr().out
    assert "FAIL  unbiased" in text and "shown by rewards" in text and "FAILED: unbiased" in text
    assert main(["check", "maxpo_bench.estimators.maxpo:maxpo"]) == 0
    assert "equals: maxpo" in capsys.readouterr().out
    assert main(["check", "maxpo_bench.estimators.grpo:grpo", "--objective", "none", "--convention", "groups"]) == 0
    assert main(["check", "maxpo_bench.estimators.maxpo:maxp"]) == 2
    assert "did you mean 'maxpo'" in capsys.readouterr().err


def test_import_is_cheap():
    code = "import maxpo_bench.check, maxpo_bench.commands.new_estimator, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
