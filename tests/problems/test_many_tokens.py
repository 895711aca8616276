"""Sampling from real vocabularies: the search in two levels draws the tokens of the plain CDF."""

import pytest
import torch

from maxpo_bench.policies import reading


@pytest.mark.parametrize("num_tokens", [2048, 2049, 5000, 49152])
def test_two_levels_draw_the_same_tokens(num_tokens, monkeypatch):
    generator = torch.Generator().manual_seed(num_tokens)
    logits = 4 * torch.randn(16, num_tokens, generator=generator)
    logits[:, 7], logits[3, :-1], logits[4, 1:], logits[5, 300:1900] = -torch.inf, -torch.inf, -torch.inf, -torch.inf
    p, node = torch.softmax(logits, -1), torch.arange(320) % 16
    uniforms = torch.rand(320, dtype=torch.float64, generator=generator)
    uniforms[:16], uniforms[16:32] = 0.0, 1 - 2**-53
    drawn = reading.draw(p, node, uniforms)
    assert (p[node, drawn] > 0).all()
    monkeypatch.setattr(reading, "MANY_TOKENS", num_tokens + 1)
    assert torch.equal(drawn, reading.draw(p, node, uniforms))


def test_statistics_are_the_same_however_many_tokens(monkeypatch):
    from transformers import LlamaConfig, LlamaForCausalLM

    from maxpo_bench.policies import causal_lm

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2304, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=16
    )
    model = LlamaForCausalLM(config).eval()
    prompts, uniforms = torch.randint(3, 2304, (3, 5)), torch.rand(3, 8, 4, dtype=torch.float64)
    case = model, prompts, torch.ones_like(prompts, dtype=torch.bool), uniforms, [2], 0
    found = causal_lm.sample_groups(*case)
    monkeypatch.setattr(reading, "MANY_TOKENS", 10**9)
    plain = causal_lm.sample_groups(*case)
    assert torch.equal(found.tokens, plain.tokens)
    for name in ("token_log_probs", "token_entropies", "score_norms"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name), atol=1e-5, rtol=1e-5)


def test_scores_need_the_logits_of_the_completion_alone():
    from transformers import LlamaConfig, LlamaForCausalLM

    from maxpo_bench.policies import causal_lm

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2304, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=8
    )
    model = LlamaForCausalLM(config).eval()
    prompts, tokens, lengths = (
        torch.randint(3, 2304, (9, 5)),
        torch.randint(3, 2304, (9, 4)),
        torch.tensor([4, 1, 2, 3, 4, 4, 4, 4, 2]),
    )
    mask = torch.ones_like(prompts, dtype=torch.bool)
    mask[1, :3] = False
    found = causal_lm.score_rows(model, prompts, mask, tokens, lengths)
    wanted = causal_lm._score_one_by_one(model, prompts, mask, tokens, lengths, 1.0)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
