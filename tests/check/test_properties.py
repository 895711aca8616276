"""Every declaration in the registry against the derived property table."""

import functools

import pytest
import torch

from maxpo_bench.check import properties
from maxpo_bench.check.properties import derive, expected_gradient, fit_objectives, table
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names
from maxpo_bench.studies import properties as study


@functools.cache
def derived(name):
    return derive(get(name))


def test_table_has_a_row_for_each_estimator(monkeypatch):
    monkeypatch.setattr(properties, "derive", lambda estimator: derived(estimator.name))
    rows = table()
    assert list(rows["estimator"]) == names()
    assert not rows.isna().any().any()


@pytest.mark.parametrize("name", names())
def test_declared_objective_and_scale(name):
    estimator, row = get(name), derived(name)
    wanted = {"any": estimator.objective, "binary": f"{estimator.objective} on binary rewards", "none": "none"}
    assert row["unbiased_for"] == wanted[estimator.unbiased_on]
    if estimator.objective == "none":
        assert row["parallel_to"] == "none"
    else:
        assert row["parallel_to"].startswith(estimator.objective)
        kinds = [arms for arms in properties.KINDS.values() if properties.in_domain(arms, estimator.rewards)]
        if estimator.unbiased_on != "binary":
            for fit in properties.aims(estimator, kinds, (3,), {3: estimator.valid_k(3)}, 1 + estimator.across_groups)[
                estimator.objective
            ]:
                assert fit.factor == pytest.approx(estimator.scale(fit.n, fit.k), rel=1e-9)
    if estimator.unbiased and estimator.objective in ("J_1", "J_K"):
        assert row["bias_j1" if estimator.objective == "J_1" else "bias_jk"] < 1e-10


@pytest.mark.parametrize("name", names())
def test_declared_centring(name):
    assert derived(name)["centred"] == ("yes" if get(name).centred else "no")
    if get(name).centred:
        assert derived(name)["flat_group"] == "zeros"


@pytest.mark.parametrize("name", names())
def test_declared_k(name):
    estimator = get(name)
    if estimator.across_groups:
        pytest.skip("accepted_k tries single groups")
    for n in (2, 4, 7):
        assert properties.accepted_k(estimator, n) == list(estimator.valid_k(n))


@pytest.mark.parametrize("name", names())
def test_what_every_estimator_must_do(name):
    row = derived(name)
    assert [row[key] for key in ("float32", "integers")] == ["ok", "ok"]
    if name != "krpo":
        assert [row[key] for key in ("depends_on_order", "ties")] == ["no", "equal"]


@pytest.mark.parametrize(
    "name, cells",
    [
        (
            "maxpo",
            {
                "scaling": "equivariant",
                "shift": "invariant",
                "k_1": "rloo",
                "k_n_minus_1": "best against rest",
                "valid_k": "1..N-1",
                "sign": "both",
            },
        ),
        ("pkpo", {"sign": ">= 0", "valid_k": "1..N", "k_1": "rloo", "flat_group": "zeros"}),
        ("pkpo_raw", {"shift": "no", "flat_group": "not zero", "k_1": "reinforce"}),
        ("pkpo_loo", {"centred": "no", "shift": "no"}),
        ("best_gap", {"sign": ">= 0", "valid_k": "N", "k_1": "refused"}),
        ("dr_grpo", {"scale": "1 - 1/N", "k_1": "(1 - 1/N) rloo"}),
        ("grpo", {"scaling": "nearly invariant", "shift": "invariant"}),
        ("bon_mean", {"scaling": "invariant"}),
        ("maxrl", {"parallel_to": "sum J_K/K on binary rewards", "scaling": "invariant", "direction": "J_1 on binary rewards"}),
        ("grpo_loo_std", {"parallel_to": "none", "direction": "J_1", "own_sample": "no", "centred": "no"}),
        ("entropic_loo", {"parallel_to": "none", "direction": "E exp(2 r)", "own_sample": "no", "flat_group": "zeros"}),
        ("passk_training", {"parallel_to": "none", "direction": "J_1", "own_sample": "n/a"}),
        ("grpo", {"direction": "J_1 on binary rewards", "own_sample": "yes", "all_but_one": 2.0}),
        ("krpo", {"parallel_to": "J_1", "scale": "varies", "depends_on_order": "yes", "flat_group": "not zero"}),
        ("mc_grpo", {"all_but_one": 5000.0, "flat_group": "zeros"}),
        ("ngrpo", {"flat_group": "not zero", "own_sample": "yes"}),
        ("opo", {"direction": "none", "own_sample": "yes", "unbiased_for": "none"}),
        ("optimal_baseline", {"unbiased_for": "J_1", "own_sample": "no"}),
        ("jspo", {"unbiased_for": "J_1", "own_sample": "no", "flat_group": "not zero"}),
        ("gpg", {"parallel_to": "none", "direction": "J_1"}),
        ("mmpo", {"unbiased_for": "sum to K of J_j"}),
        ("maxrl_order", {"unbiased_for": "sum to K of J_j/j"}),
        ("order_statistic", {"unbiased_for": "min_K"}),
        ("w_reinforce", {"parallel_to": "J_1", "scale": "1.1"}),
    ],
)
def test_known_cells(name, cells):
    assert {key: derived(name)[key] for key in cells} == cells


@pytest.mark.parametrize("n, k", [(4, 2), (5, 3)])
def test_bias_of_the_negative_control(n, k):
    """E = grad J_K - (K/N)(grad J_K - grad J_(K-1))."""
    fit = fit_objectives(get("pkpo_centred"), list(properties.KINDS.values()), n, k)["J_K"]
    assert fit.mixture[:2] == pytest.approx((1 - k / n, k / n), abs=1e-10)
    assert fit.mixture[2] < 1e-10 and fit.bias > 0.01


