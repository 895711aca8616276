"""Advantage functions from anywhere, called as ours: rewards [..., N] and k in, advantages [..., N] out."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path

import numpy as np
import torch

from maxpo_bench.errors import InputError, did_you_mean

CONVENTIONS = ("groups", "trl", "verl")
K_NAMES = ("k", "K", "pass_k", "passk", "pass_at_k", "max_k", "best_k")
NUM_TOKENS = 3  # width of the response matrix made for verl


class BadOutput(Exception):
    """The function returned something that is not one finite advantage for each reward."""


def load(place):
    """The function at "module:function" or "path/file.py:function". Raises InputError when it is not there."""
    module_name, _, name = place.rpartition(":")
    if not module_name:
        raise InputError(f"{place!r}: write module:function or file.py:function")
    try:
        if module_name.endswith(".py"):
            if not Path(module_name).is_file():
                raise InputError(f"no file {module_name}")
            spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
            module = importlib.util.module_from_spec(spec)
            sys.path.insert(0, str(Path(module_name).resolve().parent))
            try:
                spec.loader.exec_module(module)
            finally:
                sys.path.pop(0)
        else:
            sys.path.insert(0, str(Path.cwd()))
            try:
                module = importlib.import_module(module_name)
            finally:
                sys.path.pop(0)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot import {module_name}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        candidates = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"{module_name} has no function {name!r}{did_you_mean(name, candidates)}")
    return function


def detect(function):
    """(convention, name of the parameter that takes k or None), read from the function's signature."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise InputError(f"{function!r} has no signature to read; pass the convention") from error
    k_name = next((name for name in K_NAMES if name in parameters), None)
    if "response_mask" in parameters or "token_level_rewards" in parameters:
        return "verl", k_name
    if "num_generations" in parameters:
        return "trl", k_name
    required = [p.name for p in parameters.values()
                if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if k_name is None and len(required) == 2:
        k_name = required[1]
    return "groups", k_name


class Adapted:
    """A foreign advantage function with our signature: adapted(rewards [..., N], k=1) -> advantages [..., N].

    across_groups: call it once for each batch (axis -2 holds the groups of a batch) instead of once for all groups.
    Raises BadOutput when the result does not fit the rewards, and whatever the function itself raises.
    """

    def __init__(self, function, convention=None):
        detected, self.k_name = detect(function)
        self.function = function
        self.convention = convention or detected
        if self.convention not in CONVENTIONS:
            raise InputError(f"unknown convention {convention!r}{did_you_mean(convention, CONVENTIONS)}")
        self.across_groups = False
        self.takes_batches = getattr(function, "across_groups", False)  # a registry estimator: batches before axis -2
        self.name = getattr(function, "__name__", type(function).__name__)

    def __call__(self, rewards, k=1):
        n = rewards.shape[-1]
        if self.across_groups and rewards.dim() > 2:
            if self.takes_batches:
                return self.function(rewards, k=k).detach()
            batches = rewards.reshape(-1, *rewards.shape[-2:])
            return torch.stack([self.one_batch(batch, k) for batch in batches]).view(rewards.shape)
        return self.one_batch(rewards.reshape(-1, n), k).view(rewards.shape)

    def one_batch(self, rewards, k):
        """Advantages [G, N] of one batch of groups [G, N]."""
        options = {self.k_name: k} if self.k_name else {}
        if self.convention == "groups":
            advantages = self.function(rewards, **options)
        elif self.convention == "trl":
            advantages = self.function(rewards.flatten(), num_generations=rewards.shape[-1], **options)
        else:
            advantages = self.verl_batch(rewards, options)
        if not isinstance(advantages, torch.Tensor):
            raise BadOutput(f"returned {type(advantages).__name__}, not a tensor")
        if advantages.numel() != rewards.numel():
            raise BadOutput(f"returned shape {list(advantages.shape)} for {rewards.numel()} rewards")
        return advantages.detach().reshape(rewards.shape)

    def verl_batch(self, rewards, options, order=None):
        """One call in verl's shape. Each reward sits on its response's last token; responses have 1 to 3 tokens.

        order: LongTensor, a permutation of the rows, to see whether `index` is what tells the groups apart.
        """
        num_groups, n = rewards.shape
        num_rows = num_groups * n
        order = torch.arange(num_rows) if order is None else order
        lengths = (torch.arange(num_rows) % NUM_TOKENS + 1)[order]
        mask = (torch.arange(NUM_TOKENS) < lengths[:, None])  # [rows, tokens]
        token_rewards = torch.zeros(num_rows, NUM_TOKENS, dtype=rewards.dtype)
        token_rewards[torch.arange(num_rows), lengths - 1] = rewards.flatten()[order]
        index = np.array([f"prompt-{int(row) // n}" for row in order], dtype=object)
        mask_type = torch.float64 if rewards.dtype == torch.float64 else torch.float32
        result = self.function(token_rewards, mask.to(mask_type), index, **options)
        advantages = result[0] if isinstance(result, tuple) else result
        if not isinstance(advantages, torch.Tensor) or advantages.shape != mask.shape:
            raise BadOutput(f"advantages must have the shape of response_mask, {list(mask.shape)}")
        first = advantages[:, :1]
        if advantages.isfinite().all() and not torch.allclose(advantages, first * mask, rtol=1e-6, atol=1e-12):
            raise BadOutput("advantages must be one value on a response's tokens and 0 behind its end")
        restored = torch.empty_like(first)
        restored[order] = first
        return restored
