"""How a causal language model of `transformers` is read: masks, positions and caches are the model's own.

A `Way` says which shortcuts are taken. Masks are 2-D, as `generate` gives them, so windows, alibi and eager attention are
the model's business; the cache is the one the model makes for itself, whatever it is called.
"""

import inspect
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

SHARED_BELOW = 0.75  # share rows between equal completions while that leaves less than this part of them
FULL_ABOVE = 0.9  # rows that have ended leave the batch once less than this part of it goes on: leaving copies the cache
MANY_TOKENS, BLOCK = 2048, 256  # from that vocabulary on a CDF is searched in two levels, by blocks
CACHES = ("past_key_values", "cache_params", "state")  # what models call what they remember, in and out


@dataclass(frozen=True)
class Way:
    """Shortcuts that give a model's own numbers. Few models take none of them."""

    name: str
    pads: bool
    """prompts of different lengths share a left-padded batch; otherwise each length is a batch of its own"""
    continues: bool
    """completions are scored behind the cache of their prompt; otherwise each is read with its prompt"""
    caches: bool
    """a step of sampling reads one token; otherwise everything so far"""


SHARED = Way("shared", True, True, True)
WAYS = (
    SHARED,
    Way("by length", False, True, True),
    Way("whole to score", False, False, True),
    Way("whole", False, False, False),
)


def positions(mask):
    """Position of every token of a left-padded batch: mask [B, T] bool -> [B, T] int64, padding at 0."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


@lru_cache
def _takes(forward):
    parameters = inspect.signature(forward).parameters.values()
    return {p.name for p in parameters}, any(p.kind is p.VAR_KEYWORD for p in parameters)


def takes(model, name):
    """Whether the model's forward has this argument."""
    names, any_name = _takes(type(model).forward)
    return name in names or any_name


def kept(model, count):
    """The argument that spares the logits of all but the last `count` tokens, where the model has it."""
    return {"logits_to_keep": count} if takes(model, "logits_to_keep") else {}


def read_whole(model, tokens, count):
    """Logits of the last `count` of tokens [R, T] without padding, each with all before it: [R, count, V] float32."""
    return model(input_ids=tokens, use_cache=False, **kept(model, count)).logits[:, -count:].float()


class Reader:
    """A batch of prompts that is read on: tokens go in, the logits of what comes next come out, with gradient if wanted.

    Rows can be selected between reads.
    """

    def __init__(self, model, prompt_tokens, prompt_mask, way):
        """prompt_tokens, prompt_mask: [B, P], left-padded; without padding unless way.pads. Reads nothing yet."""
        self.model, self.way = model, way
        self.tokens, self.mask, self.position = prompt_tokens, prompt_mask, positions(prompt_mask)
        self.padded = not bool(prompt_mask.all())
        self.cache_name = self.cache = None

    def first(self):
        """Read the prompts: logits of the last position, [B, V] float32."""
        if not self.way.caches:
            return read_whole(self.model, self.tokens, 1)[:, 0]
        out = self._forward(self.tokens, kept(self.model, 1))
        self.cache_name = next((name for name in CACHES if out.get(name) is not None), None)
        if self.cache_name is None:
            raise TypeError("the forward gives no cache")
        self.cache = out[self.cache_name]
        return out.logits[:, -1].float()

    def select(self, rows):
        """Keep these rows, in this order, repeats allowed. rows: [R] int64."""
        self.position = self.position[rows]
        if self.padded:
            self.mask = self.mask[rows]
        if not self.way.caches:
            self.tokens = self.tokens[rows]
        elif hasattr(self.cache, "reorder_cache"):
            self.cache.reorder_cache(rows)
        else:
            self.cache = tree_map_only(torch.Tensor, lambda tensor: tensor.index_select(0, rows), self.cache)

    def read(self, tokens):
        """Read the next tokens [R, T] of every row: their logits [R, T, V] float32."""
        if not self.way.caches:
            self.tokens = torch.cat([self.tokens, tokens], dim=1)
            return read_whole(self.model, self.tokens, tokens.shape[1])
        if self.padded:
            self.mask = F.pad(self.mask, (0, tokens.shape[1]), value=True)
        after = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        self.position = self.position[:, -1:] + after
        out = self._forward(tokens, {self.cache_name: self.cache})
        self.cache = out[self.cache_name]
        return out.logits.float()

    def _forward(self, tokens, options):
        if self.way.pads:  # elsewhere the model's own defaults are right
            options = {**options, "position_ids": self.position}
            if self.padded:
                options["attention_mask"] = self.mask.long()
        return self.model(input_ids=tokens, use_cache=True, **options)


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


