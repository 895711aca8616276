"""OPO: the baseline of least variance when a score's squared norm is its completion's length."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import against_weighted_mean


@estimator(objective="none", centred=False, cost="N", source="arXiv:2505.23585")
def opo(rewards, lengths=None, leave_one_out=False):
    """A_i = r_i - sum of l_j r_j / sum of l_j over the group, l the lengths. Mean-loss scale. k is accepted and has no role.

    As shipped the sums hold sample i: biased. leave_one_out=True takes them over the others: E[g] = grad J_1 exactly. Equal
    lengths (or None): dr_grpo, or rloo with leave_one_out. The score norms themselves as weights: optimal_baseline.
    """
    return against_weighted_mean(rewards, lengths, leave_one_out)
