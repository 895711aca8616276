"""What trainers' losses make of an advantage, and `maxpo-bench advise`. The losses themselves: tests/peers/test_losses.py."""

import pytest
import torch

from maxpo_bench.check.trainers import LOSSES, TRAINERS, advise, example, settings
from maxpo_bench.cli import main
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get

LENGTHS, LONGEST = [3, 1, 5, 2], 7
AGGREGATED = {  # the loss of a matrix of token losses, by the words of the trainers' documentation
    "1": lambda losses, mask: losses.sum(-1).mean(),
    "1/max_completion_length": lambda losses, mask: losses.sum() / (len(losses) * LONGEST),
    "1/loss_scale_factor": lambda losses, mask: losses.sum(-1).mean() / LONGEST,
    "1/mean length": lambda losses, mask: losses.sum() / mask.sum(),
    "the number of completions": lambda losses, mask: losses.sum(),
    "each completion over its own length": lambda losses, mask: (losses.sum(-1) / mask.sum(-1)).mean(),
}


@pytest.mark.parametrize("loss", [loss for losses in LOSSES.values() for loss in losses], ids=lambda loss: loss.setting)
def test_a_loss_has_the_size_that_is_said(loss):
    mask = torch.arange(LONGEST) < torch.tensor(LENGTHS)[:, None]
    log_probs = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    advantages = torch.tensor([1.5, -0.5, 0.25, -1.0])
    token_losses = -advantages[:, None] * log_probs * mask
    (ours,) = torch.autograd.grad(token_losses.sum(-1).mean(), log_probs, retain_graph=True)
    aggregate = next(value for words, value in sorted(AGGREGATED.items(), reverse=True) if loss.words.startswith(words))
    (theirs,) = torch.autograd.grad(aggregate(token_losses, mask), log_probs)
    if loss.size is None:
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) < 0.99
    else:
        torch.testing.assert_close(theirs, loss.size(LENGTHS, LONGEST) * ours)


def test_worked_number():
    text = advise("trl", "maxpo", 4, 16)
    high, low = get("maxpo")(example(16), k=4)[0, [0, -1]].tolist()
    assert text.startswith("maxpo, k = 4, groups of 16, in TRL\n  not shipped there")
    assert f"4 of 16 rewards are 1, the others 0. maxpo gives {high:.4g} to a 1 and {low:.4g} to a 0" in text
    assert f"is {-high / 16:.4g} times the sum" in text
    assert "1/max_completion_length: 0.001953, learning rate 0.000512" in text
    assert "RLOOConfig(num_generations=16, beta=0.0" in text and "loss_type='luspo'" in text


def test_what_the_trainer_ships_itself():
    text = advise("trl", "grpo", 1, 8)
    rewards = example(8)
    ratio = (get("grpo")(rewards, ddof=1, eps=1e-4)[0] / get("grpo")(rewards)[0]).mean()
    assert f"TRL's own GRPOTrainer, scale_rewards='group' is grpo(ddof=1, eps=1e-4), {ratio:.4f} times grpo" in text
    assert "verl's own rloo, rloo_vectorized is rloo\n" in advise("verl", "rloo", 1, 8)
    assert "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum" in advise("verl", "rloo", 1, 8)


@pytest.mark.parametrize("name", ["jspo", "bnpo", "best_gap", "passk_training", "optimal_baseline"])
def test_every_kind_of_estimator(name):
    assert "Worked number" in advise("verl", name, 8 if name == "best_gap" else 2, 8)


def test_refusals(capsys):
    for arguments, words in (
        (("tlr", "maxpo", 4, 16), "unknown trainer 'tlr', did you mean 'trl'"), (("trl", "maxpoo", 4, 16), "unknown estimator"),
        (("trl", "maxpo", 16, 16), "k = 16 is outside its range for N = 16: 1..15"), (("trl", "rloo", 1, 1), "at least 2"),
        (("trl", "maxpo", 4, 16, 0.0), "learning rate > 0"), (("trl", "maxpo", 4, 16, 1e-6, 10, 20), "mean length <= max length"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            advise(*arguments)
    assert main(["advise", "--trainer", "trl", "--estimator", "maxpo", "-k", "16", "-n", "16"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_commands(tmp_path, capsys):
    assert main(["advise", "--trainer", "verl", "--estimator", "maxpo", "-k", "4", "-n", "16"]) == 0
    assert "Worked number" in capsys.readouterr().out
    file = tmp_path / "mine.py"
    file.write_text(
        "def mine(rewards, m):\n    g = rewards.view(-1, m)\n    return (g - (g.sum(1, keepdim=True) - g) / (m - 1)).flatten()\n"
    )
    assert main(["check", f"{file}:mine", "--trainer", "trl"]) == 0
    text = capsys.readouterr().out
    assert "(trl convention" in text and "equals: rloo" in text and "1/max_completion_length" in text
    assert set(TRAINERS) == set(LOSSES) and all(settings(trainer, 8) for trainer in TRAINERS)
