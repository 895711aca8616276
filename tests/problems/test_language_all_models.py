"""Every causal language model of the installed `transformers`: right by an independent plain forward, or refused."""

from pathlib import Path

import pytest
import tiny_models
import torch
import transformers

from maxpo_bench.policies import causal_lm

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
NAMED = (
    "llama mistral mixtral qwen2 qwen3 gemma2 gemma3_text gemma3 phi phi3 gpt2 gptj gpt_neo gpt_neox opt falcon bloom mpt "
    "mamba mamba2 jamba lfm2 qwen3_next gpt_oss deepseek_v3"
).split()


def largest_error(model):
    """Nats by which a token's log-probability, drawn or scored, is off a plain forward of one row, and how many were compared."""
    lengths = (5, 13, 2)  # with the completions beyond the windows of 6
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(10, 90, (3, 13), generator=generator)
    mask = torch.arange(13) >= 13 - torch.tensor(lengths)[:, None]
    uniforms = torch.rand(3, 2, 9, generator=generator, dtype=torch.float64)
    drawn = causal_lm.sample_groups(model, tokens, mask, uniforms, list(range(10, 20)), 0)
    of, rows, ends = torch.arange(6) // 2, drawn.tokens.flatten(0, 1), drawn.lengths.flatten()
    errors = []
    with torch.no_grad():
        scored = causal_lm.token_log_probs(model, tokens, mask, of, rows, ends)
        for i, end in enumerate(ends):
            prompt = tokens[of[i]][mask[of[i]]]
            logits = model(input_ids=torch.cat([prompt, rows[i, :end]])[None], use_cache=False).logits[0]
            wanted = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, rows[i, :end, None])[:, 0]
            for found in (scored[i, :end], drawn.token_log_probs.flatten(0, 1)[i, :end]):
                errors.append(((found - wanted).abs() / (1 + wanted.abs())).max().item())
    return max(errors), int(ends.sum())


@pytest.mark.slow
def test_no_architecture_is_silently_wrong_and_the_page_says_which_are_right():
    outcomes, wrong = {}, {}
    for name in tiny_models.names():
        model, kind, detail = tiny_models.outcome(name)
        outcomes[name] = kind, detail
        if kind == "right":
            error, compared = largest_error(model)
            if not error < 5e-4 or compared < 6:
                wrong[name] = error, compared
        elif kind == "refused":
            assert "\n" not in detail
    assert not wrong
    right = {name for name, (kind, _) in outcomes.items() if kind == "right"}
    assert len(right) >= 100 and set(NAMED) <= right
    if f"transformers {transformers.__version__}," in PAGE.read_text(encoding="utf-8"):
        assert tiny_models.page(outcomes) == PAGE.read_text(encoding="utf-8"), "python tests/problems/tiny_models.py writes it"


def test_the_page_is_of_the_pinned_transformers():
    pins = (Path(__file__).parents[2] / "requirements.lock").read_text(encoding="utf-8")
    pinned = next(line.split("==")[1].split()[0] for line in pins.splitlines() if line.startswith("transformers=="))
    assert f"transformers {pinned}," in PAGE.read_text(encoding="utf-8")
