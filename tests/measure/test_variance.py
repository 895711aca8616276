"""variance.py against exact enumeration: its covariance, SNR and bias, and what it says when it cannot tell."""

import itertools

import pytest
import torch

from maxpo_bench import problems
from maxpo_bench.estimators import get
from maxpo_bench.machine import files
from maxpo_bench.measure import variance
from maxpo_bench.pipeline import variance as stage
from maxpo_bench.pipeline.base import run_base
from maxpo_bench.pipeline.cell import run_cell
from maxpo_bench.settings.task_file import load
from tests import tiny_tasks

TASK = """
version: 1
kind: bandit
tags: [exact]
title: Three arms
arms: {count: 3, rewards: linear}
k: 2
group_size: 4
groups: 8
steps: 1
seeds: 1
optimiser: {lr: 0.1}
variance: {groups: 64}
"""

POLE = """
version: 1
kind: gymnasium
title: CartPole, a few steps
env: {id: CartPole-v1, max_episode_steps: 30}
policy: {hidden: [8]}
k: 2
group_size: 6
groups: 5
steps: 1
optimiser: {lr: 0.01}
score: {success: 30}
"""

LANGUAGE = """
version: 1
kind: countdown
title: A language model of a few thousand weights
data: {digits: 2}
model: {hidden_size: 16, layers: 1, heads: 2, mlp_size: 16}
warm_start: {steps: 1}
sampling: {max_new_tokens: 5}
k: 2
group_size: 6
groups: 5
steps: 1
optimiser: {lr: 1e-3}
"""


@pytest.fixture
def problem(tmp_path):
    return make(tmp_path)


