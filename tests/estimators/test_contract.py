"""The registry and the contract: discovery, declarations, errors that name the estimator, the value and the place."""

import ast
import subprocess
import sys

import pytest
import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names
from maxpo_bench.estimators.contract import OBJECTIVES, Estimator, estimator

TABLE = (
    "reinforce rloo dr_grpo grpo pkpo_raw pkpo_loo pkpo maxpo pkpo_centred best_gap bon_mean passk_training maxrl "
    "tailrl rs_grpo passk_reweighted baseline_blend fitted_blend reinforce_pp reinforce_pp_baseline jspo jspo_max opo "
    "optimal_baseline grpo_loo_std grpo_passk mmpo maxrl_order maclaurin maxrl_subset order_statistic entropic_loo qae f_grpo "
    "bnpo ngrpo dgpo mc_grpo gpg psr nsr w_reinforce krpo"
).split()


def test_every_row_of_the_table_is_in_the_registry():
    assert set(TABLE) <= set(names())
    assert names() == sorted(names())


def test_names_does_not_import_torch():
    code = "import sys; from maxpo_bench.estimators import names\nassert len(names()) >= 17 and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", names())
def test_declaration(name):
    found = get(name)
    assert isinstance(found, Estimator) and found.name == name
    assert found.objective in (*OBJECTIVES, "min_K", "none")
    assert found.cost in ("N", "N log N")
    assert found.path.name == f"{name}.py" and found.path.is_file()
    assert found.source and "k" in found.__doc__
    assert found.unbiased == (found.unbiased_on == "any")
    assert isinstance(found.valid_k(8), range)


def test_unknown_name_names_the_nearest():
    with pytest.raises(InputError, match="unknown estimator 'maxpoo', did you mean 'maxpo'?"):
        get("maxpoo")


@pytest.mark.parametrize("name", names())
def test_k_outside_its_range(name):
    found = get(name)
    for k in (0, -1, 5, 1.5, None, True):
        with pytest.raises(InputError, match=rf"{name}: k = {k!r} is outside its range for N = 4"):
            found(torch.zeros(2, 4), k=k)


@pytest.mark.parametrize("name", ["maxpo", "pkpo_loo", "bon_mean", "passk_training", "baseline_blend"])
def test_k_equal_to_n_is_refused_where_no_leave_one_out_value_exists(name):
    with pytest.raises(InputError, match=rf"{name}: k = 4 is outside its range for N = 4: 1..3"):
        get(name)(torch.zeros(2, 4), k=4)


