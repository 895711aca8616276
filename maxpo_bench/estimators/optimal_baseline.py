"""The baseline of least variance for orthogonal scores: rewards of the others weighted by their squared score norms."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import against_weighted_mean


@estimator(objective="J_1", unbiased=True, centred=False, cost="N", source="arXiv:2602.07078, per sequence, leave-one-out")
def optimal_baseline(rewards, score_norms=None, leave_one_out=True):
    """A_i = r_i - sum of n_j r_j / sum of n_j over the others, n the squared score norms. Mean-loss scale.

    E[g] = grad J_1 exactly; without score norms it is rloo. leave_one_out=False has the sums over all of the group, as
    trainers do: biased. k is accepted and has no role.
    """
    return against_weighted_mean(rewards, score_norms, leave_one_out)