def make(folder, **changes):
    text = TASK
    for key, value in changes.items():
        lines = [f"{key}: {value}" if line.startswith(f"{key}:") else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    path = folder / "three.yaml"
    path.write_text(text)
    return problems.build(load(str(path)), (0,))


def a_policy(problem, logits=(0.6, 0.2, -0.4)):
    policy = problem.initial_policy()
    logits = torch.tensor(logits[: problem.num_arms] + (0.0,) * (problem.num_arms - len(logits)), dtype=torch.float64)
    problem.load_states(policy, [{"logits": logits.view(1, -1)}])
    return policy


def enumerated(problem, policy, name, k, n):
    """(E g, tr Cov g) of one group over all A^N groups."""
    pi = policy.logits[0, 0].softmax(-1).detach()
    actions = torch.tensor(list(itertools.product(range(len(pi)), repeat=n)))
    p = pi[actions].prod(-1)
    advantages = get(name)(problem.values.flatten()[actions], k=k)
    scores = torch.nn.functional.one_hot(actions, len(pi)).double() - pi
    g = (advantages[..., None] * scores).mean(1)
    mean = p @ g
    return mean, (p @ g.square().sum(-1) - mean.square().sum()).item()


def naive_samples(problem, policy, num_batches):
    """(rewards, side information, scores [G, N, D] float64) of what `measure` draws, each score by its own backward."""
    task, parameters, found = problem.task, list(policy.parameters()), []
    for number in range(num_batches):
        batch = problem.sample(policy, number, purpose="variance policy", groups=task.groups, group_size=task.group_size)
        rewards, log_probs = problem.reward(batch)[0], problem.log_probs(policy, batch)[0]
        scores = [
            torch.cat([x.flatten() for x in torch.autograd.grad(one, parameters, retain_graph=True)]) for one in log_probs.flatten()
        ]
        side = {name: getattr(problem, name)(batch) for name in ("score_norms", "lengths")}
        side = {name: None if values is None else values[0] for name, values in side.items()}
        found.append((rewards, side, torch.stack(scores).double().view(*rewards.shape, -1)))
    return found


def naive_gradients(samples, name, k):
    """[B, G, D]: g = (1/N) sum_i A_i S_i of each group, formed."""
    found = []
    for rewards, side, scores in samples:
        advantages = get(name)(rewards, k=k, **side)
        found.append(sum(advantages[:, i, None] * scores[:, i] for i in range(rewards.shape[1])) / rewards.shape[1])
    return torch.stack(found)


def naive_moments(g, across):
    """(||E g||^2, tr Cov g), without bias, of gradients [B, G, D]; across: groups of one batch are not independent."""
    units = g.mean(1) if across else g.flatten(0, 1)
    products = [units[i] @ units[j] for i in range(len(units)) for j in range(len(units)) if i != j]
    square = torch.stack(products).mean().item()
    if across:
        return square, g.square().sum(-1).mean().item() - square
    return square, units.var(0).sum().item()


def by_name(rows):
    return {row["estimator"]: row for row in rows}


def test_trace_snr_ratio_and_cosine_agree_with_enumeration(problem):
    policy = a_policy(problem)
    rows = by_name(variance.measure(problem, policy, 2, num_batches=500))
    leader, leader_trace = enumerated(problem, policy, "maxpo", 2, 4)
    for name in ("maxpo", "pkpo", "pkpo_loo", "rloo", "grpo"):
        mean, trace = enumerated(problem, policy, name, 2, 4)
        row = rows[name]
        assert row["trace_cov"] == pytest.approx(trace, rel=0.1)
        margin = row["snr_high"] - row["snr"]
        assert abs(mean.square().sum().item() / trace - row["snr"]) < 2 * margin < 0.3 * row["snr"]
        cosine = torch.nn.functional.cosine_similarity(mean, leader, dim=0).item()
        assert row["cosine_to_maxpo"] == pytest.approx(cosine, abs=0.02)
        assert row["cosine"] == pytest.approx(cosine, abs=0.02)
        if name.startswith("pkpo"):
            assert row["ratio_low"] < trace / leader_trace < row["ratio_high"]
            assert row["ratio_high"] / row["ratio_low"] < 1.4
    assert "ratio_to_maxpo" not in rows["grpo"] and "ratio_to_maxpo" not in rows["rloo"]  # other E[g]: SNR only


@pytest.mark.parametrize("text", [POLE, LANGUAGE], ids=["mlp", "language"])
def test_networks_agree_with_gradients_formed_one_by_one(tmp_path, text):
    """All parameters, not a last layer; the numerator of the SNR, trace_cov and the ratio to maxpo."""
    path = tmp_path / "net.yaml"
    path.write_text(text)
    problem = problems.build(load(str(path)), (0,))
    if problem.row_wise:  # an untrained model solves nothing: graded rewards, from its tokens
        policy = problem.untrained_policy()
        problem.reward = lambda batch: (batch.completions.tokens.sum(-1) % 5)[None] / 4.0
    else:
        policy = problem.initial_policy()
    rows, traces = by_name(variance.measure(problem, policy, 2, num_batches=3)), {}
    samples = naive_samples(problem, policy, 3)
    names = ("maxpo", "pkpo", "pkpo_loo", "rloo", "grpo", "fitted_blend", "opo")  # norms and lengths too
    for name in names:
        g, row = naive_gradients(samples, name, 2), rows[name]
        square, traces[name] = naive_moments(g, across=get(name).across_groups)
        assert row["num_parameters"] == g.shape[-1] == sum(p.numel() for p in policy.parameters())
        assert row["trace_cov"] == pytest.approx(traces[name], rel=1e-4) and traces[name] > 0
        assert row["snr"] * row["trace_cov"] == pytest.approx(square, rel=1e-4, abs=1e-5 * traces[name])
        if name not in ("rloo", "grpo", "opo"):
            assert row["ratio_to_maxpo"] == pytest.approx(traces[name] / traces["maxpo"], rel=1e-4)
    assert len({round(trace / traces["maxpo"], 3) for trace in traces.values()}) == len(names)


def test_bias_is_found_where_it_is_and_nowhere_else(problem):
    policy = a_policy(problem)
    rows = by_name(variance.measure(problem, policy, 2, num_batches=500))
    for name in ("maxpo", "pkpo", "fitted_blend", "rloo", "dr_grpo", "tailrl"):
        assert rows[name]["bias_low"] == 0 and rows[name]["bias_high"] < 0.2, name
    mean, _ = enumerated(problem, policy, "pkpo_centred", 2, 4)
    truth = problem.exact_gradient(policy, {2: 1.0})[0]
    bias = ((mean - truth).norm() / truth.norm()).item()
    assert bias > 0.1 and rows["pkpo_centred"]["bias_low"] > 0
    assert rows["pkpo_centred"]["bias_low"] < bias < rows["pkpo_centred"]["bias_high"]


def test_intervals_cover_at_their_rate(problem):
    policy = a_policy(problem)
    mean, trace = enumerated(problem, policy, "maxpo", 2, 4)
    snr, ratio = mean.square().sum().item() / trace, enumerated(problem, policy, "pkpo", 2, 4)[1] / trace
    hits = torch.zeros(3)
    for i in range(100):
        rows = by_name(variance.measure(problem, policy, 2, 12, purpose=f"{i}", estimators=["maxpo", "pkpo"]))
        hits += torch.tensor(
            [
                rows["maxpo"]["snr_low"] < snr < rows["maxpo"]["snr_high"],
                rows["maxpo"]["bias_low"] == 0,
                rows["pkpo"]["ratio_low"] < ratio < rows["pkpo"]["ratio_high"],
            ]
        )
    assert (hits > 85).all(), hits


def fitted_ratio(problem, policy, num_batches):
    """tr Cov over maxpo's of fitted_blend in batches of 8 groups: maxpo's and E g exact, E||g||^2 from formed gradients."""
    batch = problem.sample(policy, 0, purpose="truth", groups=8 * num_batches, group_size=4)
    scores = problem.scores(policy, batch)[0].detach().view(num_batches, 8, 4, -1)
    norms = problem.score_norms(batch)[0].view(-1, 8, 4)
    advantages = get("fitted_blend")(problem.reward(batch)[0].view(-1, 8, 4), k=2, score_norms=norms)
    g = (advantages[..., None] * scores).mean(2)
    mean, trace = enumerated(problem, policy, "maxpo", 2, 4)
    return ((g.square().sum(-1).mean() - mean.square().sum()) / trace).item()


@pytest.mark.parametrize("repetitions, least, most", [(30, 0.8, 1.0), pytest.param(400, 0.9, 0.98, marks=pytest.mark.slow)])
def test_the_ratio_of_an_estimator_that_looks_across_groups_is_covered(problem, repetitions, least, most):
    policy = a_policy(problem)
    truth = fitted_ratio(problem, policy, 900 + 5 * repetitions)
    hits = width = 0.0
    for i in range(repetitions):
        rows = by_name(variance.measure(problem, policy, 2, 12, purpose=f"{i}", estimators=["maxpo", "fitted_blend"]))
        row = rows["fitted_blend"]
        hits += row["ratio_low"] < truth < row["ratio_high"]
        width += row["ratio_high"] / row["ratio_low"] / repetitions
    assert least * repetitions <= hits <= most * repetitions and width < 2.8, (hits, width)


@pytest.mark.slow
def test_the_snr_of_an_estimator_that_looks_across_groups_is_covered(problem):
    """The trace of a dozen batches is not known: taken as known, 82% and 87% were covered."""
    policy, hits = a_policy(problem), 0
    mean, trace = enumerated(problem, policy, "maxpo", 2, 4)
    truth = mean.square().sum().item() / trace / fitted_ratio(problem, policy, 3000)
    for i in range(300):
        rows = by_name(variance.measure(problem, policy, 2, 12, purpose=f"{i}", estimators=["maxpo", "fitted_blend"]))
        hits += rows["fitted_blend"]["snr_low"] < truth < rows["fitted_blend"]["snr_high"]
    assert 0.9 * 300 < hits < 0.98 * 300, hits


def test_memory_blocks_do_not_change_the_numbers(problem, monkeypatch):
    policy = a_policy(problem)
    whole = variance.measure(problem, policy, 2, 4)
    monkeypatch.setattr(variance, "HELD_NUMBERS", 200)
    for a, b in zip(whole, variance.measure(problem, policy, 2, 4), strict=True):
        assert a.keys() == b.keys()
        for key in {"trace_cov", "snr", "cosine", "bias"} & a.keys():
            assert a[key] == pytest.approx(b[key], rel=1e-9, abs=1e-9)


def test_scores_that_do_not_fit_are_taken_by_parts_of_the_parameters(tmp_path, monkeypatch):
    """The same rows from the Gram matrix, summed over tensors and, of the larger ones, over columns."""
    path = tmp_path / "small.yaml"
    path.write_text(LANGUAGE)
    problem = problems.build(load(str(path)), (0,))
    policy = problem.untrained_policy()
    problem.reward = lambda batch: (batch.completions.tokens.sum(-1) % 5)[None] / 4.0
    whole = variance.measure(problem, policy, 2, num_batches=3)
    monkeypatch.setattr(variance, "MOST_NUMBERS", 20_000)  # 3 batches of 30 samples: 222 columns
    parts = variance.measure(problem, policy, 2, num_batches=3)
    assert all(p.requires_grad for p in policy.parameters()) and by_name(whole)["maxpo"]["trace_cov"] > 0
    for one, other in zip(whole, parts, strict=True):
        assert one.keys() == other.keys() and one["num_parameters"] == other["num_parameters"]
        for key, value in one.items():
            if isinstance(value, float):
                assert value == pytest.approx(other[key], rel=1e-4, abs=1e-6), (one["estimator"], key)


def test_reasons_instead_of_numbers(tmp_path):
    problem = make(tmp_path)
    rows = by_name(variance.measure(problem, a_policy(problem), 2, 4))
    assert "0 or 1" in rows["passk_training"]["reason"] and "snr" not in rows["passk_training"]
    assert "k = 2" in rows["best_gap"]["reason"] and "trace_cov" not in rows["best_gap"]
    assert set(rows) >= set(variance.names())
    certain = variance.measure(problem, a_policy(problem, (50.0, 0.0, 0.0)), 2, 4)  # every reward is the same
    row = by_name(certain)["maxpo"]
    assert "0 of 32 groups" in row["reason"] and "ratio_low" not in row and "bias_low" not in row


def test_run_covers_three_checkpoints_and_repeats_byte_for_byte(tmp_path, problem, monkeypatch):
    folder = tmp_path / "runs" / "three" / "maxpo"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(variance.InputError, match="metrics.json is missing; run `maxpo-bench train three maxpo` first"):
        stage.run("three.yaml", tmp_path / "a.csv", results=tmp_path)
    first = dict(zip(stage.CHECKPOINTS, (0.0, 1.0, 2.0), strict=True))
    logits = {f"{when}/logits": torch.tensor([[at, 0.0, 0.5]], dtype=torch.float64) for when, at in first.items()}
    files.write_json(folder / "metrics.json", {})
    files.save_states(folder / "checkpoints.safetensors", {0: logits})
    stage.run("three.yaml", tmp_path / "a.csv", results=tmp_path)
    stage.run("three.yaml", tmp_path / "b.csv", results=tmp_path)
    text = (tmp_path / "a.csv").read_text()
    assert text == (tmp_path / "b.csv").read_text()
    assert text.startswith("checkpoint,seed,estimator,k,group_size,num_groups,")
    import pandas as pd

    data = pd.read_csv(tmp_path / "a.csv")
    assert len(data) == 3 * len(variance.names()) and (data["num_groups"] == 64).all()
    assert data.groupby("checkpoint")["trace_cov"].first().nunique() == 3


def test_checkpoints_that_are_not_there_are_made_again(tmp_path, problem, monkeypatch):
    """They are not published: in a clone the first seeds of the cell run again, and must end as published."""
    monkeypatch.chdir(tmp_path)
    assert run_base("three.yaml", tmp_path) == 0 and run_cell("three.yaml", "maxpo", tmp_path) == 0
    path = tmp_path / "runs" / "three" / "maxpo" / "checkpoints.safetensors"
    before = path.read_bytes()
    path.unlink()
    stage.run("three.yaml", tmp_path / "a.csv", results=tmp_path)
    assert path.read_bytes() == before and not list(tmp_path.glob(".resume/checkpoints-*"))
    path.unlink()
    metrics = files.read_json(path.with_name("metrics.json"))
    metrics["final"]["max@K"][0] += 1e-9
    files.write_json(path.with_name("metrics.json"), metrics)
    with pytest.raises(variance.InputError, match="another end"):
        stage.run("three.yaml", tmp_path / "a.csv", results=tmp_path)


def test_a_language_task_is_measured_at_three_seeds(tmp_path, monkeypatch):
    """Or at those that its cell has, where that ran with fewer."""
    import pandas as pd

    (tmp_path / "words.yaml").write_text(tiny_tasks.COUNTDOWN.replace("seeds: 2", "seeds: 4"))
    monkeypatch.chdir(tmp_path)
    for folder, seeds in ((tmp_path / "all", None), (tmp_path / "few", range(2))):
        assert run_base("words.yaml", folder, seeds) == 0 and run_cell("words.yaml", "maxpo", folder, seeds) == 0
        stage.run("words.yaml", folder / "a.csv", results=folder)
    whole, few = (pd.read_csv(tmp_path / name / "a.csv") for name in ("all", "few"))
    assert whole.groupby("checkpoint")["seed"].unique().map(list).to_dict() == {when: [0, 1, 2] for when in stage.CHECKPOINTS}
    assert whole[whole["estimator"] == "maxpo"].groupby("checkpoint")["mean_reward"].size().eq(3).all()
    pd.testing.assert_frame_equal(whole[whole["seed"] < 2].reset_index(drop=True), few)
