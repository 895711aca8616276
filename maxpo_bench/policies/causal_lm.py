"""A causal language model as a policy: make it, sample groups of completions from it, score completions with it.

Everything goes through the model's own forward, masks and cache. What makes it quick: a prompt is read once and what the
model remembers of it is shared by its group; completions that are still equal share one row of the batch while sampling;
rows that have ended leave it; scoring reads the shared prompt once as well. Not every model gives its own numbers that
way: `self_check.way_of` finds, once for each model, how many of these shortcuts do, and refuses a model that is right with none.
"""

import torch
from torch.nn import functional as F

from maxpo_bench.policies.reading import MANY_TOKENS, Completions, kept, plain_log_probs, positions, sample, score
from maxpo_bench.policies.self_check import TOLERANCE, way_of

MICRO_BATCH = 2**29  # float32 numbers of a forward and backward: 2 GB


def from_config(model, num_tokens, pad_id, eos_id, context, seed):
    """A fresh float32 model of the task file's `model` section. The initial weights depend on seed alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        model["architecture"],
        vocab_size=num_tokens,
        hidden_size=model["hidden_size"],
        num_hidden_layers=model["layers"],
        num_attention_heads=model["heads"],
        num_key_value_heads=model["heads"],
        intermediate_size=model["mlp_size"],
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=pad_id,
        bos_token_id=None,
        eos_token_id=eos_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def sample_groups(model, prompt_tokens, prompt_mask, uniforms, eos_ids, pad_id, temperature=1.0, stopped=None) -> Completions:
    """Draw N completions for each of G prompts.

    prompt_tokens, prompt_mask: [G, P], left-padded. uniforms: [G, N, T] in [0, 1), one per token: a token is the
    inverse CDF of the policy at its uniform, so policies given the same uniforms share their random numbers.
    eos_ids: tokens that end a completion. pad_id fills up. The statistics are those of the tempered distribution.
    stopped: tokens so far [R, t] -> [R] bool, further completions that end here; asked after every token.
    """
    way = way_of(model, prompt_tokens.shape[1] + uniforms.shape[-1])
    return sample(model, way, prompt_tokens, prompt_mask, uniforms, eos_ids, pad_id, temperature, stopped)


def token_log_probs(model, prompt_tokens, prompt_mask, prompt_of, tokens, lengths, temperature=1.0):
    """Log-probability of every completion token, differentiable: [R, T] float32, 0 after a completion's end.

    prompt_tokens, prompt_mask: [B, P] left-padded, each read once. prompt_of: [R] int64, the prompt of each completion.
    tokens: [R, T], lengths: [R]. Equal to a plain forward of prompt + completion, with the prompt's part shared.
    """
    way = way_of(model, prompt_tokens.shape[1] + tokens.shape[1])
    return score(model, way, prompt_tokens, prompt_mask, prompt_of, tokens, lengths, temperature)


def score_rows(model, prompt_tokens, prompt_mask, tokens, lengths, temperature=1.0, chunk=64):
    """Gradient of each completion's log-probability by all parameters that require it: [R, D] float32, ordered as parameters().

    prompt_tokens, prompt_mask: [R, P] left-padded; tokens: [R, T]; lengths: [R]. D parameters, tied ones counted once.
    Needs R * D * 4 bytes, and `chunk` rows of activations at a time. All rows of a chunk at once where the model can be mapped
    over and then gives its own log-probabilities; otherwise row by row.
    """
    scores = torch.empty(len(tokens), sum(p.numel() for p in model.parameters() if p.requires_grad), device=tokens.device)
    way = way_of(model, prompt_tokens.shape[1] + tokens.shape[1])
    together = way.pads
    if model.config.get_text_config(decoder=True).vocab_size >= MANY_TOKENS:
        chunk = max(1, chunk // 8)
    for start in range(0, len(tokens), chunk):
        rows = slice(start, start + chunk)
        part = prompt_tokens[rows], prompt_mask[rows], tokens[rows], lengths[rows], temperature
        found = _score_together(model, way, *part) if together else None
        together = found is not None
        scores[rows] = found if together else _score_one_by_one(model, *part)
    return scores


def _score_together(model, way, prompt_tokens, prompt_mask, tokens, lengths, temperature):
    """score_rows mapped over rows; None where that is another model (a window that a given mask replaces, alibi)."""
    from torch.func import functional_call, grad_and_value, vmap
    from torch.nn.attention import SDPBackend, sdpa_kernel

    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    num_tokens = tokens.shape[1]
    mask = F.pad(prompt_mask, (0, num_tokens - 1), value=True)
    sequence = torch.cat([prompt_tokens, tokens[:, :-1]], dim=1)  # [R, P + T - 1]
    key_at = torch.arange(sequence.shape[1], device=tokens.device)
    visible = (key_at <= key_at[:, None]) & mask[:, None, :] | (key_at == key_at[:, None])
    bias = torch.zeros(visible.shape, dtype=model.dtype, device=tokens.device)
    bias.masked_fill_(~visible, torch.finfo(model.dtype).min)  # [R, P + T - 1, P + T - 1]
    counts = torch.arange(num_tokens, device=tokens.device) < lengths[:, None]
    many = model.config.get_text_config(decoder=True).vocab_size >= MANY_TOKENS
    options = kept(model, num_tokens) if many else {}  # logits of the completion alone

    def log_prob(parameters, sequence, bias, position, token, count):
        out = functional_call(
            model,
            parameters,
            kwargs={
                "input_ids": sequence[None],
                "attention_mask": bias[None, None],
                "position_ids": position[None],
                "use_cache": False,
                **options,
            },
        )
        log_p = torch.log_softmax(out.logits[0, -num_tokens:].float() / temperature, dim=-1)
        return (log_p.gather(-1, token[:, None])[:, 0] * count).sum()

    each = vmap(grad_and_value(log_prob), in_dims=(None, 0, 0, 0, 0, 0))
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be vmapped
            gradients, values = each(parameters, sequence, bias, positions(mask), tokens, counts)
    except Exception:  # what cannot be mapped over says so in many ways; the loop is right for all
        return None
    with torch.no_grad():
        rows = torch.arange(len(tokens), device=tokens.device)
        wanted = score(model, way, prompt_tokens, prompt_mask, rows, tokens, lengths, temperature).sum(-1)
    if not torch.allclose(values, wanted, atol=TOLERANCE * num_tokens / temperature, rtol=TOLERANCE):
        return None
    return torch.cat([g.flatten(1) for g in gradients.values()], dim=1).float()


def _score_one_by_one(model, prompt_tokens, prompt_mask, tokens, lengths, temperature):
    parameters = [p for p in model.parameters() if p.requires_grad]
    scores = []
    with torch.enable_grad():
        for prompt, mask, completion, length in zip(prompt_tokens, prompt_mask, tokens, lengths.tolist(), strict=True):
            log_prob = plain_log_probs(model, prompt[mask], completion[:length], temperature).sum()
            gradients = torch.autograd.grad(log_prob, parameters, allow_unused=True, materialize_grads=True)
            scores.append(torch.cat([gradient.flatten() for gradient in gradients]).float())
    return torch.stack(scores)


def micro_batches(config, rows, group_size, num_prompt, num_tokens, vocabulary):
    """`rows` in parts that one forward and backward hold in MICRO_BATCH numbers, a group in one part where it fits.

    Counted: the logits of completions four times, 24 hidden states a layer of each token, the prompt's keys and values.
    """
    if len(rows) == 0:
        return []
    config = config.get_text_config(decoder=True)
    width = config.num_hidden_layers * config.hidden_size
    row = num_tokens * (4 * vocabulary + 24 * width) + 4 * num_prompt * width
    most = max(1, (MICRO_BATCH - 24 * num_prompt * width) // (row + 24 * num_prompt * width // group_size))
    if len(rows) <= most:
        return [rows]
    parts, part = [], rows[:0]
    for own in torch.split(rows, torch.unique_consecutive(rows // group_size, return_counts=True)[1].tolist()):
        if len(part) and len(part) + len(own) > most:
            parts.append(part)
            part = rows[:0]
        part = torch.cat([part, own])
        while len(part) > most:
            parts.append(part[:most])
            part = part[most:]
    return [*parts, part] if len(part) else parts
