"""The checks themselves: each looks at one property on the smallest groups and says pass, fail or note."""

import itertools
import time
from dataclasses import dataclass, field

import torch

from maxpo_bench.check import bias, invariances, properties
from maxpo_bench.check.conventions import Adapted, BadOutput
from maxpo_bench.check.recognise import recognise
from maxpo_bench.errors import InputError, did_you_mean

OBJECTIVES = ("J_1", "J_K", "sum J_K/K", "none")
KINDS = {name: arms for name, arms in properties.KINDS.items() if ", tied" not in name}
LARGEST_K = 6  # groups of k+1 from 3 arms are still enumerated in a moment
LADDERS = ((0.0, 1.0, 2.0), (0.0, 0.5, 1.0), (0.0, 1.0))  # rewards of the small groups: the first that is accepted


@dataclass
class Finding:
    """One property of the function."""
    name: str
    status: str
    """"pass", "fail" or "note" (a fact that is neither right nor wrong)."""
    text: str
    counter_example: object = None
    """The smallest rewards that show a failure: a list, or for a bias the arms of a bandit."""


@dataclass
class Report:
    """What check_estimator found."""
    name: str
    convention: str
    objective: str = "none"
    equals: str | None = None
    """The registry estimator the function equals up to scale, in words, or None."""
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self):
        """Names of the properties that failed."""
        return [finding.name for finding in self.findings if finding.status == "fail"]

    @property
    def ok(self):
        return not self.failed

    def __getitem__(self, name):
        return next(finding for finding in self.findings if finding.name == name)

    def add(self, name, status, text, counter_example=None):
        self.findings.append(Finding(name, status, text, counter_example))

    def __str__(self):
        lines = [f"{self.name} ({self.convention} convention, {self.seconds:.1f} s)"]
        for finding in self.findings:
            lines.append(f"  {finding.status.upper():4}  {finding.name:<18} {finding.text}")
            if finding.counter_example is not None:
                lines.append(f"        {'':<18} shown by rewards {finding.counter_example}")
        lines.append(f"  equals: {self.equals or 'no estimator of the registry'}")
        lines.append("  all properties hold" if self.ok else f"  FAILED: {', '.join(self.failed)}")
        return "\n".join(lines)


def run_checks(function, convention=None, k=None, objective=None, name=None):
    """See check_estimator."""
    if objective is not None and objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r}{did_you_mean(objective, OBJECTIVES)}")
    if k is not None and not 1 <= k <= LARGEST_K:
        raise InputError(f"k = {k}: the check enumerates every group, which it can for k from 1 to {LARGEST_K}")
    started = time.perf_counter()
    adapted = Adapted(function, convention)
    if objective == "J_K" and k is None and adapted.k_name is None:
        raise InputError(f"{adapted.name} takes no k: say which k its J_K is for")
    report = Report(name or adapted.name, adapted.convention)
    subject = Subject(adapted, k)
    if subject.first_error:
        report.add("runs", "fail", subject.first_error, subject.first_rewards)
    else:
        report.add("runs", "pass", f"{subject.k_text()}; rewards: {'; '.join(subject.kinds)}")
        for check in (invariances.check_pure, invariances.check_groups, bias.check_unbiased, *invariances.CHECKS):
            try:
                check(subject, report, objective)
            except Exception as error:  # the function's own, on input it should take
                name = check.__name__.removeprefix("check_").replace("_", " ")
                report.add(name, "fail", f"raised {type(error).__name__}: {error}")
        report.equals = recognise(subject)
    report.seconds = time.perf_counter() - started
    return report


class Subject:
    """The function under check, with what it accepts: k for each N, kinds of rewards."""

    def __init__(self, adapted, only_k):
        self.call = adapted
        self.takes_k = adapted.k_name is not None
        self.only_k = only_k
        self.first_error = self.first_rewards = None
        sizes = properties.SIZES if (only_k or 1) < 4 else (only_k, only_k + 1)
        self.valid = {n: self.accepted(n) for n in sorted({2, 3, *sizes})}
        self.sizes = [n for n in sizes if self.valid[n]]
        """The group sizes at which E[g] is enumerated."""
        if not self.sizes:
            n = sizes[0]
            self.first_rewards = [0.0] * (n - 2) + [1.0, 1.0]
            rewards = torch.tensor([self.first_rewards], dtype=torch.float64)
            self.first_error = self.error(rewards, only_k or 1) or "accepts no k"
            return
        n = self.sizes[-1]
        self.kinds = {name: arms for name, arms in KINDS.items() if not self.error(
            torch.tensor([(arms * n)[:n]], dtype=torch.float64), self.some_k(n))}
        self.bandits = self.kinds
        """The kinds of rewards with which E[g] is enumerated."""
        self.values = next(values for values in LADDERS if values == LADDERS[-1] or not self.error(
            torch.tensor([(values * n)[:n]], dtype=torch.float64), self.some_k(n)))
        self.num_groups = 1

    def accepted(self, n):
        """The k this function takes for groups of n."""
        candidates = [self.only_k or 1] if not self.takes_k else [self.only_k] if self.only_k else range(1, n + 1)
        rewards = torch.tensor([[0.0] * (n - 2) + [1.0, 1.0]], dtype=torch.float64)
        return [k for k in candidates if k <= n and not self.error(rewards, k)]

    def error(self, rewards, k):
        """What goes wrong on rewards [G, N], in words; None when nothing does."""
        try:
            advantages = self.call(rewards, k=k)
        except BadOutput as error:
            return str(error)
        except Exception as error:
            return f"raised {type(error).__name__}: {error}"
        return None if torch.isfinite(advantages).all() else f"returned {advantages.flatten().tolist()}"

    def some_k(self, n):
        """A k that tells most about the function: 2 where allowed, else the largest."""
        return 2 if 2 in self.valid.get(n, []) else (self.valid[n][-1] if self.valid.get(n) else self.only_k or 1)

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

    def only_n(self):
        """Whether k = N is all it takes."""
        return self.takes_k and all(self.valid[n] == [n] for n in self.sizes)

    def depends_on_k(self):
        n = self.sizes[-1]
        if len(self.valid[n]) < 2:
            return self.takes_k
        groups = torch.tensor([list(range(n))], dtype=torch.float64) / n if "graded" in self.kinds else self.ladder(n)
        first = self.call(groups, k=self.valid[n][0])
        return any(not torch.allclose(first, self.call(groups, k=k), rtol=1e-6, atol=1e-9) for k in self.valid[n][1:])
