"""The studies: discovery without torch, published numbers, enumeration of what they call exact, bytes that repeat."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from maxpo_bench import studies
from maxpo_bench.estimators import get
from maxpo_bench.studies import bandit_snr, centring, effective_reward, local_optimum, pkpo_objective, pkpo_variance
from maxpo_bench.studies import regimes as regimes_study

ALL = (
    "bandit_snr",
    "centring",
    "cost",
    "effective_reward",
    "local_optimum",
    "pkpo_objective",
    "pkpo_variance",
    "properties",
    "regimes",
)


def test_studies_are_found_without_importing_torch():
    code = "import sys; from maxpo_bench import studies; print(studies.names()); assert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(ALL) <= set(eval(out))
    with pytest.raises(ValueError, match="did you mean 'regimes'"):
        studies.get("regime")


def test_a_new_study_needs_no_list(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("TITLE = ''\n\n\ndef run():\n    return None\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    monkeypatch.setattr(studies, "FOLDER", tmp_path)
    assert studies.names() == ["mine"]


@pytest.mark.parametrize(
    "k, theta, value, slope",
    [
        (1, 0.8624, 0.6613, -3.069),
        (2, 0.9017, 0.8004, -3.189),
        (4, 0.9387, 0.8924, -1.777),
        (8, 0.9690, 0.9438, -0.354),
        (16, 0.9856, 0.9707, -0.0469),
    ],
)
def test_maximisers_of_the_toy_agree_with_the_published_setting(k, theta, value, slope):
    found = pkpo_objective.maximiser(k)
    assert found == pytest.approx((theta, value), abs=6e-5)
    assert pkpo_objective.objective(1.0, k)[1][0] == pytest.approx(slope, abs=6e-4)


def test_quadrature_agrees_with_monte_carlo_and_its_own_differences():
    x = 0.9 + 0.1 * np.random.default_rng(0).normal(size=(400_000, 4))
    best = np.where((x >= 0) & (x <= 1), x**2, 0).max(1)
    value, slope = pkpo_objective.objective(0.9, 4)
    assert abs(best.mean() - value[0]) < 4 * best.std() / np.sqrt(len(best))
    ahead, behind = (pkpo_objective.objective(0.9 + step, 4)[0][0] for step in (1e-5, -1e-5))
    assert slope[0] == pytest.approx((ahead - behind) / 2e-5, abs=1e-6)


def test_partitioned_is_what_pkpo_averages():
    rewards = torch.tensor([0.3, -1.0, 0.9, 0.5], dtype=torch.float64)
    for baseline in (False, True):
        mean = torch.zeros(4, dtype=torch.float64)
        for order in itertools.permutations(range(4)):
            mean[list(order)] += pkpo_variance.partitioned(rewards[list(order)], 2, baseline)
        mean /= 24
        assert torch.allclose(mean, (get("maxpo") if baseline else get("pkpo_raw"))(rewards, k=2), atol=1e-12)


@pytest.fixture(scope="module")
def toy():
    """pkpo_variance.run() at two group sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pkpo_variance, "SIZES", (8, 16))
        return pkpo_variance.run()


@pytest.mark.parametrize("n, published", [(8, 2.27), (16, 2.31)])
def test_maxpo_has_more_than_twice_the_variance_of_pkpo_on_the_toy(toy, n, published):
    rows = toy[toy["group_size"] == n].set_index("estimator").loc[["maxpo", "pkpo"]]
    errors = (rows["high"] - rows["low"]) / (2 * 1.96) / rows["variance"]  # of each variance, relative
    ratio = rows["variance"]["maxpo"] / rows["variance"]["pkpo"]
    assert abs(ratio / published - 1) < 2 * np.hypot(*errors) < 0.06


def test_every_form_of_the_toy_has_the_slope_of_the_quadrature_as_its_mean(toy):
    slope = pkpo_objective.objective(pkpo_variance.THETA, pkpo_variance.K)[1][0]
    assert slope == pytest.approx(-1.777, abs=5e-4)
    assert len(toy) == 2 * 8 and (toy["num_estimates"] == 10_000).all()
    errors = np.sqrt(toy["variance"] / toy["num_estimates"])
    assert (np.abs(toy["mean"] - slope) < 3 * errors).all(), toy
    assert errors.min() < 0.01  # pkpo and its kin can tell a bias of 1%


