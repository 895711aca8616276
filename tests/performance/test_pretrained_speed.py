"""How fast a step is at a real vocabulary: the shape of SmolLM2 with fewer layers and random weights, 8 prompts x 16 completions.

Random weights, so that no completions are equal; every row has an advantage. CPU seconds of one thread, least of several.
"""

import resource
import time

import pytest
import torch
from torch.nn import functional as F

from maxpo_bench.policies import causal_lm

pytestmark = pytest.mark.performance
PROMPT, NEW, GROUPS, SIZE, VOCABULARY, LAYERS = 48, 6, 8, 16, 49152, 8


@pytest.fixture(scope="module")
def case():
    """(model, prompts, mask, uniforms)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, num_hidden_layers=LAYERS, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    prompts = torch.randint(3, VOCABULARY, (GROUPS, PROMPT))
    uniforms = torch.rand(GROUPS, SIZE, NEW, dtype=torch.float64)
    yield LlamaForCausalLM(config).eval(), prompts, torch.ones_like(prompts, dtype=torch.bool), uniforms
    torch.set_num_threads(before)


def least(*runs, repeats=3):
    """Least CPU seconds of each run, in turn, after one of each to warm up."""
    times = [[] for _ in runs]
    for number in range(repeats + 1):
        for run, seconds in zip(runs, times, strict=True):
            start = time.process_time()
            run()
            if number:
                seconds.append(time.process_time() - start)
    return [min(seconds) for seconds in times]


def our_step(model, prompts, mask, uniforms):
    drawn = causal_lm.sample_groups(model, prompts, mask, uniforms, [], 2)
    of = torch.arange(GROUPS).repeat_interleave(SIZE)
    log_p = causal_lm.token_log_probs(model, prompts, mask, of, drawn.tokens.flatten(0, 1), drawn.lengths.flatten())
    model.zero_grad()
    (-(torch.linspace(-1, 1, len(of)) * log_p.sum(-1)).mean()).backward()


def bare_step(model, prompts):
    """Read the prompts once, go on with 16 rows each; then the same once more with gradient."""
    rows = torch.arange(GROUPS).repeat_interleave(SIZE)
    with torch.no_grad():
        out = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
        out.past_key_values.reorder_cache(rows)
        logits, drawn = out.logits[rows, -1], []
        for t in range(NEW):
            drawn.append(torch.multinomial(F.softmax(logits, -1), 1))
            if t + 1 < NEW:
                logits = model(input_ids=drawn[-1], past_key_values=out.past_key_values, use_cache=True).logits[:, -1]
    tokens = torch.cat(drawn, 1)
    out = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
    first = out.logits[rows]
    out.past_key_values.reorder_cache(rows)
    logits = torch.cat([first, model(input_ids=tokens[:, :-1], past_key_values=out.past_key_values, use_cache=True).logits], 1)
    log_p = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0].sum(-1)
    model.zero_grad()
    (-(torch.linspace(-1, 1, len(rows)) * log_p).mean()).backward()


def test_sampling_is_at_least_twice_as_fast_as_generate(case):
    model, prompts, mask, uniforms = case

    def generate():
        model.generate(
            input_ids=prompts, attention_mask=mask.long(), do_sample=True, num_return_sequences=SIZE, max_new_tokens=NEW,
            min_new_tokens=NEW, top_k=0, top_p=1.0, pad_token_id=2,
        )  # fmt: skip

    ours, theirs = least(lambda: causal_lm.sample_groups(model, prompts, mask, uniforms, [], 2), generate)
    print(f"\nsampling: ours {ours:.2f} s, generate {theirs:.2f} s, {theirs / ours:.1f} x faster")
    assert theirs >= 2 * ours


def test_a_step_costs_no_more_than_a_bare_loop_and_fits_the_memory(case):
    model, prompts, mask, uniforms = case
    ours, bare = least(lambda: our_step(model, prompts, mask, uniforms), lambda: bare_step(model, prompts))
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\nstep: ours {ours:.2f} s, bare loop {bare:.2f} s, ratio {ours / bare:.2f}; at most {gigabytes:.1f} GB")
    assert ours <= 1.25 * bare
    assert gigabytes <= 6
