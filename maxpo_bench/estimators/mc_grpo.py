"""MC-GRPO: the median and the median absolute deviation in place of mean and standard deviation."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.moments import divide


@estimator(objective="none", centred=False, cost="N log N", source="arXiv:2601.22582, the authors' repository")
def mc_grpo(rewards, eps=1e-3):
    """A_i = (r_i - median) / (median of |r - median| + eps), times N over the number of advantages that are not 0.

    Lower medians. Binary rewards: the deviation is 0 wherever more than half agree, and the minority gets 1/eps = 1000 before
    the last factor. Biased. k is accepted and has no role.
    """
    middle = (rewards.shape[-1] + 1) // 2  # by kthvalue: torch.median reads beyond an expanded tensor
    offsets = rewards - rewards.kthvalue(middle, dim=-1, keepdim=True).values
    advantages = divide(offsets, offsets.abs().kthvalue(middle, dim=-1, keepdim=True).values + eps)
    return divide(advantages * rewards.shape[-1], (advantages != 0).double().sum(-1, keepdim=True))