def enumerated_variance(arms, contexts, p, k, n, estimator):
    """tr Cov of one group's gradient, over every group of (context, arm) pairs, or Bernoulli draws if arms is None."""
    if arms is None:
        chance, rewards = np.array([1 - p, p]), np.array([0.0, 1.0])
        scores = torch.tensor([[-p], [1 - p]], dtype=torch.float64)
    else:
        policy, good = regimes_study.arm_policy(arms, p)
        chance, rewards = np.tile(policy, contexts) / contexts, np.tile(good.astype(float), contexts)
        scores = torch.block_diag(*[torch.eye(arms, dtype=torch.float64) - torch.as_tensor(policy)] * contexts)
    picks = np.array(list(itertools.product(range(len(chance)), repeat=n)))
    weight = torch.as_tensor(chance[picks].prod(1))
    g = torch.einsum("bn,bnd->bd", estimator(torch.as_tensor(rewards[picks]), k=k), scores[picks]) / n
    mean = weight @ g
    return (weight @ g.square().sum(-1) - mean.square().sum()).item()


@pytest.mark.parametrize("arms, contexts, n", [(None, 1, 8), (10, 1, 4), (10, 2, 3)])
def test_exact_variances_of_the_map_agree_with_enumeration(monkeypatch, arms, contexts, n):
    monkeypatch.setattr(regimes_study, "GEOMETRIES", {"tiny": (arms, contexts, None)})
    for p, k in ((0.2, 2), (0.7, n - 1)):

        def blend(rewards, k):
            return get("baseline_blend")(rewards, k=k, w=(n - k) / (n - 1))

        exact, live = regimes_study.exact_rows(regimes_study.kinds_of("tiny", p, k, n), k, n)
        for name in ("maxpo", "pkpo", "pkpo_raw", "pkpo_loo"):
            truth = enumerated_variance(arms, contexts, p, k, n, get(name))
            assert exact[name] == pytest.approx(truth, rel=1e-10)
        truth = enumerated_variance(arms, contexts, p, k, n, blend)
        assert exact["baseline_blend"] == pytest.approx(truth, rel=1e-10)
        assert exact["best constant w"] <= min(exact[name] for name in ("maxpo", "pkpo", "baseline_blend")) + 1e-15
        counts = [
            np.prod([p if x else 1 - p for x in group])
            for group in itertools.product((0, 1), repeat=n)
            if get("maxpo")(torch.tensor(group).double(), k=k).abs().max() > 0
        ]
        assert live == pytest.approx(sum(counts), abs=1e-12)


@pytest.mark.parametrize("name", [name for name in regimes_study.GEOMETRIES if name != "1 parameter"])
def test_the_fit_gains_on_the_bootstrap_weight(name):
    """Not of one parameter, where all scores are parallel: the fit does not see that."""
    p, k, n = 0.2, 2, 8
    kinds = regimes_study.kinds_of(name, p, k, n)
    exact, _ = regimes_study.exact_rows(kinds, k, n)
    ratio = regimes_study.sampled(name, p, k, n, kinds, np.random.default_rng(0)).mean() / exact["baseline_blend"]
    assert ratio < (0.85 if name in ("10 arms", "orthogonal, failures 2.5 x") else 1.002), f"{ratio:.3f} x"


CASES = [("1 parameter", 0.5, 4, 8), ("10 arms", 0.2, 4, 8), ("orthogonal, prompts p and 1-p", 0.2, 2, 8)]


@pytest.mark.parametrize("name, p, k, n", CASES)
def test_the_map_measures_the_variance_of_whole_batches(monkeypatch, name, p, k, n):
    """Against the plain variance over many batches; 8 groups in a batch, so that what groups share through the fit is large."""
    monkeypatch.setattr(regimes_study, "GROUPS", 8)
    monkeypatch.setattr(regimes_study, "NUM_BATCHES", 200)
    kinds = regimes_study.kinds_of(name, p, k, n)
    values = regimes_study.sampled(name, p, k, n, kinds, np.random.default_rng(0))
    rewards, norms, scores = regimes_study.draw(name, p, n, 2000, np.random.default_rng(1))
    advantages = get("fitted_blend")(rewards, k=k, score_norms=norms)
    if scores is None:
        plain = (norms * advantages.square()).mean((-2, -1)) / n
    else:
        g = torch.einsum("rgn,rgnd->rd", advantages, scores) / n
        plain = (g - g.mean(0)).square().sum(-1) / 8
    error = np.hypot(values.std() / np.sqrt(len(values)), plain.std().item() / np.sqrt(len(plain)))
    assert abs(values.mean() - plain.mean().item()) < 4.5 * error
    assert error < 0.15 * values.mean()


@pytest.mark.parametrize("name", ["1 parameter", "orthogonal, failures 2.5 x", "10 contexts of 10 arms"])
def test_the_fit_goes_to_its_limit_and_a_blend_s_variance_is_a_parabola(name):
    from maxpo_bench.estimators.fitted_blend import parts, weights

    (kind,) = regimes_study.kinds_of(name, 0.3, 2, 8)
    rewards, norms, _ = regimes_study.draw(name, 0.3, 8, 200, np.random.default_rng(0))
    fitted = weights(*parts(rewards.flatten(0, 1)[None], 2), 2, norms.flatten(0, 1)[None])
    assert fitted.mean().item() == pytest.approx(kind.fit_limit(), abs=0.02)
    for w in (-0.5, 0.0, 0.7, 1.0):
        assert kind.blend_variance(np.array([w]))[0] == pytest.approx(kind.variance(kind.blend(w)), rel=1e-12)


