"""A function is named where it equals an estimator at every k tried, up to options; k = 1 alone never decides."""

import pytest
import torch

from maxpo_bench.check import check_estimator
from maxpo_bench.estimators import get


def named(function, **arguments):
    return check_estimator(function, **arguments).equals


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-9])
def test_grpo_with_its_options(ddof, eps):
    def mine(rewards):
        return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, correction=ddof, keepdim=True) + eps)

    default = ddof == 0 and eps == 1e-6
    assert named(mine) == ("grpo" if default else "grpo with " + "ddof = 1, " * ddof + f"eps = {eps}")


def test_an_eps_inside_the_root_is_only_nearly_grpo():
    def mine(rewards):
        return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    report = check_estimator(mine)
    assert report.equals is None and report.nearly.startswith("grpo")
    assert "but for groups that are nearly flat" in str(report)


@pytest.mark.parametrize("name, options", [
    ("f_grpo", {"form": "mapo"}), ("f_grpo", {"gamma": 1.0}), ("gpg", {"count": "rewards"}), ("rs_grpo", {"beta": 4.0}),
    ("reinforce_pp_baseline", {"std_of": "rewards", "eps": 1e-4}), ("qae", {"quantile": 0.8}),
    ("order_statistic", {"weights": "TopM:2"}),
])  # fmt: skip
def test_other_options_are_found(name, options):
    def mine(rewards, k):
        return get(name)(rewards, k=k, **options)

    assert set(named(mine).removeprefix(f"{name} with ").split(", ")) >= {f"{key} = {value}" for key, value in options.items()}


def test_who_ships_it():
    def grpo(rewards):
        return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + 1e-6)

    assert "equals: grpo with ddof = 1, eps = 1e-06, as shipped by verl (grpo, grpo_vectorized), " in str(check_estimator(grpo))
    assert check_estimator(lambda rewards: get("grpo")(rewards, ddof=1, eps=1e-9)).shipped_as == "OpenRLHF (group_norm)"
    scaled = check_estimator(lambda rewards: get("grpo")(rewards, ddof=1, eps=1e-4) * rewards.shape[-1] / (rewards.shape[-1] - 1))
    assert scaled.equals == "grpo with ddof = 1, eps = 0.0001, times N/(N-1)"
    assert scaled.shipped_as == "ms-swift (rloo, scale group)"
    assert check_estimator(get("maxpo")).shipped_as == ""


def test_a_function_without_k_is_never_one_with_k_at_one():
    assert named(lambda rewards: get("maxpo")(rewards, k=1)) == "rloo"
    assert named(lambda rewards, k: get("pkpo")(rewards, k=1)) == "rloo"
    assert named(lambda rewards, k=1: get("rloo")(rewards)) == "rloo"


def test_equal_at_one_k_is_not_equal():
    def changes(rewards, k):
        return get("maxpo" if k < 3 else "pkpo")(rewards, k=k)

    assert named(changes) is None

    def maxpo_but_at_one(rewards, k):
        return get("maxpo")(rewards, k=k) if k > 1 else get("reinforce")(rewards)

    assert named(maxpo_but_at_one) is None


def test_equal_for_one_group_size_is_not_equal():
    def changes(rewards):
        return get("rloo" if rewards.shape[-1] < 5 else "dr_grpo")(rewards)

    assert named(changes) is None


def test_equal_on_binary_rewards_is_not_equal():
    def changes(rewards):
        centred = get("rloo")(rewards)
        return torch.where((rewards * (1 - rewards) == 0).all(-1, keepdim=True), centred, 2 * centred + 0.1)

    assert named(changes) is None


def test_factors():
    assert named(lambda rewards, k: k * get("rloo")(rewards)) == "rloo, times K"
    assert named(lambda rewards: 0.5 * get("rloo")(rewards)) == "rloo, times 0.5"
    assert named(lambda rewards, k: get("maxpo")(rewards, k=k) / k) == "maxpo, times 1/K"
    assert named(lambda rewards: get("best_gap")(rewards, k=rewards.shape[-1])) == "best_gap at k = N"


def test_k_told_for_a_function_that_takes_none():
    def at_two(rewards):
        return get("maxpo")(rewards, k=2)

    told = check_estimator(at_two, k=2)
    assert told.ok and told.equals == "maxpo", str(told)
    untold = check_estimator(at_two)
    assert "unbiased" in untold.failed and untold.equals == "maxpo at k = 2"
    with pytest.raises(ValueError, match="k = 9: the check enumerates"):
        check_estimator(at_two, k=9)


def test_a_mistake_at_a_large_k_is_shown():
    report = check_estimator(lambda rewards: 2 * get("maxpo")(rewards, k=6), k=6)
    assert "wrong scale" in report["unbiased"].text and "N = 7, K = 6: E[g] = " in report["unbiased"].counter_example, str(report)


@pytest.mark.parametrize("k", [4, 6])
def test_k_told_beyond_the_usual_groups(k):
    def at_k(rewards):
        return get("maxpo")(rewards, k=k)

    report = check_estimator(at_k, k=k)
    assert report.ok and report.equals == "maxpo" and report.objective == "J_K", str(report)
