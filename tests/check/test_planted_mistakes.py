"""Mistakes in the shapes they have in public code: each is found, with the smallest counter-example, in every convention."""

import time

import pytest
import torch
from shapes import WRAPPERS, in_verl

from maxpo_bench.check import check_estimator
from maxpo_bench.estimators import get

# All are f(rewards [..., N], k).


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


def leave_one_out_twice(rewards, k):
    """The correction N/(N-1) of a mean that holds the sample, on a mean that does not."""
    n = rewards.shape[-1]
    return get("rloo")(rewards.double()) * n / (n - 1)


def sum_scale(rewards, k):
    return get("maxpo")(rewards.double(), k=k) / rewards.shape[-1]


def own_mean(rewards, k):
    return rewards.double() - rewards.double().mean(-1, keepdim=True)


def own_std(rewards, k):
    return get("rloo")(rewards.double()) / (rewards.double().std(-1, correction=0, keepdim=True) + 0.1)


def own_weight(rewards, k):
    """A weight of the group by its success rate."""
    return get("rloo")(rewards.double()) * (1 - rewards.double().mean(-1, keepdim=True)) ** 2


def mean_of_the_batch(rewards, k):
    return rewards.double() - rewards.double().mean()


def std_of_the_batch(rewards, k):
    return get("rloo")(rewards.double()) / (rewards.double().std() + 1e-4)


def residue_over_eps(rewards, k):
    """Mean and std in the rewards' own type; a constant group leaves rounding over eps."""
    mean = rewards.sum(-1, keepdim=True) / rewards.shape[-1]
    return (rewards - mean) / (rewards.std(-1, correction=0, keepdim=True) + 1e-8)


def std_of_the_others(rewards, k, eps=1e-6):
    """In the rewards' own type, from sums: seven alike and one other leave rounding where the std of the seven should be 0."""
    n, own = rewards.shape[-1], rewards
    mean = (rewards.sum(-1, keepdim=True) - own) / (n - 1)
    squares = (rewards.square().sum(-1, keepdim=True) - own.square()) / (n - 1)
    std = (squares - mean.square()).clamp_min(0).sqrt()
    return (rewards - mean) / torch.where(std > 0, std + eps, 1.0)


def small_spread(rewards, k):
    """Divides by the mean absolute deviation of the others, whatever its size."""
    rewards, n = rewards.double(), rewards.shape[-1]
    mean = (rewards.sum(-1, keepdim=True) - rewards) / (n - 1)
    gaps = (rewards.unsqueeze(-2) - mean.unsqueeze(-1)).abs()  # [..., i, j]
    spread = (gaps.sum(-1) - gaps.diagonal(dim1=-2, dim2=-1)) / (n - 1)
    return (rewards - mean) / (spread + 1e-6)


def median_deviation(rewards, k):
    offsets = rewards.double() - rewards.double().median(-1, keepdim=True).values
    return offsets / (offsets.abs().median(-1, keepdim=True).values + 1e-3)


def truncated_integers(rewards, k):
    """Scatter into a tensor of the rewards' own type."""
    places = torch.arange(rewards.shape[-1]).expand(rewards.shape)
    return torch.zeros_like(rewards).scatter_(-1, places, get("maxpo")(rewards.double(), k=k).to(rewards.dtype))


def sample_std(rewards, k):
    """torch.std divides by N-1."""
    centred = get("dr_grpo")(rewards.double())
    return centred / (centred.std(-1, keepdim=True) + 1e-6)


def ties_by_order(rewards, k):
    """Ranks from argsort instead of values: the first of the tied samples gets less."""
    ranks = rewards.argsort(dim=-1, stable=True).argsort(dim=-1).double()
    best = rewards.amax(-1, keepdim=True)
    winner = ranks == rewards.shape[-1] - 1
    return (winner * (best - rewards.double().mean(-1, keepdim=True))) * k


def previous_sample(rewards, k):
    """A baseline from the sample before: unbiased, but the order of the samples counts."""
    return rewards.double() - rewards.double().roll(1, dims=-1)


def running_mean(rewards, k):
    """A baseline from all samples before."""
    before = rewards.double().cumsum(-1) - rewards.double()
    return rewards.double() - before / torch.arange(rewards.shape[-1]).clamp_min(1)


def naive_variance(rewards, k):
    """E[x^2] - E[x]^2 loses everything under an offset."""
    rewards = rewards.double()
    variance = (rewards.square().mean(-1, keepdim=True) - rewards.mean(-1, keepdim=True).square()).clamp_min(0)
    return get("dr_grpo")(rewards) / (variance.sqrt() + 1e-6)


def in_place(rewards, k):
    return rewards.sub_(rewards.mean(-1, keepdim=True))


def float_binomials(rewards, k):
    """Binomials as floats: infinite above N of about 1000."""
    factorials = torch.arange(1, rewards.shape[-1] + 1, dtype=torch.float64).cumprod(0)
    return get("maxpo")(rewards.double(), k=k) * (factorials / factorials)


def nan_on_flat_groups(rewards, k):
    return get("dr_grpo")(rewards.double()) / rewards.double().std(-1, keepdim=True)