def test_the_map_has_enough_regimes_and_its_rows_are_sound(monkeypatch):
    kinds = [p for name in regimes_study.GEOMETRIES for p in regimes_study.CHANCES if not (name.endswith("1-p") and p >= 0.5)]
    assert len(kinds) * len(regimes_study.SIZES) >= 60
    monkeypatch.setattr(regimes_study, "CHANCES", (0.2,))
    monkeypatch.setattr(regimes_study, "SIZES", ((2, 8), (7, 8)))
    few = {name: regimes_study.GEOMETRIES[name] for name in ("10 arms", "orthogonal")}
    monkeypatch.setattr(regimes_study, "GEOMETRIES", few)
    data = regimes_study.run()
    assert data.equals(regimes_study.run())
    assert {"regime", "estimator", "ratio", "low", "high", "exact", "num_groups"} <= set(data)
    assert (data[data["estimator"] == "maxpo"]["ratio"] == 1).all()
    measured = data[~data["exact"]]
    assert (measured["low"] < measured["ratio"]).all() and (measured["ratio"] < measured["high"]).all()
    assert "contradicts" in regimes_study.caption(data)
    assert len(regimes_study.figure(data).axes) == 5  # and the colour bar


def test_snr_of_known_gradients_and_its_error():
    generator = np.random.default_rng(1)
    found = []
    for _ in range(200):
        g = generator.normal(size=(500, 4)) + np.array([0.2, 0, 0, 0])  # SNR = .04 / 4
        found.append(bandit_snr.signal_to_noise(g))
    values, errors = np.array(found).T
    assert abs(values.mean() - 0.01) < 4 * values.std() / np.sqrt(200)
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)


def test_a_point_of_the_bandits_agrees_with_enumeration(monkeypatch):
    """Four arms, N = 5: E g and tr Cov g over all 4^5 groups, for every estimator that looks at its own group alone."""
    n = 5
    for name, value in {"REWARDS": ("linear", "exponential"), "ARMS": (4,), "KS": (1, 3), "N": n, "NUM_GROUPS": 16_000}.items():
        monkeypatch.setattr(bandit_snr, name, value)
    picks = torch.tensor(list(itertools.product(range(4), repeat=n)))
    scores, seen = torch.eye(4, dtype=torch.float64)[picks] - 0.25, 0
    data = bandit_snr.run()
    for row in data[data["estimator"] != "fitted_blend"].itertuples():
        values = torch.as_tensor(bandit_snr.arm_rewards(row.rewards, 4))
        g = torch.einsum("bn,bna->ba", get(row.estimator)(values[picks], k=row.k), scores) / n
        mean, error = g.mean(0), (row.high - row.low) / (2 * 1.96)
        snr = (mean.square().sum() / g.var(0, correction=0).sum()).item()
        assert abs(row.snr - snr) < 3.5 * error < 0.25 * snr, row
        if row.estimator in ("maxpo", "pkpo"):
            assert row.exact_gradient_norm == pytest.approx(mean.norm().item(), rel=1e-9)
        seen += 1
    assert seen == 2 * 2 * 7


def test_effective_rewards_and_sums_say_which_estimators_centre():
    data = effective_reward.run()
    assert (data[data["estimator"] == "pkpo"]["advantage"] >= 0).all()
    sums = data.groupby("estimator")["advantage"].sum().abs()
    table = centring.run().groupby("estimator")["centred"].all()
    for name in ("maxpo", "rloo", "grpo", "pkpo_centred"):
        assert sums[name] < 1e-9 and table[name]
    for name in ("pkpo", "pkpo_raw", "best_gap"):
        assert sums[name] > 1e-3 and not table[name]


def test_the_objective_decides_who_leaves_the_local_optimum(monkeypatch):
    monkeypatch.setattr(local_optimum, "NUM_SEEDS", 8)
    monkeypatch.setattr(local_optimum, "STEPS", 250)
    values = torch.as_tensor(local_optimum.arm_rewards())
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(250, 8, local_optimum.GROUPS, local_optimum.N, generator=generator).double()
    last = {name: local_optimum.train(get(name), 4, values, noise)[-1] for name in ("rloo", "maxpo")}
    assert (last["rloo"] > 0.5).double().mean() < 0.3 and (last["maxpo"] > 0.5).double().mean() > 0.7
    low, high = local_optimum.wilson(45, 50)
    assert (low, high) == pytest.approx((0.7864, 0.9565), abs=1e-3)