def _by_length(prompt_mask):
    """The different lengths of left-padded prompts, and which prompts have each."""
    lengths = prompt_mask.sum(1)
    return [(int(length), torch.nonzero(lengths == length)[:, 0]) for length in lengths.unique()]


def _sample_by_length(model, way, prompt_tokens, prompt_mask, uniforms, *options):
    parts, rows = [], []
    for length, chosen in _by_length(prompt_mask):
        tokens = prompt_tokens[chosen, -length:]
        mask = torch.ones_like(tokens, dtype=torch.bool)
        parts.append(sample(model, way, tokens, mask, uniforms[chosen.to(uniforms.device)], *options))
        rows.append(chosen)
    order = torch.cat(rows).argsort(stable=True)
    longest = max(part.tokens.shape[-1] for part in parts)

    def whole(name, value=0):
        tensors = [getattr(part, name) for part in parts]
        if tensors[0].dim() == 3:
            tensors = [F.pad(tensor, (0, longest - tensor.shape[-1]), value=value) for tensor in tensors]
        return torch.cat(tensors)[order]

    pad_id = options[1]
    return Completions(
        whole("tokens", pad_id), whole("lengths"), whole("token_log_probs"), whole("token_entropies"), whole("score_norms")
    )


def draw(p, node, uniforms):
    """The inverse CDF of each row's distribution at its uniform: p [n, V] float32, node [R] int64, uniforms [R] -> [R] int64.

    CDFs are float64 sums. Where MANY_TOKENS have one, only the sums of blocks are formed first, and the CDF inside the block
    that the uniform falls into: the same token, but where rounding of 1e-16 decides.
    """
    if p.shape[-1] < MANY_TOKENS:
        cdf = p.cumsum(-1, dtype=torch.float64).index_select(0, node)
        return torch.searchsorted(cdf, uniforms[:, None] * cdf[:, -1:], right=True)[:, 0].clamp(max=p.shape[-1] - 1)
    blocks = F.pad(p, (0, -p.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))  # [n, V / BLOCK, BLOCK]
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    ends = ends.index_select(0, node)  # [R, V / BLOCK]
    at = uniforms[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, at, right=True).clamp(max=ends.shape[-1] - 1)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[node, block[:, 0]].cumsum(-1, dtype=torch.float64)  # [R, BLOCK]
    below = torch.nextafter(inside[:, -1:], torch.zeros((), dtype=inside.dtype, device=p.device))  # a token has a probability
    token = torch.searchsorted(inside, torch.minimum(at - before, below), right=True)
    return (block * BLOCK + token)[:, 0].clamp(max=p.shape[-1] - 1)


