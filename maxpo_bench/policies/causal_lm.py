"""A causal language model as a policy: make it, sample groups of completions from it, score completions with it.

Everything goes through the model's own forward, masks and cache. What makes it quick: a prompt is read once and what the
model remembers of it is shared by its group; completions that are still equal share one row of the batch while sampling;
rows that have ended leave it; scoring reads the shared prompt once as well. Not every model gives its own numbers that
way: `way_of` finds, once for each model, how many of these shortcuts do, and refuses a model that is right with none.
"""

import re
import weakref
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from maxpo_bench.errors import InputError
from maxpo_bench.policies.reading import WAYS, Reader, positions, read_whole

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
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@torch.no_grad()
def sample_groups(model, prompt_tokens, prompt_mask, uniforms, eos_ids, pad_id, temperature=1.0, stopped=None):
    """Draw N completions for each of G prompts. Returns Completions.

    prompt_tokens, prompt_mask: [G, P], left-padded. uniforms: [G, N, T] in [0, 1), one per token: a token is the
    inverse CDF of the policy at its uniform, so policies given the same uniforms share their random numbers.
    eos_ids: tokens that end a completion. pad_id fills up. The statistics are those of the tempered distribution.
    stopped: tokens so far [R, t] -> [R] bool, further completions that end here; asked after every token.
    """
    way = way_of(model, prompt_tokens.shape[1] + uniforms.shape[-1])
    return _sample(model, way, prompt_tokens, prompt_mask, uniforms, eos_ids, pad_id, temperature, stopped)


def _by_length(prompt_mask):
    """The different lengths of left-padded prompts, and which prompts have each."""
    lengths = prompt_mask.sum(1)
    return [(int(length), torch.nonzero(lengths == length)[:, 0]) for length in lengths.unique()]


def _sample_by_length(model, way, prompt_tokens, prompt_mask, uniforms, *options):
    parts, rows = [], []
    for length, chosen in _by_length(prompt_mask):
        tokens = prompt_tokens[chosen, -length:]
        mask = torch.ones_like(tokens, dtype=torch.bool)
        parts.append(_sample(model, way, tokens, mask, uniforms[chosen.to(uniforms.device)], *options))
        rows.append(chosen)
    order = torch.cat(rows).argsort()
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


def _sample(model, way, prompt_tokens, prompt_mask, uniforms, eos_ids, pad_id, temperature, stopped=None):
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


def token_log_probs(model, prompt_tokens, prompt_mask, prompt_of, tokens, lengths, temperature=1.0):
    """Log-probability of every completion token, differentiable: [R, T] float32, 0 after a completion's end.

    prompt_tokens, prompt_mask: [B, P] left-padded, each read once. prompt_of: [R] int64, the prompt of each completion.
    tokens: [R, T], lengths: [R]. Equal to a plain forward of prompt + completion, with the prompt's part shared.
    """
    way = way_of(model, prompt_tokens.shape[1] + tokens.shape[1])
    return _score(model, way, prompt_tokens, prompt_mask, prompt_of, tokens, lengths, temperature)


def _score(model, way, prompt_tokens, prompt_mask, prompt_of, tokens, lengths, temperature=1.0):
    num_tokens = tokens.shape[1]
    if not way.pads and not bool(prompt_mask.all()):
        log_p = torch.zeros(tokens.shape, device=tokens.device)
        for length, chosen in _by_length(prompt_mask):
            rows = torch.nonzero(torch.isin(prompt_of, chosen))[:, 0]
            if len(rows):
                of = torch.searchsorted(chosen, prompt_of[rows])
                prompts = prompt_tokens[chosen, -length:]
                mask = torch.ones_like(prompts, dtype=torch.bool)
                part = _score(model, way, prompts, mask, of, tokens[rows], lengths[rows], temperature)
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


def score_rows(model, prompt_tokens, prompt_mask, tokens, lengths, temperature=1.0, chunk=64):
    """Gradient of each completion's log-probability by all parameters that require it: [R, D] float32, ordered as parameters().

    prompt_tokens, prompt_mask: [R, P] left-padded; tokens: [R, T]; lengths: [R]. D parameters, tied ones counted once.
    Needs R * D * 4 bytes, and `chunk` rows of activations at a time. All rows of a chunk at once where the model can be mapped
    over and then gives its own log-probabilities; otherwise row by row.
    """
    scores = torch.empty(len(tokens), sum(p.numel() for p in model.parameters() if p.requires_grad), device=tokens.device)
    way = way_of(model, prompt_tokens.shape[1] + tokens.shape[1])
    together = way.pads
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

    each = vmap(grad_and_value(log_prob), in_dims=(None, 0, 0, 0, 0, 0))
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels cannot be vmapped
            gradients, values = each(parameters, sequence, bias, positions(mask), tokens, counts)
    except Exception:  # what cannot be mapped over says so in many ways; the loop is right for all
        return None
    with torch.no_grad():
        rows = torch.arange(len(tokens), device=tokens.device)
        wanted = _score(model, way, prompt_tokens, prompt_mask, rows, tokens, lengths, temperature).sum(-1)
    if not torch.allclose(values, wanted, atol=TOLERANCE * num_tokens / temperature, rtol=TOLERANCE):
        return None
    return torch.cat([g.flatten(1) for g in gradients.values()], dim=1).float()