def test_enumeration_against_sampling():
    """The exact E[g] lies within five standard errors of a plain Monte Carlo of the same bandit."""
    logits, arms_rewards, n, k, num_groups = (1.0, -0.5, 0.3), torch.tensor([0.1, 0.4, 1.0]).double(), 4, 2, 40_000
    arms = properties.all_groups(3, n)
    exact = expected_gradient(get("grpo")(arms_rewards[arms], k=k), arms, logits)
    policy = torch.tensor(logits, dtype=torch.float64).softmax(0)
    drawn = torch.multinomial(policy, num_groups * n, True, generator=torch.Generator().manual_seed(0)).view(-1, n)
    scores = torch.nn.functional.one_hot(drawn, 3) - policy
    estimates = (get("grpo")(arms_rewards[drawn], k=k)[..., None] * scores).mean(1)  # [groups, A]
    error = estimates.std(0) / num_groups**0.5
    assert ((estimates.mean(0) - exact).abs() < 5 * error).all()


def test_exact_gradient_against_finite_differences():
    rewards, logits, step = (0.1, 0.4, 1.0), (1.0, -0.5, 0.3), 1e-6
    values = torch.tensor(rewards, dtype=torch.float64)
    for objective, power in (("J_1", 1), ("J_K", 3), ("J_N", 5)):
        found = properties.exact_gradients(rewards, logits, 5, 3)[objective]
        for a in range(3):
            change = step * torch.eye(3, dtype=torch.float64)[a]
            high, low = (
                properties.arms_expected_max(torch.tensor(logits, dtype=torch.float64) + moved, values, power)
                for moved in (change, -change)
            )
            assert found[a].item() == pytest.approx(((high - low) / (2 * step)).item(), abs=1e-6)


@pytest.mark.parametrize(
    "wrong, cell, value",
    [
        (lambda r, k=1: r - r.mean(-1, keepdim=True), "scale", "1 - 1/N"),
        (lambda r, k=1: get("rloo")(r) + 0.1 * r[..., :1] * 0 + torch.arange(r.shape[-1]) * 0.01, "depends_on_order", "yes"),
        (lambda r, k=1: get("rloo")(r) * r.amax(-1, keepdim=True), "unbiased_for", "J_1 on binary rewards"),
        (lambda r, k=1: get("rloo")(r) * r.sum(-1, keepdim=True), "unbiased_for", "none"),
        (lambda r, k=1: get("rloo")(r) * r.sum(-1, keepdim=True), "own_sample", "yes"),
        (lambda r, k=1: get("rloo")(r) * (r.sum(-1, keepdim=True) - r), "own_sample", "no"),
        (lambda r, k=1: get("rloo")(r) * (1 + (r.sum(-1, keepdim=True) - r).abs()), "direction", "J_1"),
        (lambda r, k=1: get("rloo")(r) + 1e-3 * r.amin(-1, keepdim=True), "flat_group", "not zero"),
        (lambda r, k=1: get("rloo")(r) / (r.amax(-1, keepdim=True) - r.amin(-1, keepdim=True) + 1e-3), "all_but_one", 0.999),
    ],
)
def test_the_table_sees_a_planted_mistake(wrong, cell, value):
    class Planted:
        name, rewards, cost, source = "planted", "any", "N", "this test"
        across_groups, side = False, ()

        def __call__(self, rewards, k=1):
            if not 1 <= k <= rewards.shape[-1]:
                raise InputError("k")
            advantages = wrong(rewards.double(), k)
            return advantages.to(rewards.dtype if rewards.is_floating_point() else torch.float32)

    assert derive(Planted())[cell] == value


def test_a_form_has_its_options_fixed_and_a_name_as_written():
    form = properties.form("opo", leave_one_out=True)
    assert form.name == "opo(leave_one_out=True)" and get("opo").name == "opo"
    row = derive(form)
    assert (row["unbiased_for"], row["own_sample"]) == ("J_1", "no")
    assert derive(properties.form("reinforce_pp_baseline", token_weighted=True))["centred"] == "no"
    assert derive(properties.form("gpg", count="rewards"))["direction"] == "J_1 on binary rewards"
    assert derive(properties.form("entropic_loo", beta="adaptive"))["direction"] == "J_1 on binary rewards"
    with pytest.raises(InputError, match="opo: unknown option 'leave_one'"):
        properties.form("opo", leave_one=True)


def test_side_information_of_the_enumeration_decides():
    """OPO as shipped, lengths 3, 1, 2 by arm: biased in size and direction; equal lengths: dr_grpo."""
    kinds = list(properties.KINDS.values())
    fit = fit_objectives(get("opo"), kinds, 5, 2, side=("lengths",))["J_1"]
    assert 0.75 < fit.factor < 0.85 and 0.01 < fit.residual < 0.1 and fit.direction > 0.01
    fit = fit_objectives(get("opo"), kinds, 5, 2)["J_1"]
    assert fit.factor == pytest.approx(0.8) and fit.residual < 1e-12


def test_study_repeats_byte_for_byte(monkeypatch):
    monkeypatch.setattr(properties, "names", lambda: ["grpo", "maxpo", "pkpo"])
    first, second = study.run(), study.run()
    assert first.to_csv(index=False) == second.to_csv(index=False)
    assert len(study.figure(first).axes) == 2 and study.TITLE and study.CAPTION
    assert first.loc[first["estimator"] == "maxpo", "bias_jk"].item() == 0
