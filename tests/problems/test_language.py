"""Language problems: what is sampled, how it is scored, and that a row's numbers depend on nothing but its noise."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
import yaml

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.estimators import get
from maxpo_bench.machine import files
from maxpo_bench.policies import causal_lm, reading
from maxpo_bench.problems import build, language
from maxpo_bench.problems.prompts import is_held_out
from maxpo_bench.settings import task_file
from maxpo_bench.training import streams, warm_start

TASKS = ["countdown3", "countdown4", "text_maze", "subset_sum"]


def small(name="countdown3", warm_steps=20, **changes):
    task = dataclasses.replace(task_file.load(name), **{"groups": 6, "group_size": 8, **changes})
    task.section("warm_start")["steps"] = warm_steps
    return task


@pytest.fixture(scope="module")
def problem():
    return build(small(), (0,))


@pytest.fixture(scope="module")
def policy(problem):
    return problem.initial_policy()


@pytest.fixture(scope="module")
def batch(problem, policy):
    return problem.sample(policy, 0)


def plain_log_probs(policy, batch, temperature=1.0):
    """[G, N] sequence log-probabilities by one unpadded forward per completion: slow and simple."""
    found = torch.zeros(batch.completions.lengths.shape)
    for g, prompt in enumerate(batch.prompt_tokens):
        prompt = prompt[batch.prompt_mask[g]]
        for i, length in enumerate(batch.completions.lengths[g]):
            completion = batch.completions.tokens[g, i, :length]
            logits = policy(input_ids=torch.cat([prompt, completion])[None]).logits[0].float() / temperature
            log_p = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
            found[g, i] = log_p.gather(-1, completion[:, None]).sum()
    return found


def test_log_probs_equal_a_plain_forward_of_each_row(problem, policy, batch):
    assert batch.prompt_mask.logical_not().any(), "the case needs left padding"
    with torch.no_grad():
        wanted = plain_log_probs(policy, batch)
        torch.testing.assert_close(batch.log_probs[0], wanted, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(problem.log_probs(policy, batch)[0], wanted, atol=2e-5, rtol=1e-5)
        rows = torch.tensor([40, 3, 3, 17])
        torch.testing.assert_close(problem.log_probs(policy, batch, rows), wanted.flatten()[rows], atol=2e-5, rtol=1e-5)


def gradient(policy, loss):
    policy.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten().clone() for p in policy.parameters()])


def test_gradient_equals_a_plain_forward_and_skipping_zero_rows_is_exact(problem, policy, batch):
    advantages = torch.randn(48, generator=torch.Generator().manual_seed(0))
    advantages[::3] = 0
    rows = advantages.nonzero()[:, 0]
    wanted = gradient(policy, (advantages * plain_log_probs(policy, batch).flatten()).sum())
    chosen = gradient(policy, (advantages[rows] * problem.log_probs(policy, batch, rows)).sum())
    torch.testing.assert_close(chosen, wanted, atol=1e-4, rtol=1e-4)
    assert wanted.norm() > 1


def test_micro_batches_give_the_same_gradient(problem, policy, batch):
    advantages = torch.randn(48, generator=torch.Generator().manual_seed(1))
    whole = gradient(policy, (advantages * problem.log_probs(policy, batch).flatten()).sum())
    parts = 0
    for rows in torch.arange(48).split(7):
        parts = parts + gradient(policy, (advantages[rows] * problem.log_probs(policy, batch, rows)).sum())
    assert ((parts - whole).norm() / whole.norm()) < 1e-5


def test_scores_are_each_rows_gradient(problem, policy, batch):
    scores = problem.scores(policy, batch)
    assert scores.shape == (1, 48, sum(p.numel() for p in policy.parameters()))
    for row in (0, 11, 47):
        wanted = gradient(policy, problem.log_probs(policy, batch, torch.tensor([row])).sum())
        torch.testing.assert_close(scores[0, row], wanted, atol=1e-5, rtol=1e-4)


def test_score_norms_are_the_logit_space_norms(problem, policy, batch):
    prompt = batch.prompt_tokens[2][batch.prompt_mask[2]]
    completion = batch.completions.tokens[2, 5, : batch.completions.lengths[2, 5]]
    with torch.no_grad():
        p = policy(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1].softmax(-1)
    onehot = torch.nn.functional.one_hot(completion, p.shape[-1])
    wanted = (onehot - p).square().sum()
    assert problem.score_norms(batch)[0, 2, 5].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_lengths_count_tokens_with_the_end_token(problem, batch):
    tokens, lengths = batch.completions.tokens, problem.lengths(batch)
    assert lengths.shape == problem.reward(batch).shape and lengths.unique().numel() > 1
    for completion, length in zip(tokens.flatten(0, 1), lengths.flatten(), strict=True):
        ends = [t for t, token in enumerate(completion.tolist()) if token in problem.eos_ids]
        assert length == (ends[0] + 1 if ends else problem.max_new_tokens)


def test_entropies_are_those_of_the_tempered_policy(problem, policy, batch):
    prompt, length = batch.prompt_tokens[2][batch.prompt_mask[2]], batch.completions.lengths[2, 5]
    uniforms = torch.from_numpy(np.random.default_rng(2).random((1, 1, 6)))
    mask = torch.ones(1, len(prompt), dtype=torch.bool)
    hot = causal_lm.sample_groups(policy, prompt[None], mask, uniforms, problem.eos_ids, problem.pad_id, temperature=1.3)
    cases = [(batch.completions.tokens[2, 5, :length], batch.completions.token_entropies[2, 5], 1.0),
             (hot.tokens[0, 0, : hot.lengths[0, 0]], hot.token_entropies[0, 0], 1.3)]  # fmt: skip
    for completion, entropies, temperature in cases:
        with torch.no_grad():
            logits = policy(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
        wanted = torch.distributions.Categorical(logits=logits / temperature).entropy()
        torch.testing.assert_close(entropies[: len(completion)], wanted, atol=1e-5, rtol=1e-4)
        assert torch.all(entropies[len(completion) :] == 0)


def test_samples_follow_the_policy(problem, policy):
    """Frequencies of the first token of 40,000 draws against its probabilities, five standard errors."""
    _, tokens = problem.split("train")
    prompt = torch.tensor([tokens[0]])
    mask = torch.ones_like(prompt, dtype=torch.bool)
    uniforms = torch.from_numpy(np.random.default_rng(0).random((1, 40_000, 2)))
    drawn = causal_lm.sample_groups(policy, prompt, mask, uniforms, problem.eos_ids, problem.pad_id, temperature=1.3)
    with torch.no_grad():
        p = (policy(input_ids=prompt).logits[0, -1] / 1.3).softmax(-1).numpy()
    found = np.bincount(drawn.tokens[0, :, 0], minlength=len(p)) / 40_000
    assert np.all(np.abs(found - p) <= 5 * np.sqrt(p * (1 - p) / 40_000) + 1e-9)
    assert p.max() < 0.9


def test_second_tokens_follow_the_policy_given_the_first(problem, policy):
    """The same of the second token among the draws with one first token, for the four most frequent ones that end nothing."""
    _, tokens = problem.split("train")
    prompt = torch.tensor([tokens[0]])
    mask = torch.ones_like(prompt, dtype=torch.bool)
    uniforms = torch.from_numpy(np.random.default_rng(1).random((1, 40_000, 2)))
    drawn = causal_lm.sample_groups(policy, prompt, mask, uniforms, problem.eos_ids, problem.pad_id, temperature=0.5)
    first, second = drawn.tokens[0].numpy().T
    goes_on = np.flatnonzero(~np.isin(np.arange(len(problem.tokenizer)), problem.eos_ids))
    frequent = goes_on[np.argsort(-np.bincount(first, minlength=len(problem.tokenizer))[goes_on])[:4]]
    conditionals = []
    for token in frequent:
        with torch.no_grad():
            sequence = torch.cat([prompt, torch.tensor([[token]])], dim=1)
            p = (policy(input_ids=sequence).logits[0, -1] / 0.5).softmax(-1).numpy()
        draws = second[first == token]
        found = np.bincount(draws, minlength=len(p)) / len(draws)
        assert len(draws) > 1000 and p.max() < 0.9
        assert np.all(np.abs(found - p) <= 5 * np.sqrt(p * (1 - p) / len(draws)) + 1 / len(draws))
        conditionals.append(p)
    assert np.abs(conditionals[0] - conditionals[1]).max() > 0.05, "the case needs a second token that depends on the first"


def test_sharing_rows_changes_no_draw(problem, policy, monkeypatch):
    shared = problem.sample(policy, 3)
    monkeypatch.setattr(reading, "SHARED_BELOW", -1.0)
    apart = problem.sample(policy, 3)
    assert torch.equal(shared.completions.tokens, apart.completions.tokens)
    torch.testing.assert_close(shared.log_probs, apart.log_probs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("full_above", [0.0, 0.5, 1.0])
def test_when_ended_rows_leave_the_batch_changes_no_draw(problem, policy, monkeypatch, full_above):
    """0: never, 1: at once. Among them are rows that end early, or there would be nothing to drop."""
    shared = problem.sample(policy, 3)
    assert (shared.completions.lengths < shared.completions.tokens.shape[-1] - 1).any()
    monkeypatch.setattr(reading, "SHARED_BELOW", -1.0)
    monkeypatch.setattr(reading, "FULL_ABOVE", full_above)
    apart = problem.sample(policy, 3)
    for name in ("tokens", "lengths"):
        assert torch.equal(getattr(shared.completions, name), getattr(apart.completions, name))
    for name in ("token_log_probs", "token_entropies", "score_norms"):
        torch.testing.assert_close(getattr(shared.completions, name), getattr(apart.completions, name), atol=1e-5, rtol=1e-4)


def test_same_bytes_on_every_run_and_common_noise(problem, policy, batch):
    again = problem.sample(policy, 0)
    for name in ("tokens", "lengths", "token_log_probs", "token_entropies", "score_norms"):
        assert torch.equal(getattr(again.completions, name), getattr(batch.completions, name))
    other = build(small(), (1,))
    assert other.sample(policy, 0).rows != batch.rows  # another seed, other prompts
    assert problem.sample(policy, 1).rows != batch.rows


def test_completions_end_once_and_pad_after(problem, batch):
    tokens, lengths = batch.completions.tokens, batch.completions.lengths
    at = torch.arange(tokens.shape[-1])
    is_end = tokens == problem.eos_ids[0]
    assert (is_end & (at < lengths[..., None] - 1)).sum() == 0
    assert torch.all(tokens[at >= lengths[..., None]] == problem.pad_id)
    assert torch.all(is_end.any(-1) | (lengths == problem.max_new_tokens))
    assert torch.all(batch.completions.token_log_probs[at >= lengths[..., None]] == 0)


@pytest.mark.parametrize("name", TASKS)
def test_rewards_come_from_the_verifier(name):
    problem = build(small(name, warm_steps=2), (0,))
    batch = problem.sample(problem.initial_policy(), 0)
    rewards = problem.reward(batch)
    assert rewards.shape == (1, 6, 8) and rewards.dtype == torch.float64
    for g, row in enumerate(batch.rows):
        texts = problem.tokenizer.batch_decode(batch.completions.tokens[g])
        texts = [text.split("$")[0].replace("<pad>", "") for text in texts]
        assert rewards[0, g].tolist() == [problem.source.verify(row, text) for text in texts]


@pytest.mark.parametrize("name", TASKS)
def test_the_default_tasks_are_evaluated_finely(name):
    """64 samples of at least 128 held-out prompts, a ladder up to 32, one real tokenizer."""
    from transformers import PreTrainedTokenizerFast

    task = task_file.load(name)
    assert task.evaluation["samples"] == 64 and task.evaluation["prompts"] >= 128 and task.evaluation["curve_prompts"] >= 128
    problem = build(task, (0,))
    assert len(set(problem._held_out(task.evaluation["prompts"]).tolist())) == task.evaluation["prompts"]
    assert isinstance(problem.tokenizer, PreTrainedTokenizerFast)


def test_the_default_language_tasks_are_among_these():
    names = yaml.safe_load((task_file.root() / "params.yaml").read_text())["tasks"]
    assert {name for name in names if "language" in task_file.load(name).tags} <= set(TASKS)


@pytest.mark.parametrize("prompt, bucket", [("<2579>53:", 8), ("<259>90:", 85)])
def test_which_prompts_are_held_out_is_pinned(prompt, bucket):
    """A hash decides: were it another one, prompts trained on before would be evaluated on now."""
    assert is_held_out(prompt) == (bucket < 15)
    assert is_held_out(prompt, bucket + 1) and not is_held_out(prompt, bucket)


def test_a_missing_package_is_one_line(make_task, monkeypatch):
    """Here, because the module of the reasoning-gym tests is skipped where the package is missing."""
    for module in ("reasoning_gym", "reasoning_gym.factory"):  # another test may have imported it
        monkeypatch.setitem(sys.modules, module, None)
    task = make_task("reasoning_gym", data={"dataset": "chain_sum"}, warm_start={"steps": 0}, sampling={"max_new_tokens": 4})
    with pytest.raises(InputError, match=r"^test.yaml: kind reasoning_gym needs .*pip install 'maxpo.bench\[reasoning-gym\]'$"):
        build(task, (0,))


def test_right_answers_earn_one(problem, policy, batch):
    """Put a right answer and a wrong one into a batch by hand: the path from tokens to reward."""
    pairs = problem.source.demonstrations(np.random.default_rng(0), 6)
    by_prompt = {row["prompt"]: row for row in problem.split("train")[0]}
    batch = problem.sample(policy, 0)
    batch.rows = [by_prompt[prompt] for prompt, _ in pairs]
    tokens = torch.full((6, 8, 6), problem.pad_id)
    for g, (_, answer) in enumerate(pairs):
        right = problem.tokenizer(answer + "$", add_special_tokens=False)["input_ids"]
        tokens[g, :4, : len(right)] = torch.tensor(right)
        tokens[g, 4:, :2] = torch.tensor(problem.tokenizer("1$", add_special_tokens=False)["input_ids"])
    batch.completions.tokens = tokens
    batch.completions.lengths = (tokens != problem.pad_id).sum(-1)
    assert problem.reward(batch)[0].tolist() == [[1.0] * 4 + [0.0] * 4] * 6


def test_a_verifier_that_raises_is_counted_and_a_fault(problem, batch, monkeypatch):
    def broken(row, text):
        raise KeyError("target")

    monkeypatch.setattr(problem.source, "verify", broken)
    monkeypatch.setattr(problem, "verifier_errors", 0)
    with pytest.raises(Fault, match="verifier raised .* KeyError"):
        problem.reward(batch)
    assert problem.verifier_errors > 1


def test_evaluation_is_on_held_out_prompts_and_repeats(problem, policy):
    first, again = problem.evaluate(policy, 5, 12, 16), problem.evaluate(policy, 5, 12, 16)
    assert first.rewards.shape == (1, 12, 16)
    assert torch.equal(first.rewards, again.rewards) and first.extras == again.extras
    assert 0 < first.extras["distinct"][0] <= 1 and 0 < first.extras["entropy"][0] < np.log(30)
    with pytest.raises(InputError, match="1000000 prompts wanted, [0-9]+ are held out"):
        problem.evaluate(policy, 5, 10**6, 2)


def by_hand(problem, texts, entropies):
    """A batch of these completions, [G][N] texts and [G, N] the entropy of each of their tokens; some prompts or other."""
    rows = problem.split("held_out")[0][: len(texts)]
    ids = [[problem.tokenizer(text)["input_ids"] + problem.eos_ids for text in group] for group in texts]
    lengths = torch.tensor([[len(row) for row in group] for group in ids])
    width = int(lengths.max())
    tokens = torch.tensor([[row + [problem.pad_id] * (width - len(row)) for row in group] for group in ids])
    counts = torch.arange(width) < lengths[..., None]
    entropies = torch.where(counts, torch.tensor(entropies)[..., None], 0.0)
    return language.Batch(rows, None, None, causal_lm.Completions(tokens, lengths, 0.0 * entropies, entropies, None))


@pytest.mark.parametrize("at_once", [1, 2])
def test_evaluation_extras_equal_hand_computed_ones(problem, monkeypatch, at_once):
    """Two prompts with ten completions each, judged together or one after the other."""
    texts = [["1", "1", "22", "1", "22", "1", "1", "1", "333", "4444"], ["5", *["6"] * 9]]
    entropies = [[1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.25], [3.0, *[0.0] * 9]]
    drawn = []

    def sample(policy, split, chosen, noise):
        start = len(drawn)
        drawn.extend(chosen)
        return by_hand(problem, texts[start : len(drawn)], entropies[start : len(drawn)])

    monkeypatch.setattr(problem, "_sample_rows", sample)
    monkeypatch.setattr(language, "EVALUATION_ROWS", 10 * at_once)
    extras = problem.evaluate(None, 0, 2, 10).extras
    # Of the first eight: 1 and 22, 5 and 6. Tokens, ends included: 6 x 2, 2 x 3, 4, 5 of the one prompt; 10 x 2 of the other.
    nats = 6 * 2 * 1.0 + 2 * 3 * 2.0 + 4 * 0.5 + 5 * 0.25 + 2 * 3.0
    assert extras["distinct"] == [(2 / 8 + 2 / 8) / 2]
    assert extras["entropy"] == pytest.approx([nats / (12 + 6 + 4 + 5 + 20)], rel=1e-12)


def test_distinct_of_few_samples_is_of_those(problem, monkeypatch):
    monkeypatch.setattr(problem, "_sample_rows", lambda *_: by_hand(problem, [["1", "2", "1", "22"]], [[0.0] * 4]))
    assert problem.evaluate(None, 0, 1, 4).extras == {"distinct": [3 / 4], "entropy": [0.0], "truncated_share": [0.0]}


def test_bases_differ_by_seed_and_repeat():
    task = small(warm_steps=3)
    first, again, other = (warm_start.make_base(build(task, (seed,)), seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_base_is_loaded_from_its_folder_and_a_missing_one_is_said(tmp_path):
    task = small(warm_steps=3)
    base = warm_start.make_base(build(task, (0,)), 0)
    files.save_states(tmp_path / "weights.safetensors", {0: base})
    loaded = build(task, (0,), tmp_path)
    assert all(torch.equal(t, base[n]) for n, t in loaded.policy_states(loaded.initial_policy())[0].items())
    with pytest.raises(InputError, match="seed 1 is missing"):
        build(task, (1,), tmp_path).initial_policy()
    with pytest.raises(InputError, match="no base policy"):
        build(task, (1,), tmp_path / "nowhere").initial_policy()


def test_the_warm_start_learns():
    problem = build(small(), (0,))
    settings = {**problem.task.section("warm_start"), "steps": 20, "batch_size": 64, "warmup_steps": 5}
    losses = warm_start.train(problem.untrained_policy(), problem, settings, 0)
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_reference_is_the_base_policy(problem, policy, batch):
    rows = torch.arange(5)
    reference = problem.reference_log_probs(batch, rows)
    assert not reference.requires_grad
    torch.testing.assert_close(reference, batch.log_probs.flatten()[rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["rloo", "maxpo"])
def test_groups_without_success_push_nothing(problem, policy, batch, estimator):
    advantages = get(estimator)(torch.zeros(1, 6, 8), k=4)
    assert torch.equal(advantages, torch.zeros(1, 6, 8))


def test_a_policy_is_pushed_towards_what_is_rewarded():
    """Twenty steps of rloo with reward 1 for completions that hold a "+": their share must rise."""
    task = small(groups=16)
    problem = build(task, (0,))
    policy = problem.initial_policy()
    problem.source.verify = lambda row, text: float("+" in text)
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-3)
    means = []
    for step in range(20):
        batch = problem.sample(policy, step)
        rewards = problem.reward(batch)
        means.append(rewards.mean().item())
        advantages = get("rloo")(rewards, k=1).flatten().float()
        optimiser.zero_grad()
        (-(advantages * problem.log_probs(policy, batch).flatten()).mean()).backward()
        optimiser.step()
    assert np.mean(means[-3:]) > np.mean(means[:3]) + 0.1


def test_two_seeds_in_one_problem_are_refused():
    with pytest.raises(ValueError, match="one seed per process"):
        build(small(), (0, 1))


def test_noise_is_keyed_by_purpose():
    a = streams.generator("countdown3", 0, "train", 0).random(3)
    assert not np.array_equal(a, streams.generator("countdown3", 0, "evaluation", 0).random(3))
