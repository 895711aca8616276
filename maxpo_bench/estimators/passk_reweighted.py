"""Pass@k by reweighting prompts with the derivative of 1 - (1-p)^k (Mahdavi et al. 2025)."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="none", centred=True, cost="N", rewards="unit interval", source="Mahdavi et al. 2025")
def passk_reweighted(rewards, k):
    """A_i = k (1-p)^(k-1) (r_i - mean) with p = mean; rewards in [0, 1], any k in 1..N. Raises on other rewards.

    A plug-in form: the exact published form was not readable, so this may differ from it. Biased, since p is estimated
    on the same group.
    """
    weight = (1 - rewards.mean(-1, keepdim=True)).clamp_(min=0).pow_(k - 1).mul_(k)
    return centre(rewards).mul_(weight)
