"""A causal language model as a policy: make it, sample groups of completions from it, score completions with it.

Everything goes through the model's own forward, so any `transformers` causal LM works. What makes it quick:
a prompt is read once and its keys and values are shared by its group; completions that are still equal share one row of
the batch while sampling; rows that have ended leave it; scoring reads the shared prompt once as well.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

SHARED_BELOW = 0.75  # share rows between equal completions while that leaves less than this part of them
FULL_ABOVE = 0.9  # rows that have ended leave the batch once less than this part of it goes on: leaving copies the cache


@dataclass
class Completions:
    """What sample_groups drew. G prompts, N completions each, T tokens of the longest one (end token included)."""

    tokens: torch.Tensor
    """[G, N, T] int64, padded with the pad token after the end token."""
    lengths: torch.Tensor
    """[G, N] int64, tokens that count, the end token included; T for a completion that was cut off."""
    token_log_probs: torch.Tensor
    """[G, N, T] float32, 0 after the end."""
    token_entropies: torch.Tensor
    """[G, N, T] float32, nats, 0 after the end."""
    score_norms: torch.Tensor
    """[G, N] float32: sum over tokens of ||onehot(y_t) - pi_t||^2, the squared score norm in logit space."""


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
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32).eval()


def positions(mask):
    """Position of every token of a left-padded batch: mask [B, T] bool -> [B, T] int64, padding at 0."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def attention_mask(query_mask, key_mask):
    """What each query may see, [B, 1, Q, K] bool; the queries are the last Q of the K keys. None: causal says it all.

    query_mask: [B, Q], key_mask: [B, K] bool, False where padded. A padded query sees itself alone, so that its softmax
    is not over nothing.
    """
    num_queries, num_keys = query_mask.shape[1], key_mask.shape[1]
    if (num_queries == 1 or num_queries == num_keys) and bool(key_mask.all()):
        return None
    key_at = torch.arange(num_keys, device=key_mask.device)
    query_at = key_at[num_keys - num_queries :, None]
    visible = (key_at <= query_at) & key_mask[:, None, :] | (key_at == query_at)
    return visible[:, None]


class GroupCache:
    """The `transformers` cache of a batch whose rows can be selected, with gradient if wanted."""

    def __init__(self):
        from transformers import DynamicCache

        self.cache = DynamicCache()

    def select(self, rows):
        """Keep these rows, in this order, repeats allowed. rows: [R] int64."""
        for layer in self.cache.layers:
            layer.keys = layer.keys.index_select(0, rows)
            layer.values = layer.values.index_select(0, rows)