PLANTED = [  # function, the property that must fail, words its text must hold
    (full_group_baseline, "unbiased", "mean over the full group"),
    (full_group_baseline, "own reward", "inside its own baseline"),
    (best_of_all_at_any_k, "unbiased", "a formula for k = N used at k < N"),
    (shrunk, "unbiased", "c = 1 - K/N"),
    (leave_one_out_twice, "unbiased", "c = N/(N-1)"),
    (sum_scale, "unbiased", "c = 1/N"),
    (own_mean, "unbiased", "c = 1 - 1/N"),
    (own_mean, "own reward", "inside its own baseline (the group's): with the others fixed, the advantage moves by 1 - 1/N of"),
    (own_std, "own reward", "inside its own scale"),
    (own_weight, "own reward", "inside its own scale"),
    (mean_of_the_batch, "unbiased", "c = 1 - 1/(GN)"),
    (mean_of_the_batch, "own reward", "the batch's, which includes its own group"),
    (std_of_the_batch, "own reward", "inside its own scale"),
    (residue_over_eps, "constant group", "residue"),
    (std_of_the_others, "float32 residue", "all but one alike"),
    (small_spread, "blow-up", "on rewards in [0, 1]"),
    (median_deviation, "blow-up", "on rewards in [0, 1]"),
    (truncated_integers, "integers", "truncated"),
    (sample_std, "ddof", "ddof 1"),
    (ties_by_order, "ties", "tied rewards get different"),
    (previous_sample, "permutation", "order of the samples"),
    (running_mean, "permutation", "order of the samples"),
    (naive_variance, "offset", "offset of 1,000,000 in float64"),
    (in_place, "pure", "changes the rewards"),
    (float_binomials, "cost", "not finite"),
    (nan_on_flat_groups, "constant group", "0 is divided by 0"),
    (nan_on_flat_groups, "unbiased", "not finite"),
]


@pytest.mark.parametrize("function, failing, words", PLANTED, ids=[f"{row[0].__name__}-{row[1]}" for row in PLANTED])
@pytest.mark.parametrize("convention", WRAPPERS)
def test_planted_mistake(function, failing, words, convention):
    if function is in_place and convention != "groups":
        pytest.skip("the adapter's own tensor changes, which harms nobody")
    started = time.process_time()
    if function is truncated_integers and convention == "verl":
        report = check_estimator(integer_verl)
    else:
        report = check_estimator(WRAPPERS[convention](function))
    assert not report.ok and failing in report.failed, str(report)
    assert words in report[failing].text, str(report)
    assert time.process_time() - started < 30
    if failing != "cost":
        assert report[failing].counter_example is not None
        assert failing == "pure" or failing == "unbiased" or report[failing].got != report[failing].expected


def integer_verl(token_level_rewards, response_mask, index, k=1):
    def plain(scores, k):
        return get("maxpo")(scores, k=k)

    norms = torch.zeros(response_mask.shape)
    advantages, _ = in_verl(plain)(token_level_rewards, response_mask, index, norms, norms, k)
    return (advantages.to(token_level_rewards.dtype).to(response_mask.dtype) * response_mask,) * 2


def test_counter_examples_are_the_smallest_and_show_it():
    """Rewards in, advantages out, expected: fed to the function again they give what the report says."""
    for function, failing, smallest in (
        (ties_by_order, "ties", [0.0, 1.0, 1.0]), (previous_sample, "permutation", [1.0, 0.0, 0.0]),
        (truncated_integers, "integers", [0, 0, 1]), (std_of_the_others, "float32 residue", None), (small_spread, "blow-up", None),
    ):  # fmt: skip
        found = check_estimator(function)[failing]
        assert smallest is None or found.counter_example == smallest
        dtype = {"integers": torch.long, "float32 residue": torch.float32}.get(failing, torch.float64)
        k = int(found.given.partition("k = ")[2][:1] or 2)
        again = function(torch.tensor(found.counter_example, dtype=dtype), k)
        torch.testing.assert_close(again.double(), torch.tensor(found.got).double(), rtol=1e-2, atol=1e-5)
        assert found.expected is None or found.expected != found.got
        assert f"rewards {found.counter_example}" in found.shown() and f"advantages {found.got}" in found.shown()
    bandit = check_estimator(shrunk)["unbiased"].counter_example
    assert bandit.startswith("[0.0, 1.0], one per arm, uniform policy, N = 2, K = 1: E[g] = [-0.125, 0.125]")
    constant = check_estimator(residue_over_eps)["constant group"]
    assert len(set(constant.counter_example)) == 1 and len(constant.counter_example) <= 10 and set(constant.expected) == {0.0}
    bad = check_estimator(own_std)["own reward"]
    assert len(bad.counter_example) == 4 and abs(bad.got[0] - bad.expected[0]) > 1e-3
    alike = check_estimator(std_of_the_others)["float32 residue"].counter_example
    assert len(set(alike[:-1])) == 1 and alike[-1] != alike[0]


def test_an_own_reward_in_a_median_is_not_cleared():
    assert check_estimator(median_deviation)["own reward"].status != "pass"


def test_nan_on_flat_groups_is_no_dependence_on_order():
    report = check_estimator(nan_on_flat_groups)
    assert not {"pure", "ties", "permutation"} & set(report.failed) and report["groups"].status == "pass", str(report)


def test_the_order_of_a_batch_is_shown_as_a_batch():
    found = check_estimator(mean_of_the_batch)["groups"]
    assert found.status == "note" and len(found.counter_example) == 3 and len(found.got) == 3 and "each group alone" in found.given


def test_right_baselines_from_other_groups_are_cleared():
    def other_groups(rewards, k):
        others = (rewards.double().sum() - rewards.double().sum(-1, keepdim=True)) / (rewards.numel() - rewards.shape[-1])
        return rewards.double() - (others if len(rewards) > 1 else 0)

    report = check_estimator(other_groups)
    assert report.ok and "other groups" in report["groups"].text, str(report)
