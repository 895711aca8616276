"""verl's losses, called, have the sizes that `maxpo-bench advise` says. TRL's: test_trl.py."""

import pytest
import torch

from maxpo_bench.check.trainers import LOSSES

core_algos = pytest.importorskip("verl.trainer.ppo.core_algos", reason="needs verl")
pytestmark = pytest.mark.peers

LENGTHS, LONGEST = [3, 1, 5, 2], 7


@pytest.mark.parametrize("loss", LOSSES["verl"], ids=lambda loss: loss.setting)
def test_verl(loss):
    mask = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
    log_probs = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    advantages = torch.tensor([1.5, -0.5, 0.25, -1.0])
    (ours,) = torch.autograd.grad(-(advantages * (log_probs * mask).sum(-1)).mean(), log_probs)
    mode = loss.setting.partition("=")[2].split()[0]
    (theirs,) = torch.autograd.grad(core_algos.agg_loss(-advantages[:, None] * log_probs, mask.float(), mode), log_probs)
    if loss.size is None:
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) < 0.99
    else:
        torch.testing.assert_close(theirs, loss.size(LENGTHS, LONGEST) * ours, rtol=1e-5, atol=1e-8)
