"""The function under check and what it accepts: k for each group size, kinds of rewards, side information, companions."""

import functools
import itertools

import torch

from maxpo_bench.check import properties
from maxpo_bench.check.conventions import BadOutput
from maxpo_bench.check.signature import in_one_line
from maxpo_bench.errors import InputError

KINDS = {name: arms for name, arms in properties.KINDS.items() if ", tied" not in name and ", worst" not in name}
LADDERS = ((0.0, 1.0, 2.0), (0.0, 0.5, 1.0), (0.0, 1.0))  # rewards of the small groups: the first that is accepted
COMPANION = (0.0, 1.0, 1.0, 0.0)  # the other group of a batch, repeated to length, for functions that read it


class Subject:
    """An Adapted function with the inputs on which its properties can be seen.

    Raises InputError, in one line, when it runs for no k on an ordinary group.
    """

    def __init__(self, adapted, only_k):
        self.call = adapted
        self.takes_k = adapted.takes_k
        self.only_k = only_k
        self.side = ()
        """The side information that changes the advantages; see invariances.check_side_information."""
        self.num_groups = 1
        sizes = properties.SIZES if (only_k or 1) < 4 else (only_k, only_k + 1)
        self.valid = {n: self.accepted(n) for n in sorted({2, 3, *sizes})}
        self.sizes = [n for n in sizes if self.valid[n]]
        """The group sizes at which E[g] is enumerated."""
        if not self.sizes:
            group = [0.0] * (sizes[0] - 2) + [1.0, 1.0]
            error = self.error(torch.tensor([group], dtype=torch.float64), only_k or 1) or "accepts no k"
            raise InputError(f"{adapted.name} does not run ({adapted.convention} convention): {error}, for rewards {group}")
        self.kinds = {name: arms for name, arms in KINDS.items() if self.takes(arms)}
        self.bandits = self.kinds
        """The kinds of rewards with which E[g] is enumerated."""
        self.values = next(values for values in LADDERS if values == LADDERS[-1] or self.takes(values))

    def takes(self, values):
        n = self.sizes[-1]
        return not self.error(torch.tensor([(tuple(values) * n)[:n]], dtype=torch.float64), self.some_k(n))

    def accepted(self, n):
        """The k this function takes for groups of n."""
        candidates = [self.only_k or 1] if not self.takes_k else [self.only_k] if self.only_k else range(1, n + 1)
        rewards = torch.tensor([[0.0] * (n - 2) + [1.0, 1.0]], dtype=torch.float64)
        return [k for k in candidates if k <= n and not self.error(rewards, k)]

    def runs(self, n):
        """Whether it takes groups of n, at some_k(n)."""
        if n not in self.valid:
            group = torch.tensor([[0.0] * (n - 2) + [1.0, 1.0]], dtype=torch.float64)
            k = self.some_k(n)
            self.valid[n] = [] if self.error(self.paired(group)[0], k) else [k]
        return bool(self.valid[n])

    def error(self, rewards, k):
        """What goes wrong on rewards [G, N], in words; None when nothing does."""
        try:
            advantages = self.call(rewards, k=k)
        except BadOutput as error:
            return str(error)
        except Exception as error:  # the function's own
            return f"raised {in_one_line(error)}"
        return None if torch.isfinite(advantages).all() else f"returned {rounded(advantages.flatten())}"

    def look_across(self):
        """From now on the groups of a batch are handed over together: its advantages depend on the other groups."""
        self.call.across_groups, self.num_groups = True, 2
        self.sizes = [3] if self.valid[3] else self.sizes[:1]  # two groups at once: 3^6 batches
        name = "graded, worst is 0" if "graded" in self.kinds else "binary"
        self.bandits = {name: properties.KINDS[name]}

    def alone(self, rewards, k, **side):
        """Advantages [R, N] of groups [R, N] that do not see each other; a function across groups sees COMPANION beside each."""
        if not self.call.across_groups:
            return self.call(rewards, k=k, **side)
        return self.call(self.paired(rewards), k=k, **{name: self.paired(values, 1.0) for name, values in side.items()})[:, 0]

    def paired(self, rewards, fill=None):
        n = rewards.shape[-1]
        companion = torch.tensor((COMPANION * n)[:n]) if fill is None else torch.full((n,), fill)
        return torch.stack([rewards, companion.to(rewards).expand_as(rewards)], dim=1)

    def batches(self, rewards):
        """Groups [R, N] as they are handed over: [R, N], or [R, 2, N] with COMPANION beside each."""
        return self.paired(rewards) if self.call.across_groups else rewards

    def own(self, advantages):
        """Of the advantages of `batches`, those of the groups themselves: [R, N]."""
        return advantages[:, 0] if self.call.across_groups else advantages

    def given(self, n, *words):
        """What else a counter-example's group of n was handed over with, in words; "" where nothing."""
        beside = [f"beside a group of rewards {list((COMPANION * n)[:n])}"] if self.call.across_groups else []
        return ", ".join([*filter(None, words), *beside])

    def some_k(self, n):
        """A k that tells most about the function: 2 where allowed, else the largest."""
        if n not in self.valid:
            return n if self.only_n() else self.only_k or 2
        return 2 if 2 in self.valid[n] else (self.valid[n][-1] if self.valid[n] else self.only_k or 1)

    def some_size(self):
        """The smallest group size at which E[g] is enumerated."""
        return self.sizes[0]

    def k_text(self):
        ks = self.valid[self.sizes[-1]]
        return f"k = {ks[0]} to {ks[-1]} for N = {self.sizes[-1]}" if self.takes_k else "takes no k"

    def ladder(self, n):
        """Every group of n rewards from the ladder values it accepts: [V^n, n] float64."""
        return torch.tensor(list(itertools.product(self.values, repeat=n)), dtype=torch.float64)

    def small_groups(self):
        """(n, k, groups) from the smallest group up, for the search of a smallest counter-example."""
        for n in sorted({2, 3, self.sizes[0]}):
            for k in self.valid[n]:
                yield n, k, self.ladder(n)

    def varied(self, rewards):
        """Side information that differs from sample to sample: {name: [..., N]} of what the function uses."""
        return {name: values for name, values in varied_side(rewards).items() if name in self.side}

    def only_n(self):
        """Whether k = N is all it takes."""
        return self.takes_k and all(self.valid[n] == [n] for n in self.sizes)

    @functools.cached_property
    def depends_on_k(self):
        """Whether another k gives other advantages."""
        n = self.sizes[-1]
        if len(self.valid[n]) < 2:
            return self.takes_k
        groups = torch.tensor([list(range(n))], dtype=torch.float64) / n if "graded" in self.kinds else self.ladder(n)
        first = self.call(groups, k=self.valid[n][0])
        return any(not torch.allclose(first, self.call(groups, k=k), rtol=1e-6, atol=1e-9) for k in self.valid[n][1:])


def varied_side(rewards):
    """{name: [..., N]} lengths of 1 to 3 and score norms of .3 to 1.5, other ones in each place of a group."""
    place = torch.arange(rewards.numel()).view(rewards.shape)
    lengths, norms = (place * 2 + place // 5) % 3 + 1, (place * 3 + place // 4) % 5
    return {"lengths": lengths.double(), "score_norms": 0.3 + 0.3 * norms.double()}


def rounded(values):
    """A tensor of any shape as nested lists of numbers to 6 digits behind the point."""
    return [rounded(value) for value in values] if values.dim() > 1 else [round(value, 6) for value in values.tolist()]