@torch.no_grad()
def sample(model, way, prompt_tokens, prompt_mask, uniforms, eos_ids, pad_id, temperature, stopped=None):
    """sample_groups, read this way: Completions."""
    if not way.pads and not bool(prompt_mask.all()):
        return _sample_by_length(model, way, prompt_tokens, prompt_mask, uniforms, eos_ids, pad_id, temperature, stopped)
    num_groups, group_size, max_tokens = uniforms.shape
    device = prompt_tokens.device
    num_rows = num_groups * group_size
    uniforms = uniforms.reshape(num_rows, max_tokens).to(device)
    tokens = torch.full((num_rows, max_tokens), pad_id, device=device)
    log_probs, entropies = torch.zeros(2, num_rows, max_tokens, device=device)
    score_norms = torch.zeros(num_rows, device=device)
    lengths = torch.full((num_rows,), max_tokens, device=device)
    ends = torch.as_tensor(eos_ids, device=device)

    reader = Reader(model, prompt_tokens, prompt_mask, way)
    logits = reader.first()  # [nodes, V]; a node = one distinct completion so far
    live = torch.arange(num_rows, device=device)  # rows that have not ended
    node = live // group_size  # the node of each live row
    shares, apart = True, False  # may live rows share a node; has each its own by now
    for t in range(max_tokens):
        log_p = torch.log_softmax(logits / temperature, dim=-1)
        p = log_p.exp()
        token = draw(p, node, uniforms[live, t])
        tokens[live, t] = token
        log_probs[live, t] = log_p[node, token]
        if p.shape[-1] < MANY_TOKENS:
            entropy, squares = -torch.special.xlogy(p, p).sum(-1), p.square().sum(-1)
        else:  # without a table in between
            entropy = -torch.linalg.vecdot(p, log_p.clamp_(min=torch.finfo(log_p.dtype).min))
            squares = torch.linalg.vecdot(p, p)
        entropies[live, t] = entropy[node]
        score_norms[live] += (1 - 2 * p[node, token]) + squares[node]
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
            reader.select(parent)
        logits = reader.read(next_token[:, None])[:, -1]
    longest = int(lengths.max())
    shape = (num_groups, group_size)
    return Completions(
        tokens[:, :longest].reshape(*shape, longest),
        lengths.clamp(max=longest).reshape(shape),
        log_probs[:, :longest].reshape(*shape, longest),
        entropies[:, :longest].reshape(*shape, longest),
        score_norms.reshape(shape),
    )


def score(model, way, prompt_tokens, prompt_mask, prompt_of, tokens, lengths, temperature=1.0):
    """token_log_probs, read this way: [R, T]."""
    num_tokens = tokens.shape[1]
    if not way.pads and not bool(prompt_mask.all()):
        log_p = torch.zeros(tokens.shape, device=tokens.device)
        for length, chosen in _by_length(prompt_mask):
            rows = torch.nonzero(torch.isin(prompt_of, chosen))[:, 0]
            if len(rows):
                of = torch.searchsorted(chosen, prompt_of[rows])
                prompts = prompt_tokens[chosen, -length:]
                mask = torch.ones_like(prompts, dtype=torch.bool)
                part = score(model, way, prompts, mask, of, tokens[rows], lengths[rows], temperature)
                log_p = log_p.index_copy(0, rows, part)
        return log_p
    if way.continues:
        reader = Reader(model, prompt_tokens, prompt_mask, way)
        logits = reader.first().index_select(0, prompt_of)[:, None]  # [R, 1, V]
        if num_tokens > 1:
            reader.select(prompt_of)
            logits = torch.cat([logits, reader.read(tokens[:, :-1])], dim=1)  # [R, T, V]; causal hides what is behind the end
    else:
        logits = read_whole(model, torch.cat([prompt_tokens[prompt_of], tokens[:, :-1]], dim=1), num_tokens)
    log_p = torch.log_softmax(logits / temperature, dim=-1).gather(-1, tokens[..., None])[..., 0]
    counts = torch.arange(num_tokens, device=tokens.device) < lengths[:, None]
    return torch.where(counts, log_p, 0.0)


def plain_log_probs(model, prompt, completion, temperature=1.0):
    """Log-probabilities of one completion [T] after its prompt [P], by a forward with no mask, no cache, no padding."""
    logits = model(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits[0, -len(completion) - 1 : -1]
    return torch.log_softmax(logits.float() / temperature, dim=-1).gather(-1, completion[:, None])[:, 0]