def test_the_local_optimum_trains_by_adam_on_the_mean_loss(monkeypatch):
    """Against autograd and torch's Adam, by an estimator whose advantages do not sum to zero."""
    monkeypatch.setattr(local_optimum, "NUM_SEEDS", 2)
    monkeypatch.setattr(local_optimum, "STEPS", 5)
    values, pkpo = torch.as_tensor(local_optimum.arm_rewards()), get("pkpo")
    noise = torch.rand(5, 2, local_optimum.GROUPS, local_optimum.N, generator=torch.Generator().manual_seed(0)).double()
    path = local_optimum.train(pkpo, 4, values, noise)
    logits = torch.zeros(2, 100, dtype=torch.float64)
    logits[:, 0] = np.log(0.9 / 0.1 * 99)
    logits.requires_grad_()
    adam = torch.optim.Adam([logits], lr=0.05)
    for step in range(6):
        policy = logits.softmax(-1)
        assert torch.allclose(path[step], policy[:, -1], rtol=1e-9, atol=0)
        if step < 5:
            arms = (noise[step].flatten(1)[..., None] >= policy.detach().cumsum(-1)[:, None, :]).sum(-1)
            advantages = pkpo(values[arms].view(2, local_optimum.GROUPS, local_optimum.N), k=4).flatten(1)
            adam.zero_grad()
            (-advantages * policy.log().gather(1, arms)).mean(1).sum().backward()
            adam.step()
    assert (path[-1] > path[0]).any()


@pytest.mark.parametrize("name", ["pkpo_objective", "effective_reward", "centring"])
def test_a_study_repeats_byte_for_byte_and_draws_its_figure(name, tmp_path):
    import pandas as pd

    for file in ("a.csv", "b.csv"):
        studies.run_study(name, tmp_path / file)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    data = pd.read_csv(tmp_path / "a.csv")  # the report draws from the file, not from memory
    assert len(studies.caption(name, data)) > 80 and studies.get(name).TITLE
    assert studies.get(name).figure(data).axes


SHRUNK = {
    bandit_snr: {"REWARDS": ("linear", "gaussian"), "ARMS": (4, 8), "KS": (1, 2), "N": 6, "NUM_GROUPS": 160, "NUM_BLOCKS": 10},
    local_optimum: {"NUM_SEEDS": 4, "STEPS": 20},
    pkpo_variance: {"SIZES": (8, 12), "NUM_ESTIMATES": 500},
}


@pytest.mark.parametrize("study", SHRUNK, ids=lambda study: study.__name__.split(".")[-1])
def test_a_long_study_repeats_byte_for_byte_and_draws_its_figure(study, tmp_path, monkeypatch):
    import pandas as pd

    for name, value in SHRUNK[study].items():
        monkeypatch.setattr(study, name, value)
    name = study.__name__.split(".")[-1]
    for file in ("a.csv", "b.csv"):
        torch.rand(3), np.random.random(3)  # the global generators do not matter
        studies.run_study(name, tmp_path / file)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    data = pd.read_csv(tmp_path / "a.csv")
    assert len(studies.caption(name, data)) > 80
    axes = study.figure(data).axes
    assert len(axes) == {bandit_snr: 4, local_optimum: 2, pkpo_variance: 1}[study]
    assert all(ax.lines and np.isfinite(ax.dataLim.bounds).all() for ax in axes)
    assert (data["low"] <= data["high"]).all() and data.drop(columns="median_step", errors="ignore").notna().all().all()


def test_the_rows_of_the_local_optimum(monkeypatch):
    """Every estimator that takes graded rewards, from the same start, at every tenth step."""
    from maxpo_bench.estimators import names

    for name, value in SHRUNK[local_optimum].items():
        monkeypatch.setattr(local_optimum, name, value)
    data = local_optimum.run()
    graded = {name for name in names() if get(name).rewards != "binary"}
    assert set(data["estimator"]) == graded | {"rs_grpo, beta 8", "rs_grpo, beta 16"}
    assert (data.groupby("estimator")["step"].agg(list).map(tuple) == (0, 10, 20)).all()
    assert (data["k"] == data["estimator"].map(lambda name: 16 if name == "best_gap" else 4)).all()
    start = data[data["step"] == 0]
    assert start["best_arm_probability"].to_numpy() == pytest.approx(0.1 / 99) and (start["escaped"] == 0).all()
    ends = data[data["step"] == 20].set_index("estimator")["best_arm_probability"]
    assert ends["maxpo"] > ends["rloo"] and ends["rs_grpo, beta 16"] > ends["rs_grpo"]


@pytest.mark.parametrize("name", ALL)
def test_every_study_declares_what_the_report_needs(name):
    study = studies.get(name)
    assert study.TITLE and (hasattr(study, "CAPTION") or hasattr(study, "caption")) and callable(study.figure)
