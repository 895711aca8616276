"""F-GRPO and its relatives: grpo whose groups count by how difficult they are."""

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide, std
from maxpo_bench.estimators.order_statistics import centre
from maxpo_bench.machine import numerics

FORMS = ("focal", "lead", "mapo", "sqrt", "clipped")


@estimator(objective="none", centred=True, cost="N", rewards="unit interval", source="arXiv:2602.06717 eq 11-13")
def f_grpo(rewards, gamma=0.5, form="focal", eps=1e-6, ddof=0):
    """A_i = (1 - m)^gamma (r_i - m) / (std + eps), m the group's mean; rewards in [0, 1]. All forms are biased.

    form: "focal", as above; "lead" (GRPO-LEAD), grpo times w(m) for A > 0 and w(1-m) else, w(m) = .4 + 1.1 / (1 + exp(10 (m -
    .75))), not centred; "mapo" (arXiv:2509.18849), u grpo + (1-u) (r-m)/m, u = 4 m (1-m); "sqrt", (r-m)/sqrt(m);
    "clipped", (r-m)/max(m, 1/8). gamma has a role in "focal" alone, k in none.
    """
    if form not in FORMS or not gamma >= 0:
        raise InputError(f"f_grpo: needs gamma >= 0 and a form of {', '.join(FORMS)}, got gamma = {gamma!r}, form = {form!r}")
    centred, mean = centre(rewards), rewards.mean(-1, keepdim=True).clamp_(max=1)
    scaled = divide(centred, std(rewards, ddof) + eps)
    if form == "focal":
        return scaled * (1 - mean) ** gamma
    if form == "lead":
        return scaled * (0.4 + 1.1 / (1 + torch.exp(10 * (torch.where(centred > 0, mean, 1 - mean) - 0.75))))
    if form == "mapo":
        certain = 4 * mean * (1 - mean)
        return scaled * certain + divide(centred, mean) * (1 - certain)
    return divide(centred, numerics.sqrt(mean) if form == "sqrt" else mean.clamp(min=1 / 8))