def _score_one_by_one(model, prompt_tokens, prompt_mask, tokens, lengths, temperature):
    parameters = [p for p in model.parameters() if p.requires_grad]
    scores = []
    with torch.enable_grad():
        for prompt, mask, completion, length in zip(prompt_tokens, prompt_mask, tokens, lengths.tolist(), strict=True):
            log_prob = _plain_log_probs(model, prompt[mask], completion[:length], temperature).sum()
            gradients = torch.autograd.grad(log_prob, parameters, allow_unused=True, materialize_grads=True)
            scores.append(torch.cat([gradient.flatten() for gradient in gradients]).float())
    return torch.stack(scores)


# Which way of reading gives the model's own numbers

TOLERANCE = 1e-4  # of a token's log-probability, in nats and relative
GRADIENT_TOLERANCE = 1e-3  # of the gradient's largest entry
AUTOCAST_TOLERANCE = 0.1  # nats, on average, where bfloat16 rounds
NUM_CHECKED = 5  # tokens of a completion
_ways = weakref.WeakKeyDictionary()  # model -> (way, prompt length it was found with, prompt length that shows everything)


def way_of(model, longest):
    """How this model is read: the first of WAYS that gives its own numbers. InputError, one line, where none does.

    longest: tokens of prompt + completion at most; a window longer than that does not matter. Found once for a model, and
    again when longer texts come to pass a window.
    """
    way, checked, telling = _ways.get(model) or (None, 0, _telling_length(model))
    length = max(4, min(telling, longest - NUM_CHECKED))
    if length > checked:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            way = _find_way(model, length)
        _ways[model] = way, length, telling
    return way


def _find_way(model, length):
    try:
        case = _Case.of(model, length)
        wanted = case.plain(model)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a forward that wants more than tokens raises anything
        raise InputError(f"{_name(model)} cannot be a policy: a plain forward of tokens raises {_one_line(error)}") from None
    if not all(tensor.isfinite().all() for tensor in wanted):
        raise InputError(f"{_name(model)} cannot be a policy: its log-probabilities are not finite")
    if not case.is_causal(model, wanted[0]):
        decoder = "" if getattr(model.config, "is_decoder", True) else "; is_decoder is false in its config.json"
        raise InputError(f"{_name(model)} cannot be a policy: what it says of a token depends on later tokens{decoder}")
    for way in WAYS:
        lacks = case.lacks(model, way, *wanted)
        if lacks is None:
            return way
    raise InputError(f"{_name(model)} cannot be a policy: {lacks}")


def _name(model):
    return type(model).__name__


def _one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _telling_length(model):
    """A prompt longer than every window, chunk or other length at which the config says that reading changes."""
    words = ("window", "chunk", "topk", "original_max_position")
    found, sections = [8], [model.config.to_dict()]
    for section in sections:
        sections += [value for value in section.values() if isinstance(value, dict)]
        found += [v + 4 for name, v in section.items() if type(v) is int and any(word in name for word in words)]
    return min(max(found), (context(model.config) or 1_000_000) - NUM_CHECKED)


