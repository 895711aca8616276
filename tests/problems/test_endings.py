"""How a completion ends: with an end token, with a stop text, or cut off at max_new_tokens."""

import dataclasses

import pytest
import torch

from maxpo_bench.problems import build
from maxpo_bench.settings import task_file


def problem_of(**sampling):
    """countdown3, hardly warmed up, with these keys of its sampling section."""
    task = dataclasses.replace(task_file.load("countdown3"), groups=6, group_size=16)
    task.section("warm_start")["steps"] = 5
    task.section("sampling").update(sampling)
    return build(task, (0,))


@pytest.fixture(scope="module")
def policy():
    return problem_of().initial_policy()


def texts_of(problem, completions):
    """[G][N] the text of each completion's tokens that count, end token included; a character for every token."""
    names = [name if len(name) == 1 else "?" for name in problem.tokenizer.convert_ids_to_tokens(range(len(problem.tokenizer)))]
    return [
        ["".join(names[token] for token in row[:length]) for row, length in zip(*group, strict=True)]
        for group in zip(completions.tokens.tolist(), completions.lengths.tolist(), strict=True)
    ]


def test_a_completion_ends_at_the_first_stop_text(policy):
    """The same draws, cut right behind the first stop text; the rest is as if the end token had been drawn there."""
    stop = ["7", "+1"]
    plain, stopping = problem_of(), problem_of(stop=stop)
    free, drawn = plain.sample(policy, 0).completions, stopping.sample(policy, 0).completions
    num_cut = 0
    for g, group in enumerate(texts_of(plain, free)):
        for i, text in enumerate(group):
            ends = [text.find(word) + len(word) for word in stop if word in text]
            num_cut += bool(ends)
            length = min(ends, default=int(free.lengths[g, i]))
            assert drawn.lengths[g, i] == length
            assert torch.equal(drawn.tokens[g, i, :length], free.tokens[g, i, :length])
            assert (drawn.tokens[g, i, length:] == stopping.pad_id).all() and (drawn.token_log_probs[g, i, length:] == 0).all()
            torch.testing.assert_close(drawn.token_log_probs[g, i, :length], free.token_log_probs[g, i, :length])
    assert num_cut > 10
    batch = stopping.sample(policy, 0)
    torch.testing.assert_close(stopping.log_probs(policy, batch), batch.log_probs, atol=1e-4, rtol=1e-4)


def test_the_verifier_sees_what_stands_before_the_first_stop_text(policy, monkeypatch):
    problem, seen = problem_of(stop=["7", "+1"]), []
    monkeypatch.setattr(problem.source, "verify", lambda row, text: seen.append(text) or 0.0)
    problem.reward(problem.sample(policy, 0))
    assert len(seen) > 50 and not any("7" in text or "+1" in text for text in seen)


def test_stop_texts_of_several_tokens_and_of_bytes(policy):
    """Whether a completion holds a stop text is asked of its last tokens, and a stop text may be longer than a token."""
    problem = problem_of(stop=["12+34"])
    ids = [problem.tokenizer(text)["input_ids"] for text in ("9" * 40 + "12+34", "9" * 40 + "12+35", "2+34" + "9" * 41)]
    assert problem._stops()(torch.tensor(ids)).tolist() == [True, False, False]
    assert problem_of()._stops() is None


@pytest.mark.parametrize("truncated", ["as_is", "zero"])
def test_cut_off_completions_are_counted_and_may_earn_nothing(policy, truncated, monkeypatch):
    """Every completion would earn 1: what is missing are the cut-off ones."""
    problem = problem_of(truncated=truncated)
    monkeypatch.setattr(problem.source, "verify", lambda row, text: 1.0)
    batch = problem.sample(policy, 0)
    last = batch.completions.tokens.gather(-1, batch.completions.lengths[..., None] - 1)[..., 0]
    cut_off = (batch.completions.lengths == problem.max_new_tokens) & (last != problem.eos_ids[0])
    assert 0.05 < cut_off.float().mean() < 0.95
    wanted = torch.ones(1, *cut_off.shape, dtype=torch.float64)
    if truncated == "zero":
        wanted[0][cut_off] = 0.0
    assert torch.equal(problem.reward(batch), wanted)
    monkeypatch.setattr(problem, "_sample_rows", lambda *_: batch)
    extras = problem.evaluate(policy, 0, 6, 16).extras
    assert extras["truncated_share"] == [cut_off.double().mean().item()]


def test_a_stop_text_or_an_end_token_as_the_last_token_is_no_cut(policy):
    problem = problem_of(truncated="zero", stop=["7"], max_new_tokens=3)
    batch = problem.sample(policy, 0)
    rows = [problem.tokenizer("1+2")["input_ids"], problem.tokenizer("1+7")["input_ids"]]
    rows.append([*problem.tokenizer("1+")["input_ids"], problem.eos_ids[0]])
    batch.completions.tokens = torch.tensor([rows])
    batch.completions.lengths = torch.full((1, 3), 3)
    assert [cut_off for _, _, cut_off in problem._judged(batch)[0]] == [True, False, False]
