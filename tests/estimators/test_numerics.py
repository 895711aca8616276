"""Large groups, extreme magnitudes, offsets, number types."""

import itertools
import random
from fractions import Fraction

import oracles
import pytest
import torch

from maxpo_bench.check.properties import samples
from maxpo_bench.estimators import get, names
from maxpo_bench.estimators.order_statistics import others_below


def valid_ks(estimator, n):
    ks = estimator.valid_k(n)
    return sorted({k for k in (1, 2, 3, 8, n // 2, n - 1, n) if k in ks})


def drawn(estimator, n, num_groups=2, seed=0):
    return samples(estimator.rewards, n, num_groups, seed)


@pytest.mark.parametrize("k", [2, 50, 150])
def test_maxpo_against_exact_arithmetic_at_n_200(k):
    rng = random.Random(k)
    for row in (
        [rng.random() for _ in range(200)],
        [float(rng.random() < 0.3) for _ in range(200)],
        [round(rng.random() * 10) / 10 for _ in range(200)],
    ):
        exact = oracles.maxpo_sorted(row, k)
        found = get("maxpo")(torch.tensor(row, dtype=torch.float64), k=k).tolist()
        assert max(abs(Fraction(a) - e) / abs(e) if e else abs(Fraction(a)) for a, e in zip(found, exact, strict=True)) <= 1e-9


@pytest.mark.parametrize("n, k", [(1000, 3), (1000, 500), (1000, 999)])
def test_weights_against_exact_binomials(n, k):
    from math import comb

    weights = others_below(n, k).tolist()
    for j in list(range(0, n, 97)) + [n - 1]:
        exact = Fraction(comb(j, k - 1), comb(n - 1, k - 1))
        assert abs(Fraction(weights[j]) - exact) <= Fraction(1, 10**12) * exact + Fraction(1, 10**300)


@pytest.mark.parametrize("n", [1025, 16384])
@pytest.mark.parametrize("name", names())
def test_finite_and_sane_for_large_groups(name, n):
    estimator = get(name)
    rewards = drawn(estimator, n)
    for k in valid_ks(estimator, n):
        advantages = estimator(rewards, k=k)
        assert torch.isfinite(advantages).all()
        if estimator.centred:
            assert advantages.sum(-1).abs().max() <= 1e-12 * n * advantages.abs().max()


def test_maxpo_at_n_16384_against_exact_arithmetic():
    """k = 2 by the closed form: q_i is the mean over the others of max(r_i, r_j)."""
    n = 16384
    rewards = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ordered, order = rewards.sort()
    below = torch.arange(n, dtype=torch.float64)
    above = ordered.flip(0).cumsum(0).flip(0) - ordered
    q = (below * ordered + above) / (n - 1)
    v = (below * ordered).sum() * 2 / (n * (n - 1))
    wanted = torch.empty_like(q).scatter_(0, order, 2 * n / (n - 2) * (q - v))
    assert (get("maxpo")(rewards, k=2) - wanted).abs().max() < 1e-11


STANDARDISED = {  # name: options under which the magnitude of the rewards does not matter at all
    "grpo": {"eps": 0},
    "bon_mean": {},
    "grpo_loo_std": {"eps": 0},
    "grpo_passk": {"eps": 0},
    "mc_grpo": {"eps": 0},
    "qae": {"eps": 0},
    "reinforce_pp": {"eps": 0},
    "reinforce_pp_baseline": {"eps": 0},
    "dgpo": {"eps": 0, "temperature": float("inf")},
}
NOT_EQUIVARIANT = {*STANDARDISED, "rs_grpo", "entropic_loo", "ngrpo"}
EQUIVARIANT = [name for name in names() if get(name).rewards == "any" and name not in NOT_EQUIVARIANT]


@pytest.mark.parametrize("magnitude", [1e-8, 1e8])
@pytest.mark.parametrize("name", EQUIVARIANT)
def test_magnitudes(name, magnitude):
    estimator = get(name)
    rewards = drawn(estimator, 16)
    options = {"eps": 0} if "eps" in estimator.options else {}  # of jspo's weight
    for k in valid_ks(estimator, 16):
        base = estimator(rewards, k=k, **options)
        scaled = estimator(rewards * magnitude, k=k, **options) / magnitude
        assert (scaled - base).abs().max() <= 1e-11 * base.abs().max()


@pytest.mark.parametrize("magnitude", [1e-8, 1e8])
@pytest.mark.parametrize("name, options", STANDARDISED.items())
def test_standardised_estimators_ignore_the_magnitude(name, options, magnitude):
    rewards = drawn(get(name), 16)
    base = get(name)(rewards, k=4, **options)
    assert (get(name)(rewards * magnitude, k=4, **options) - base).abs().max() < 1e-11 * base.abs().max()


def test_rs_grpo_neither_overflows_nor_loses_small_rewards():
    rewards = drawn(get("rs_grpo"), 16)
    large = get("rs_grpo")(rewards * 1e8)
    assert torch.isfinite(large).all() and large.any()
    small = get("rs_grpo")(rewards * 1e-8) / 1e-8
    assert (small - get("dr_grpo")(rewards)).abs().max() < 1e-6
    wanted = (torch.exp(2 * rewards) / torch.exp(2 * rewards).mean(-1, keepdim=True) - 1) / 2
    assert (get("rs_grpo")(rewards) - wanted).abs().max() < 1e-13


SHIFT_INVARIANT = [
    name for name in names() if get(name).rewards == "any" and name not in ("reinforce", "pkpo_raw", "pkpo_loo", "ngrpo", "krpo")
]


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
def test_an_offset_of_a_million(name):
    estimator = get(name)
    rewards = (drawn(estimator, 16) * 1024).round() / 1024  # exact beside 1e6
    for k in valid_ks(estimator, 16):
        if name == "baseline_blend" and k == 1:  # reinforce in part
            continue
        base = estimator(rewards, k=k)
        assert (estimator(rewards + 1e6, k=k) - base).abs().max() <= 1e-12 * base.abs().max().clamp_min(1)


def test_an_offset_leaves_uncentred_pkpo_accurate():
    rewards = (drawn(get("pkpo_raw"), 16) * 1024).round() / 1024
    shifted = get("pkpo_raw")(rewards + 1e6, k=4) - 4e6
    assert (shifted - get("pkpo_raw")(rewards, k=4)).abs().max() < 1e-8


SILENT = (
    "pkpo",
    "best_gap",
    "fitted_blend",
    "opo",
    "optimal_baseline",
    "grpo_loo_std",
    "grpo_passk",
    "entropic_loo",
    "qae",
    "mc_grpo",
    "jspo",
    "jspo_max",
    "reinforce_pp",
)  # not centred, and zero where all groups are alike and flat


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 + 0.1, -7.7, 1e-8, 1e8, 0.0, 1.0])
@pytest.mark.parametrize("name", [name for name in names() if get(name).centred or name in SILENT])
def test_a_constant_group_gives_exact_zeros(name, value):
    estimator = get(name)
    if (
        value not in (0.0, 1.0)
        and estimator.rewards == "binary"
        or not 0 <= value <= 1
        and estimator.rewards == "unit interval"
        or value < 0
        and estimator.rewards != "any"
    ):
        pytest.skip("outside the estimator's rewards")
    for n, dtype in itertools.product((2, 3, 7, 64), (torch.float32, torch.float64)):
        for k in valid_ks(estimator, n):
            assert not estimator(torch.full((2, n), value, dtype=dtype), k=k).any()


@pytest.mark.parametrize("name", names())
def test_number_types(name):
    estimator = get(name)
    k = estimator.valid_k(8)[-1]
    whole = samples("binary", 8, 6)
    exact = estimator(whole, k=k)
    for dtype in (torch.int64, torch.int32, torch.uint8, torch.bool):
        found = estimator(whole.to(dtype), k=k)
        assert found.dtype == torch.get_default_dtype()
        assert torch.equal(found, exact.to(found.dtype))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        found = estimator(whole.to(dtype), k=k)
        assert found.dtype == dtype
        assert torch.equal(found, exact.to(dtype))  # float64 inside, rounded once


@pytest.mark.parametrize("name", [name for name in names() if name != "krpo"])  # a filter along the group
def test_ties_and_permutations(name):
    estimator = get(name)
    rewards = samples(estimator.rewards, 12, 32)
    tied = rewards.unsqueeze(-1) == rewards.unsqueeze(-2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for k in valid_ks(estimator, 12):
        advantages = estimator(rewards, k=k)
        gap = (advantages.unsqueeze(-1) - advantages.unsqueeze(-2)).abs()
        # Exact within a group; a fit on other groups may cost an ulp.
        assert gap[tied].max() <= (1e-14 * advantages.abs().max() if estimator.across_groups else 0)
        assert (estimator(rewards[:, order], k=k) - advantages[:, order]).abs().max() <= 1e-12 * advantages.abs().max()


# Not of an estimator that looks across groups: least variance over all groups may reverse the order within one.
@pytest.mark.parametrize("name", [name for name in names() if not get(name).across_groups and name != "krpo"])
def test_better_rewards_never_get_less(name):
    estimator = get(name)
    rewards = samples(estimator.rewards, 12, 32).sort(-1).values
    for k in valid_ks(estimator, 12):
        assert estimator(rewards, k=k).diff(dim=-1).min() >= -1e-12


@pytest.mark.parametrize("name", names())
def test_leading_axes_are_batches(name):
    estimator = get(name)
    rewards = samples(estimator.rewards, 8, 24).view(2, 3, 4, 8)
    k = estimator.valid_k(8)[0]
    together = estimator(rewards, k=k)
    assert together.shape == rewards.shape
    for a, b in itertools.product(range(2), range(3)):
        assert torch.allclose(together[a, b], estimator(rewards[a, b], k=k), rtol=0, atol=1e-14)
    if not estimator.across_groups:
        assert torch.equal(estimator(rewards[1, 2, 3], k=k), together[1, 2, 3])
    strided = rewards.transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.allclose(estimator(strided, k=k), together, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", names())
def test_an_expanded_tensor_is_read_like_any_other(name):
    """One reward with stride 0 along the group; torch.median reads beyond it."""
    estimator = get(name)
    for value in (torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])):
        rewards = value.double().expand(2, 5)
        for k in valid_ks(estimator, 5):
            assert torch.equal(estimator(rewards, k=k), estimator(rewards.contiguous(), k=k))


@pytest.mark.parametrize("name", names())
def test_rewards_stay_as_they_were_and_are_not_shared(name):
    estimator = get(name)
    rewards = samples(estimator.rewards, 8, 4)
    before = rewards.clone()
    advantages = estimator(rewards, k=estimator.valid_k(8)[-1])
    advantages.add_(1)
    assert torch.equal(rewards, before)


def test_weights_serve_training_after_inference_mode():
    with torch.inference_mode():
        get("maxpo")(torch.rand(2, 23), k=5)
    log_probs = torch.zeros(2, 23, requires_grad=True)
    (get("maxpo")(torch.rand(2, 23), k=5) * log_probs).sum().backward()
    assert log_probs.grad is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", names())
def test_the_device_is_kept(name):
    estimator = get(name)
    rewards = samples(estimator.rewards, 16, 8)
    for k in valid_ks(estimator, 16):
        advantages = estimator(rewards.cuda(), k=k)
        assert advantages.device.type == "cuda"
        assert (advantages.cpu() - estimator(rewards, k=k)).abs().max() < 1e-12