def context(config):
    """Tokens that fit into a model of this config; None where nothing limits them."""
    limit = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _plain_log_probs(model, prompt, completion, temperature=1.0):
    """Log-probabilities of one completion [T] after its prompt [P], by a forward with no mask, no cache, no padding."""
    logits = model(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits[0, -len(completion) - 1 : -1]
    return torch.log_softmax(logits.float() / temperature, dim=-1).gather(-1, completion[:, None])[:, 0]


@dataclass
class _Case:
    """Three prompts of different lengths with two completions each, all made of fixed tokens."""

    prompt_tokens: torch.Tensor
    prompt_mask: torch.Tensor
    tokens: torch.Tensor
    ends: list

    @classmethod
    def of(cls, model, length):
        device = next(model.parameters()).device
        config = model.config.get_text_config(decoder=True)
        named = {**model.config.to_dict(), **config.to_dict()}.items()  # images, padding and the like are not plain text
        named = [value for name, value in named if re.search("_(token|index)(_id)?$", name)]
        special = {i for ids in named for i in (ids if isinstance(ids, list) else [ids])}
        usual = torch.tensor([i for i in range(config.vocab_size) if i not in special])
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return usual[torch.randint(len(usual), shape, generator=generator)].to(device)

        mask = torch.arange(length) >= length - torch.tensor([length, max(1, length - 3), 2])[:, None]
        tokens = draw(3, length)
        tokens[~mask.to(device)] = 0
        return cls(tokens, mask.to(device), draw(6, NUM_CHECKED), usual[::5].tolist())

    def plain(self, model):
        """Log-probabilities [6, T] and the gradient of their sum by one parameter, by plain forwards of one row each."""
        parameter, log_probs, gradient = self._parameter(model), [], 0.0
        with torch.enable_grad():
            for i, completion in enumerate(self.tokens):
                log_probs.append(_plain_log_probs(model, self.prompt_tokens[i // 2][self.prompt_mask[i // 2]], completion))
                gradient = gradient + self._gradient(log_probs[-1], parameter)
        return torch.stack(log_probs).detach(), gradient

    @torch.no_grad()
    def is_causal(self, model, wanted):
        """Whether the first token's log-probability is the same when nothing follows."""
        found = [
            _plain_log_probs(model, self.prompt_tokens[i // 2][self.prompt_mask[i // 2]], self.tokens[i, :1])[0] for i in (0, 5)
        ]
        return _equal(torch.stack(found), wanted[[0, 5], 0])

    @staticmethod
    def _parameter(model):
        return next((p for p in model.parameters() if p.requires_grad), None)

    @staticmethod
    def _gradient(log_probs, parameter):
        if parameter is None:
            return torch.zeros(1)
        return torch.autograd.grad(log_probs.sum(), parameter, allow_unused=True, materialize_grads=True)[0]

    @torch.no_grad()
    def sampled_and_scored(self, model, way, num_prompts=3):
        """Log-probabilities of tokens of 4 completions a prompt, when they are drawn and afterwards: two [4 * num_prompts, T]."""
        device = self.tokens.device
        prompts, mask = self.prompt_tokens[:num_prompts], self.prompt_mask[:num_prompts]
        uniforms = torch.rand(num_prompts, 4, NUM_CHECKED, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        drawn = _sample(model, way, prompts, mask, uniforms, self.ends, 0, 1.0)
        of = torch.arange(4 * num_prompts, device=device) // 4
        scored = _score(model, way, prompts, mask, of, drawn.tokens.flatten(0, 1), drawn.lengths.flatten())
        return drawn.token_log_probs.flatten(0, 1), scored

    def lacks(self, model, way, wanted, gradient):
        """None where `way` gives the model's own numbers, else what it does not."""
        device = self.tokens.device
        mask, of, lengths = self.prompt_mask, torch.arange(6, device=device) // 2, torch.full((6,), NUM_CHECKED, device=device)
        try:
            with torch.enable_grad():
                padded = _score(model, way, self.prompt_tokens, mask, of, self.tokens, lengths)
                slope = self._gradient(padded, self._parameter(model))
            with torch.no_grad():
                one = _score(model, way, self.prompt_tokens[:1], mask[:1], of[:2], self.tokens[:2], lengths[:2])
                drawn = [self.sampled_and_scored(model, way, prompts) for prompts in (1, 3)]
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model that cannot be read this way says so in any way
            return f"reading it raises {_one_line(error)}"
        for found, right, batch in ((one, wanted[:2], "one prompt"), (padded, wanted, "prompts of different lengths")):
            if not _equal(found, right):
                return f"log-probabilities of {batch} differ from a plain forward by {_off(found, right)} nats"
        for sampled, scored in drawn:
            if not _equal(sampled, scored):
                return (
                    f"a token's log-probability when sampled and in the finished text differ by {_off(sampled, scored)} nats: "
                    "what its forward remembers is not in the cache that it gives"
                )
        if (slope - gradient).abs().max() > GRADIENT_TOLERANCE * gradient.abs().max():
            return "the gradient differs from that of a plain forward"
        return None


def _equal(found, wanted):
    return torch.allclose(found, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def _off(found, wanted):
    return f"{(found - wanted).abs().max().item():.2g}"


def sampled_against_scored(model):
    """Mean difference of a token's log-probability when sampled and when scored, in nats, in the precision of now."""
    way, length, _ = _ways[model]
    sampled, scored = _Case.of(model, length).sampled_and_scored(model, way)
    return (sampled - scored).abs()[sampled != 0].mean().item()
