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