def test_best_gap_takes_k_equal_to_n_alone():
    with pytest.raises(InputError, match="best_gap: k = 3 is outside its range for N = 4: 4 alone"):
        get("best_gap")(torch.zeros(2, 4), k=3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", names())
def test_bad_reward_is_named_with_its_place(name, bad):
    rewards = torch.zeros(3, 4)
    rewards[1, 2] = bad
    place = r"rewards\[1, 2\] \(group 1, sample 2\)"
    with pytest.raises(ValueError, match=rf"{name}: needs a finite reward, got {bad} at {place}"):
        get(name)(rewards, k=get(name).valid_k(4)[0])


def legal(name, n=4):
    """(rewards [2, n] float64, k) that an estimator takes."""
    k = 2 if 2 in get(name).valid_k(n) else get(name).valid_k(n)[0]
    return torch.tensor([[1.0, 0.0] * (n // 2), [0.0] * (n - 1) + [1.0]], dtype=torch.float64), k


@pytest.mark.parametrize("name", names())
def test_lists_and_numpy_arrays_are_taken(name):
    rewards, k = legal(name)
    one, side = get(name), {"score_norms": torch.rand(2, 4), "lengths": torch.rand(2, 4) + 1}
    assert torch.equal(one(rewards.tolist(), k=k), one(rewards.float(), k=k))
    array = rewards.numpy()
    array.flags.writeable = False
    assert torch.equal(one(array, k=k, **side), one(rewards, k=k, **side))
    assert torch.equal(one(array.astype("int64"), k=k), one(rewards.long(), k=k))
    lists = {key: values.tolist() for key, values in side.items()}
    assert torch.equal(one(rewards, k=k, **lists), one(rewards, k=k, **side))


@pytest.mark.parametrize("bad", [[[1.0, 0.0], [1.0]], ["a", "b"], None, "rewards", {"a": 1.0}, object(), [1 + 2j, 0j]])
@pytest.mark.parametrize("name", names())
def test_what_is_no_table_of_numbers_is_one_line(name, bad):
    with pytest.raises(InputError, match=rf"^{name}: rewards must be ") as caught:
        get(name)(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", names())
def test_half_precision_gives_finite_advantages_or_one_line(name):
    _, k = legal(name)
    if get(name).rewards in ("any", "non-negative"):
        rewards = [[60000.0, 59000.0, 0.0, 100.0], [65504.0, 0.0, 0.0, 0.0]]
        rewards += [[-65504.0, 65504.0, 1.0, 0.0], [-60000.0, 0.0, 0.0, 0.0]] if get(name).rewards == "any" else []
    else:
        rewards = legal(name)[0].tolist()
    try:
        assert torch.isfinite(get(name)(torch.tensor(rewards, dtype=torch.float16), k=k)).all()
    except InputError as error:
        assert "float32" in str(error) and "\n" not in str(error) and name in str(error)


def test_two_infinities_that_cancel_are_seen():
    with pytest.raises(InputError, match="finite"):
        get("maxpo")(torch.tensor([float("inf"), float("-inf"), 0.0]), k=1)


@pytest.mark.parametrize("name, bad", [("passk_training", 0.5), ("maxrl", -0.5), ("passk_reweighted", 1.5)])
def test_rewards_outside_the_formula(name, bad):
    rewards = torch.zeros(2, 3, 4, dtype=torch.float64)
    rewards[1, 0, 3] = bad
    place = r"rewards\[1, 0, 3\] \(group \(1, 0\), sample 3\)"
    with pytest.raises(InputError, match=rf"{name}: needs rewards .*, got {bad} at {place}"):
        get(name)(rewards, k=1)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (3, 0)])
@pytest.mark.parametrize("name", names())
def test_too_small_groups(name, shape):
    with pytest.raises(InputError, match=rf"{name}: rewards must be .* with N >= 2"):
        get(name)(torch.zeros(shape))


def test_unknown_option_names_the_nearest():
    with pytest.raises(InputError, match="grpo: unknown option 'dof', did you mean 'ddof'?"):
        get("grpo")(torch.zeros(2, 4), dof=1)


@pytest.mark.parametrize(
    "name, options",
    [
        ("grpo", {"ddof": 2}),
        ("grpo", {"eps": -1}),
        ("rs_grpo", {"beta": 0}),
        ("rs_grpo", {"beta": float("inf")}),
        ("baseline_blend", {"w": float("nan")}),
        ("reinforce_pp_baseline", {"std_of": "group"}),
        ("qae", {"quantile": 0}),
        ("f_grpo", {"form": "focus"}),
        ("f_grpo", {"gamma": -1}),
        ("ngrpo", {"r_max": float("inf")}),
        ("gpg", {"count": "tokens"}),
        ("w_reinforce", {"weight": -0.1}),
        ("entropic_loo", {"beta": 0}),
        ("entropic_loo", {"beta": "fixed"}),
        ("order_statistic", {"weights": "max"}),
        ("order_statistic", {"weights": "TopM:3"}),
        ("order_statistic", {"weights": "BotM:x"}),
        ("order_statistic", {"weights": (1.0, 0.0, 0.0)}),
        ("order_statistic", {"weights": (1.0, float("nan"))}),
    ],
)
def test_bad_options(name, options):
    with pytest.raises(InputError, match=name):
        get(name)(torch.zeros(2, 4), k=2, **options)


@pytest.mark.parametrize("name", names())
def test_a_file_can_be_read_whole(name):
    """A baseline, not a research project: at most 40 lines of code, 70 with docstrings and comments."""
    text = get(name).path.read_text(encoding="utf-8")
    docstrings = [
        node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    inside = {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)}
    code = [
        line
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.strip().startswith("#") and number not in inside
    ]
    assert len(code) <= 40 and len(text.splitlines()) <= 70


@pytest.mark.parametrize(
    "side, bad, wanted",
    [("score_norms", -1.0, "score norm >= 0"), ("lengths", 0.0, "length > 0"), ("lengths", float("nan"), "length > 0")],
)
def test_side_information_reaches_only_those_that_name_it(side, bad, wanted):
    def weighted(rewards, score_norms=None, lengths=None):
        weights = score_norms if side == "score_norms" else lengths
        return rewards if weights is None else rewards * weights

    def by_norm(rewards, score_norms=None):
        return weighted(rewards, score_norms=score_norms)

    def by_length(rewards, lengths=None):
        return weighted(rewards, lengths=lengths)

    function = by_norm if side == "score_norms" else by_length
    one = estimator(objective="none", centred=False, cost="N", source="this test", across_groups=True)(function)
    rewards, values = torch.rand(2, 3), torch.rand(2, 3) + 0.1
    assert one.side == (side,) and not one.options
    assert torch.allclose(one(rewards, k=2, **{side: values}), rewards * values)
    whole = torch.tensor([[3, 1, 2], [1, 1, 5]])
    assert torch.allclose(one(rewards, **{side: whole}), rewards * whole)
    assert torch.equal(one(rewards, score_norms=None, lengths=None), rewards)
    other = {"score_norms": "lengths", "lengths": "score_norms"}[side]
    assert torch.equal(one(rewards, **{other: values[0]}), rewards)
    with pytest.raises(InputError, match=rf"{one.name}: {side} has shape \[3\], rewards have \[2, 3\]"):
        one(rewards, **{side: values[0]})
    values[1, 2] = bad
    with pytest.raises(ValueError, match=rf"{one.name}: needs a finite {wanted}, got {bad} at {side}\[1, 2\] \(group 1, sam"):
        one(rewards, **{side: values})
    with pytest.raises(InputError, match=rf"{one.name}: rewards must be \[..., groups, N\]"):
        one(rewards[0])


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4), (0, 3, 4)])
def test_empty_batch(name, shape):
    one, rewards = get(name), torch.zeros(shape, dtype=torch.float32)
    found = one(rewards, k=one.valid_k(4)[-1], **{side: rewards for side in one.side})
    assert found.shape == shape and found.dtype == torch.float32


def test_gradients_do_not_flow_into_rewards():
    rewards = torch.rand(2, 4, requires_grad=True)
    assert not get("maxpo")(rewards, k=2).requires_grad
