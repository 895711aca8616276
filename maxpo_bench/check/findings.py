"""The report of a check, and the order in which the checks are made. Each looks at one property: pass, fail or note."""

import time
from dataclasses import dataclass, field

from maxpo_bench.check import bias, extremes, form, invariances, own_reward
from maxpo_bench.check.conventions import Adapted
from maxpo_bench.check.recognise import recognise
from maxpo_bench.check.signature import in_one_line
from maxpo_bench.check.subject import Subject, rounded
from maxpo_bench.errors import InputError, did_you_mean

OBJECTIVES = ("J_1", "J_K", "sum J_K/K", "none")
LARGEST_K = 6  # groups of k+1 from 3 arms are still enumerated in a moment
CHECKS = (  # in this order: the first ones tell the rest what to hand over
    invariances.check_tokens, invariances.check_pure, invariances.check_side_information, invariances.check_groups,
    bias.check_unbiased, own_reward.check_own_reward, invariances.check_ties, invariances.check_permutation,
    extremes.check_constant_group, extremes.check_float32_residue, extremes.check_blow_up, invariances.check_integers,
    invariances.check_float32, invariances.check_offset, form.check_ddof, form.check_centring, form.check_form, form.check_cost,
)  # fmt: skip


@dataclass
class Finding:
    """One property of the function."""

    name: str
    status: str
    """"pass", "fail" or "note" (a fact that is neither right nor wrong)."""
    text: str
    counter_example: object = None
    """The smallest rewards that show it: a list (of groups, for a batch), or for a bias the arms of a bandit in words."""
    got: list | None = None
    """The advantages of those rewards."""
    expected: list | None = None
    """What they should be; None where nothing follows from it."""
    given: str = ""
    """What else the function was given: k, lengths, the type."""

    def shown(self):
        """The counter-example in one line: rewards in, advantages out, expected."""
        parts = [f"rewards {self.counter_example}{f' ({self.given})' if self.given else ''}"]
        parts += [f"advantages {self.got}"] if self.got is not None else []
        parts += [f"expected {self.expected}"] if self.expected is not None else []
        return ": ".join([parts[0], ", ".join(parts[1:])]) if parts[1:] else parts[0]


@dataclass
class Report:
    """What check_estimator found."""

    name: str
    convention: str
    objective: str = "none"
    equals: str | None = None
    """The registry estimator the function equals at every k tried, with its options and factor, in words; or None."""
    nearly: str | None = None
    """Where equals is None: the estimator it equals but for an eps or a guard on groups that are nearly flat."""
    shipped_as: str = ""
    """The trainers that ship this very form, and its names there."""
    findings: list[Finding] = field(default_factory=list)
    stopped: bool = False
    """Whether the function gives no two times the same, so that nothing further was checked."""
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

    def add(self, name, status, text, rewards=None, got=None, expected=None, given=""):
        """rewards: tensor or words; got, expected: tensors, shown to 6 digits."""

        def plain(values):
            return rounded(values) if hasattr(values, "tolist") else values

        rewards = rewards.tolist() if hasattr(rewards, "tolist") else rewards
        self.findings.append(Finding(name, status, text, rewards, plain(got), plain(expected), given))

    def __str__(self):
        lines = [f"{self.name} ({self.convention} convention, {self.seconds:.1f} s)"]
        for finding in self.findings:
            lines.append(f"  {finding.status.upper():4}  {finding.name:<18} {finding.text}")
            if finding.counter_example is not None:
                lines.append(f"        {'':<18} shown by {finding.shown()}")
        nearly = f"{self.nearly}, but for groups that are nearly flat" if self.nearly else "no estimator of the registry"
        known = self.equals or nearly
        lines.append(f"  equals: {known}{f', as shipped by {self.shipped_as}' if self.shipped_as else ''}")
        lines.append("  all properties hold" if self.ok else f"  FAILED: {', '.join(self.failed)}")
        return "\n".join(lines)


def run_checks(function, convention=None, k=None, objective=None, name=None, k_parameter=None, group_size_parameter=None):
    """See check_estimator."""
    if objective is not None and objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r}{did_you_mean(objective, OBJECTIVES)}")
    if k is not None and not 1 <= k <= LARGEST_K:
        raise InputError(f"k = {k}: the check enumerates every group, which it can for k from 1 to {LARGEST_K}")
    started = time.perf_counter()
    adapted = Adapted(function, convention, k_parameter, group_size_parameter)
    if objective == "J_K" and k is None and not adapted.takes_k:
        raise InputError(f"{adapted.name} takes no k: say which k its J_K is for")
    subject = Subject(adapted, k)
    report = Report(name or adapted.name, adapted.convention)
    report.add("runs", "pass", f"{subject.k_text()}; rewards: {'; '.join(subject.kinds)}")
    for check in CHECKS:
        if report.stopped:
            break
        try:
            check(subject, report, objective)
        except Exception as error:  # the function's own, on input it should take
            report.add(check.__name__.removeprefix("check_").replace("_", " "), "fail", f"raised {in_one_line(error)}")
    if not report.stopped:
        report.equals, report.nearly, report.shipped_as = recognise(subject)
    report.seconds = time.perf_counter() - started
    return report