def prefill(model, prompt_tokens, prompt_mask, cache):
    """Read left-padded prompts [B, P] into the cache. Returns the logits of the last position, [B, V] float32."""
    out = model(
        input_ids=prompt_tokens,
        attention_mask=attention_mask(prompt_mask, prompt_mask),
        position_ids=positions(prompt_mask),
        past_key_values=cache.cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return out.logits[:, -1].float()


@torch.no_grad()
def sample_groups(model, prompt_tokens, prompt_mask, uniforms, eos_ids, pad_id, temperature=1.0, stopped=None):
    """Draw N completions for each of G prompts. Returns Completions.

    prompt_tokens, prompt_mask: [G, P], left-padded. uniforms: [G, N, T] in [0, 1), one per token: a token is the
    inverse CDF of the policy at its uniform, so policies given the same uniforms share their random numbers.
    eos_ids: tokens that end a completion. pad_id fills up. The statistics are those of the tempered distribution.
    stopped: tokens so far [R, t] -> [R] bool, further completions that end here; asked after every token.
    """
    num_groups, group_size, max_tokens = uniforms.shape
    device = prompt_tokens.device
    num_rows = num_groups * group_size
    uniforms = uniforms.reshape(num_rows, max_tokens).to(device)
    tokens = torch.full((num_rows, max_tokens), pad_id, device=device)
    log_probs, entropies = torch.zeros(2, num_rows, max_tokens, device=device)
    score_norms = torch.zeros(num_rows, device=device)
    lengths = torch.full((num_rows,), max_tokens, device=device)
    ends = torch.as_tensor(eos_ids, device=device)

    cache = GroupCache()
    logits = prefill(model, prompt_tokens, prompt_mask, cache)  # [nodes, V]; a node = one distinct completion so far
    node_mask, node_position = prompt_mask, prompt_mask.sum(1)
    padded = not bool(prompt_mask.all())
    live = torch.arange(num_rows, device=device)  # rows that have not ended
    node = live // group_size  # the node of each live row
    shares, apart = True, False  # may live rows share a node; has each its own by now
    for t in range(max_tokens):
        log_p = torch.log_softmax(logits / temperature, dim=-1)
        p = log_p.exp()
        cdf = p.cumsum(-1, dtype=torch.float64).index_select(0, node)
        draw = uniforms[live, t, None] * cdf[:, -1:]
        token = torch.searchsorted(cdf, draw, right=True)[:, 0].clamp(max=p.shape[-1] - 1)
        tokens[live, t] = token
        log_probs[live, t] = log_p[node, token]
        entropies[live, t] = -torch.special.xlogy(p, p).sum(-1)[node]
        score_norms[live] += (1 - 2 * p[node, token]) + p.square().sum(-1)[node]
        goes_on = torch.isin(token, ends, invert=True)
        if stopped is not None:
            goes_on &= ~stopped(tokens[live, : t + 1])
        if not goes_on.all():
            lengths[live[~goes_on]] = t + 1
            live, node, token = live[goes_on], node[goes_on], token[goes_on]
        if t + 1 == max_tokens or len(live) == 0:
            break
        if shares:
            keys, shared = torch.unique(node * p.shape[-1] + token, return_inverse=True)
            shares = len(keys) <= SHARED_BELOW * len(live)
        if shares:
            parent, next_token, node = keys // p.shape[-1], keys % p.shape[-1], shared
        elif not apart or len(live) < FULL_ABOVE * len(logits):
            parent, next_token, node, apart = node, token, torch.arange(len(live), device=device), True
        else:
            parent, next_token = None, torch.full((len(logits),), pad_id, device=device)
            next_token[node] = token
        if parent is not None:
            cache.select(parent)
            node_mask, node_position = node_mask[parent], node_position[parent]
        if padded:
            node_mask = F.pad(node_mask, (0, 1), value=True)
        out = model(
            input_ids=next_token[:, None],
            attention_mask=attention_mask(node_mask[:, -1:], node_mask) if padded else None,
            position_ids=node_position[:, None],
            past_key_values=cache.cache,
            use_cache=True,
        )
        logits, node_position = out.logits[:, -1].float(), node_position + 1
    longest = int(lengths.max())
    shape = (num_groups, group_size)
    return Completions(
        tokens[:, :longest].reshape(*shape, longest),
        lengths.clamp(max=longest).reshape(shape),
        log_probs[:, :longest].reshape(*shape, longest),
        entropies[:, :longest].reshape(*shape, longest),
        score_norms.reshape(shape),
    )


def token_log_probs(model, prompt_tokens, prompt_mask, prompt_of, tokens, lengths, temperature=1.0):
    """Log-probability of every completion token, differentiable: [R, T] float32, 0 after a completion's end.

    prompt_tokens, prompt_mask: [B, P] left-padded, each read once. prompt_of: [R] int64, the prompt of each completion.
    tokens: [R, T], lengths: [R]. Equal to a plain forward of prompt + completion, with the prompt's part shared.
    """
    num_tokens = tokens.shape[1]
    cache = GroupCache()
    logits = prefill(model, prompt_tokens, prompt_mask, cache).index_select(0, prompt_of)[:, None]  # [R, 1, V]
    if num_tokens > 1:
        cache.select(prompt_of)
        mask = prompt_mask[prompt_of]
        query_mask = torch.ones_like(tokens[:, :-1], dtype=torch.bool)  # padding behind the end: causal hides it
        out = model(
            input_ids=tokens[:, :-1],
            attention_mask=attention_mask(query_mask, torch.cat([mask, query_mask], dim=1)),
            position_ids=mask.sum(1, keepdim=True) + torch.arange(num_tokens - 1, device=tokens.device),
            past_key_values=cache.cache,
            use_cache=True,
        )
        logits = torch.cat([logits, out.logits.float()], dim=1)  # [R, T, V]
    log_p = torch.log_softmax(logits / temperature, dim=-1).gather(-1, tokens[..., None])[..., 0]
    counts = torch.arange(num_tokens, device=tokens.device) < lengths[:, None]
    return torch.where(counts, log_p, 0.0)


def score_rows(model, prompt_tokens, prompt_mask, tokens, lengths, temperature=1.0, chunk=64):
    """Gradient of each completion's log-probability by all parameters that require it: [R, D] float32, ordered as parameters().

    prompt_tokens, prompt_mask: [R, P] left-padded; tokens: [R, T]; lengths: [R]. D parameters, tied ones counted once.
    Needs R * D * 4 bytes, and `chunk` rows of activations at a time.
    """
    from torch.func import functional_call, grad, vmap
    from torch.nn.attention import SDPBackend, sdpa_kernel

    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    num_prompt, num_tokens = prompt_tokens.shape[1], tokens.shape[1]
    mask = F.pad(prompt_mask, (0, num_tokens - 1), value=True)
    sequence = torch.cat([prompt_tokens, tokens[:, :-1]], dim=1)  # [R, P + T - 1]
    key_at = torch.arange(sequence.shape[1], device=tokens.device)
    visible = (key_at <= key_at[:, None]) & mask[:, None, :] | (key_at == key_at[:, None])
    bias = torch.zeros(visible.shape, dtype=model.dtype, device=tokens.device)
    bias.masked_fill_(~visible, torch.finfo(model.dtype).min)  # [R, P + T - 1, P + T - 1]
    counts = torch.arange(num_tokens, device=tokens.device) < lengths[:, None]

    def log_prob(parameters, sequence, bias, position, token, count):
        out = functional_call(
            model,
            parameters,
            kwargs={
                "input_ids": sequence[None],
                "attention_mask": bias[None, None],
                "position_ids": position[None],
                "use_cache": False,
            },
        )
        log_p = torch.log_softmax(out.logits[0, num_prompt - 1 :].float() / temperature, dim=-1)
        return (log_p.gather(-1, token[:, None])[:, 0] * count).sum()

    each = vmap(grad(log_prob), in_dims=(None, 0, 0, 0, 0, 0))
    scores = torch.empty(len(tokens), sum(p.numel() for p in parameters.values()), device=tokens.device)
    for start in range(0, len(tokens), chunk):
        rows = slice(start, start + chunk)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be vmapped
            gradients = each(parameters, sequence[rows], bias[rows], positions(mask)[rows], tokens[rows], counts[rows])
        scores[rows] = torch.cat([g.flatten(1) for g in gradients.values()], dim=1).float()
    return scores
