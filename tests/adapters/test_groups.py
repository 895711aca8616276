"""Ragged groups, and what every adapter hands an estimator over by. Needs no trainer."""

import pytest
import torch

from maxpo_bench.adapters import Prepared, check_version
from maxpo_bench.adapters.groups import advantages
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names

RAGGED = [[0.0, 1.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.0, 0.25, 1.0, 0.75, 0.5], [1.0, 1.0, 0.0]]


@pytest.mark.parametrize("name", [name for name in names() if not get(name).across_groups and 1 in get(name).valid_k(5)])
def test_each_group_is_as_if_alone(name):
    one = get(name)
    k = 2 if all(2 in one.valid_k(n) for n in (3, 5)) else 1
    groups = [torch.tensor([round(value) if one.rewards == "binary" else value for value in group]).double() for group in RAGGED]
    for found, group in zip(advantages(groups, name, k), groups, strict=True):
        torch.testing.assert_close(found, one(group, k=k), rtol=1e-12, atol=1e-12)


def test_lengths_reach_the_estimator_that_uses_them():
    lengths = [[1, 2, 3, 4, 5], [9, 1, 1], [5, 4, 3, 2, 1], [2, 2, 2]]
    for found, group, count in zip(advantages(RAGGED, "opo", lengths=lengths), RAGGED, lengths, strict=True):
        torch.testing.assert_close(found.double(), get("opo")(torch.tensor(group).double(), lengths=torch.tensor(count)))


def test_types_follow_the_rewards():
    found = advantages([torch.tensor([0, 1, 1]), torch.tensor([0.0, 1.0, 1.0]).double(), [0, 1, 1]], "rloo")
    assert [one.dtype for one in found] == [torch.float32, torch.float64, torch.float32]
    assert advantages([], "rloo") == []
    with pytest.raises(InputError, match="advantages of group 1 do not fit torch.float16; hand over float32"):
        advantages([torch.tensor([0.0, 1.0, 1.0]), torch.tensor([-60000.0, 60000.0, 0.0]).half()], "rloo")


def test_a_k_that_a_small_group_does_not_allow_is_an_error_or_clipped_and_counted():
    with pytest.raises(InputError, match=r"k = 4 does not fit group 1 of 3, which allows k in 1\.\.2; or clip_k=True"):
        advantages(RAGGED, "maxpo", 4)
    found = advantages([*RAGGED, [1.0]], "maxpo", 4, clip_k=True)
    assert found.clipped == 3
    torch.testing.assert_close(found[0], get("maxpo")(torch.tensor(RAGGED[0]), k=4))
    torch.testing.assert_close(found[1], get("maxpo")(torch.tensor(RAGGED[1]), k=2))
    assert found[4].tolist() == [0.0]
    assert advantages(RAGGED, "maxpo", 2, clip_k=True).clipped == 0


@pytest.mark.parametrize(
    "rewards, said",
    [
        ("rewards", "must be a list of 1-D groups, got str"),
        ([[0.0, 1.0], [[0.0, 1.0]]], r"group 1 must be 1-D and not empty, got shape \[1, 2\]"),
        ([[0.0, 1.0], []], "group 1 must be 1-D and not empty"),
        ([[0.0, 1.0], [0.0, None]], "group 1 must be numbers"),
        ([[0.0, 1.0], [0.0, float("nan")]], "group 1 has nan at sample 1"),
    ],
)
def test_bad_rewards(rewards, said):
    with pytest.raises(InputError, match=said):
        advantages(rewards, "rloo")


def test_bad_lengths_and_names():
    with pytest.raises(InputError, match="lengths must be one for each reward"):
        advantages([[0.0, 1.0]], "opo", lengths=[[1, 2, 3]])
    with pytest.raises(InputError, match="did you mean 'maxpo'"):
        advantages([[0.0, 1.0]], "maxp")
    with pytest.raises(InputError, match="grpo: unknown option 'epss'"):
        advantages([[0.0, 1.0]], "grpo", epss=1)
    with pytest.raises(InputError, match=r"reinforce_pp: reads the whole batch.*sizes \[3, 5\]"):
        advantages(RAGGED, "reinforce_pp")


@pytest.mark.parametrize(
    "function, said",
    [
        (lambda rewards: rewards[:, :-1], r"returned shape \[1, 1\] for rewards \[1, 2\]"),
        (lambda rewards: rewards.tolist(), "returned list"),
        (lambda rewards: rewards.long(), "returned torch.int64"),
        (lambda rewards: rewards / 0, r"returned nan at advantages\[0, 0\]"),
    ],
)
def test_a_function_that_returns_no_advantages(function, said):
    with pytest.raises(InputError, match=said):
        advantages([[0.0, 1.0]], function)


def test_a_function_gets_k_and_lengths_where_it_names_them():
    def mine(rewards, k, lengths, scale=1.0):
        return rewards * k + lengths * scale

    found = advantages([[0.0, 1.0]], mine, 2, lengths=[[3, 5]], scale=10.0)
    assert found[0].tolist() == [30.0, 52.0]
    assert Prepared(lambda rewards: rewards).name == "<lambda>"


def test_tested_versions_in_one_line():
    check_version("torch", (1, 0), (99, 0))
    with pytest.raises(InputError, match=r"tested with torch >=98.0,<99.0, found torch \d+\.\d+"):
        check_version("torch", (98, 0), (99, 0))


@pytest.mark.parametrize("function, words", [(lambda rewards, n: rewards, "'n'"), (lambda: None, "takes no rewards")])
def test_a_function_that_wants_what_nobody_hands_over(function, words):
    with pytest.raises(InputError, match=words) as error:
        advantages([[0.0, 1.0]], function)
    assert "\n" not in str(error.value)
    assert len(advantages([[0.0, 1.0]], lambda rewards, scale: rewards * scale, scale=2.0)) == 1
