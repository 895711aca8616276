"""Advantage functions from anywhere, called as ours: rewards [..., N] and k in, advantages [..., N] out."""

import functools

import numpy as np
import torch

from maxpo_bench.check.signature import read

NUM_TOKENS = 3  # width of the response matrix made for verl, at least
LAYOUT_PROBE = [[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]  # two groups that every estimator takes


class BadOutput(Exception):
    """The function returned something that is not one finite advantage for each reward."""


class Config(dict):
    """The settings that a function in verl's shape reads, as items or attributes."""

    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(f"the check's config has no {name!r}")


VERL_CONFIG = Config(gamma=1.0, lam=1.0, norm_adv_by_std_in_grpo=True)


@functools.lru_cache(maxsize=64)
def prompts(num_rows, n):
    """verl's `index`: a name for each prompt, on each of its n rows."""
    return np.array([f"prompt-{row // n}" for row in range(num_rows)], dtype=object)


class Adapted:
    """A foreign advantage function with our signature.

    adapted(rewards [..., N], k=1, lengths=None, score_norms=None) -> advantages [..., N]; the last two are [..., N] like the
    rewards, 1 for every sample by default, and ignored when the function cannot be given them: see `side`.
    across_groups: call it once for each batch (axis -2 holds the groups of a batch) instead of once for all groups.
    Raises BadOutput when the result does not fit the rewards, and whatever the function itself raises.
    """

    def __init__(self, function, convention=None, k_parameter=None, group_size_parameter=None):
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.convention, self.roles = read(function, convention, k_parameter, group_size_parameter)
        self.across_groups = False
        self.changes_rewards = False  # then it gets a copy
        self.takes_batches = getattr(function, "across_groups", False)  # a registry estimator: batches before axis -2
        self.side = tuple(
            name
            for name, known in (
                ("lengths", self.convention == "verl" or "lengths" in self.roles),
                ("score_norms", "score norms" in self.roles or {"log probs", "squared probs"} <= set(self.roles)),
            )
            if known
        )
        """The side information that the function can be given."""
        if self.convention is None:
            self.convention = self.layout()

    @property
    def takes_k(self):
        return "k" in self.roles

    def layout(self):
        """Flat rewards ("trl") or groups, of a function that takes the group size: the one in which groups stand alone."""
        ran = []
        for self.convention in ("trl", "groups"):
            for k in (2, 1, 4):
                try:
                    groups = torch.tensor(LAYOUT_PROBE, dtype=torch.float64)
                    together = self(groups, k=k)
                    alone = torch.cat([self(group[None], k=k) for group in groups])
                except Exception:  # the function's own, on a layout that may not be its
                    continue
                ran.append(self.convention)
                if torch.allclose(together, alone, rtol=1e-5, atol=1e-8):
                    return self.convention
        return ran[0] if ran else "trl"

    def __call__(self, rewards, k=1, **side):
        n = rewards.shape[-1]
        side = {name: values for name, values in side.items() if name in self.side}
        if self.across_groups and rewards.dim() > 2:
            if self.takes_batches:
                return self.function(rewards, k=k, **side).detach()
            rows = rewards.reshape(-1, *rewards.shape[-2:])
            sides = [
                dict(zip(side, values, strict=True))
                for values in zip(*(values.reshape(rows.shape) for values in side.values()), strict=True)
            ] or [{}] * len(rows)
            return torch.stack([self.one_batch(row, k, **own) for row, own in zip(rows, sides, strict=True)]).view(rewards.shape)
        flat = {name: values.reshape(-1, n) for name, values in side.items()}
        return self.one_batch(rewards.reshape(-1, n), k, **flat).view(rewards.shape)

    def one_batch(self, rewards, k, lengths=None, score_norms=None):
        """Advantages [G, N] of one batch of groups [G, N]."""
        if self.convention == "verl":
            return self.verl_batch(rewards, k, lengths, score_norms)[:, 0].view(rewards.shape)
        shape = (-1,) if self.convention == "trl" else rewards.shape
        rewards = rewards.clone() if self.changes_rewards else rewards
        given = {"k": k, "group size": rewards.shape[-1]}
        for role, values in (("lengths", lengths), ("score norms", score_norms)):
            given[role] = torch.ones(rewards.shape, dtype=torch.float64).view(shape) if values is None else values.reshape(shape)
        arguments = {self.roles[role]: value for role, value in given.items() if role in self.roles}
        advantages = self.function(rewards.reshape(shape), **arguments)
        self.reject_bad(advantages, rewards)
        if advantages.numel() != rewards.numel():
            raise BadOutput(f"returned shape {list(advantages.shape)} for rewards {list(rewards.reshape(shape).shape)}")
        return advantages.detach().reshape(rewards.shape)

    def reject_bad(self, advantages, rewards):
        if not isinstance(advantages, torch.Tensor):
            raise BadOutput(f"returned {type(advantages).__name__}, not a tensor")
        if rewards.is_floating_point() and advantages.dtype not in (torch.float32, torch.float64):
            raise BadOutput(f"returned {advantages.dtype} for {rewards.dtype} rewards: advantages must be float32 or float64")

    def verl_batch(self, rewards, k, lengths=None, score_norms=None, order=None):
        """One call in verl's shape: advantages [G N, tokens]. Each reward sits on its response's last token.

        order: LongTensor, a permutation of the rows, to see whether `index` is what tells the groups apart. The score norm of
        a response is put on its first token, by a probability and a sum of squared probabilities.
        """
        n, num_rows = rewards.shape[-1], rewards.numel()
        order = torch.arange(num_rows) if order is None else order
        lengths = torch.ones(num_rows).long() if lengths is None else lengths.flatten()[order].long()
        places = torch.arange(max(NUM_TOKENS, int(lengths.max())))
        mask = places < lengths[:, None]  # [rows, tokens]
        token_rewards = torch.zeros(mask.shape, dtype=rewards.dtype)
        token_rewards[torch.arange(num_rows), lengths - 1] = rewards.flatten()[order]
        norms = torch.ones(num_rows) if score_norms is None else score_norms.flatten()[order]
        probs = (1 - norms / 2)[:, None].where(places == 0, 1.0)  # with a sum of 1: norms 1 - 2 p + 1, here and 0 behind
        given = {
            "rewards": token_rewards,
            "mask": mask.to(torch.float64 if rewards.dtype == torch.float64 else torch.float32),
            "k": k,
            "index": prompts(num_rows, n)[order.numpy()],
            "config": VERL_CONFIG,
            "log probs": probs.clamp_min(1e-12).log(),
            "squared probs": torch.ones_like(probs),
            "group size": n,
            "lengths": lengths,
            "score norms": norms,
        }
        result = self.function(**{self.roles[role]: value for role, value in given.items() if role in self.roles})
        advantages = result[0] if isinstance(result, tuple) else result
        self.reject_bad(advantages, rewards)
        if advantages.shape != mask.shape:
            raise BadOutput(f"returned shape {list(advantages.shape)} for a response_mask of shape {list(mask.shape)}")
        restored = torch.empty_like(advantages)
        restored[order] = advantages.detach()
        return restored
