"""Which way of reading a language model gives its own numbers: found once for each model, or the model is refused.

A few prompts of fixed tokens are scored and sampled our way, and read again by plain forwards of one row, without mask, cache or
padding. What a forward remembers beside its cache, a window that a mask replaces, a look at later tokens all show there.
"""

import re
import weakref
from dataclasses import dataclass

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.policies.reading import WAYS, plain_log_probs, sample, score

TOLERANCE = 1e-4  # of a token's log-probability, in nats and relative
GRADIENT_TOLERANCE = 1e-3  # of the gradient's largest entry
AUTOCAST_TOLERANCE = 0.1  # nats, on average, where bfloat16 rounds
NUM_CHECKED = 5  # tokens of a completion
LONG_ABOVE = "original_max_position"  # the length at which positions of long texts (longrope) are told in another way
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
    found = _lengths_in(model.config, "window", "chunk", "topk", LONG_ABOVE)
    return min(max([8, *(length + 4 for length in found)]), (context(model.config) or 1_000_000) - NUM_CHECKED)


def _lengths_in(config, *words):
    """The whole numbers of a config and its sections whose names have one of the words in them."""
    found, sections = [], [config.to_dict()]
    for section in sections:
        sections += [value for value in section.values() if isinstance(value, dict)]
        lengths = {name: value for name, value in section.items() if type(value) is int and not name.endswith("_layers")}
        found += [value for name, value in lengths.items() if any(word in name for word in words)]
    return found


def context(config):
    """Tokens that fit into a model of this config; None where nothing limits them."""
    limit = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


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
        usual = torch.tensor([i for i in range(config.vocab_size) if i not in special] or list(range(config.vocab_size)))
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return usual[torch.randint(len(usual), shape, generator=generator)].to(device)

        borders = [border for border in _lengths_in(model.config, LONG_ABOVE) if 2 < border < length]
        second = max(borders) - 2 if borders else max(1, length - 3)  # a completion that crosses the border
        mask = torch.arange(length) >= length - torch.tensor([length, second, 2])[:, None]
        tokens = draw(3, length)
        tokens[~mask.to(device)] = 0
        return cls(tokens, mask.to(device), draw(6, NUM_CHECKED), usual[::5].tolist())

    def plain(self, model):
        """Log-probabilities [6, T] and the gradient of their sum by one parameter, by plain forwards of one row each."""
        parameter, log_probs, gradient = self._parameter(model), [], 0.0
        with torch.enable_grad():
            for i, completion in enumerate(self.tokens):
                log_probs.append(plain_log_probs(model, self.prompt_tokens[i // 2][self.prompt_mask[i // 2]], completion))
                gradient = gradient + self._gradient(log_probs[-1], parameter)
        return torch.stack(log_probs).detach(), gradient

    @torch.no_grad()
    def is_causal(self, model, wanted):
        """Whether the first token's log-probability is the same when nothing follows."""
        found = [
            plain_log_probs(model, self.prompt_tokens[i // 2][self.prompt_mask[i // 2]], self.tokens[i, :1])[0] for i in (0, 5)
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
        drawn = sample(model, way, prompts, mask, uniforms, self.ends, 0, 1.0)
        of = torch.arange(4 * num_prompts, device=device) // 4
        scored = score(model, way, prompts, mask, of, drawn.tokens.flatten(0, 1), drawn.lengths.flatten())
        return drawn.token_log_probs.flatten(0, 1), scored

    def lacks(self, model, way, wanted, gradient):
        """None where `way` gives the model's own numbers, else what it does not."""
        device = self.tokens.device
        mask, of, lengths = self.prompt_mask, torch.arange(6, device=device) // 2, torch.full((6,), NUM_CHECKED, device=device)
        try:
            with torch.enable_grad():
                padded = score(model, way, self.prompt_tokens, mask, of, self.tokens, lengths)
                slope = self._gradient(padded, self._parameter(model))
            with torch.no_grad():
                one = score(model, way, self.prompt_tokens[:1], mask[:1], of[:2], self.tokens[:2], lengths[:2])
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
        if not (slope - gradient).abs().max() <= GRADIENT_TOLERANCE * gradient.abs().max():
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
