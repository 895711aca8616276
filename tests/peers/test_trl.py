"""On one fixed batch the gradient of our loss is TRL's, and our advantages are TRL's and verl's published formulas."""

import dataclasses

import pytest
import torch

from maxpo_bench.check.trainers import LOSSES, settings
from maxpo_bench.estimators import get
from maxpo_bench.problems import build
from maxpo_bench.settings import task_file

trl = pytest.importorskip("trl", reason="needs the extra peers: pip install '.[peers]'")
pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def setting():
    task = dataclasses.replace(task_file.load("countdown3"), groups=4, group_size=8)
    task.section("warm_start")["steps"] = 20
    problem = build(task, (0,))
    policy = problem.initial_policy()
    batch = problem.sample(policy, 0)
    rewards = (torch.rand(1, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) < 0.4).double()
    return problem, policy, batch, rewards


def trainer(kind, problem, policy, tmp_path, **options):
    """TRL's trainer around the very same model; only its loss is used."""
    import datasets

    config = {"grpo": trl.GRPOConfig, "rloo": trl.RLOOConfig}[kind](
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=8, max_completion_length=6, beta=0.0,
        report_to=[], use_cpu=True, bf16=False, **options,
    )  # fmt: skip
    return {"grpo": trl.GRPOTrainer, "rloo": trl.RLOOTrainer}[kind](
        model=policy,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["<259>90:"] * 8}),
        processing_class=problem.tokenizer,
    )


def inputs(batch, advantages):
    """The batch as TRL's loss wants it: [G*N, ...]."""
    group_size, num_tokens = batch.completions.tokens.shape[1:]
    mask = torch.arange(num_tokens) < batch.completions.lengths.reshape(-1, 1)
    return {
        "prompt_ids": batch.prompt_tokens.repeat_interleave(group_size, 0),
        "prompt_mask": batch.prompt_mask.repeat_interleave(group_size, 0).long(),
        "completion_ids": batch.completions.tokens.reshape(-1, num_tokens),
        "completion_mask": mask.long(),
        "advantages": advantages.flatten().float(),
        "old_logps": batch.log_probs.flatten(),
        "old_per_token_logps": batch.completions.token_log_probs.reshape(-1, num_tokens),
        "num_items_in_batch": mask.sum(),
    }


def gradient(policy, loss):
    policy.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters()])


def ours(setting, advantages):
    problem, policy, batch, _ = setting
    return gradient(policy, -(advantages.flatten().float() * problem.log_probs(policy, batch).flatten()).mean())


def assert_same(found, wanted):
    assert wanted.norm() > 0
    assert ((found - wanted).norm() / wanted.norm()) < 1e-5


def test_rloo_gradient(setting, tmp_path):
    problem, policy, batch, rewards = setting
    advantages = get("rloo")(rewards, k=1)
    theirs = trainer("rloo", problem, policy, tmp_path)
    theirs.current_gradient_accumulation_steps = 1
    wanted = gradient(policy, theirs._compute_loss(policy, inputs(batch, advantages)))
    assert_same(ours(setting, advantages), wanted)


def test_grpo_gradient(setting, tmp_path):
    """TRL's dr_grpo aggregation is the sum over tokens / (B * max_completion_length): ours over a constant."""
    problem, policy, batch, rewards = setting
    advantages = get("grpo")(rewards, k=1)
    theirs = trainer("grpo", problem, policy, tmp_path, loss_type="dr_grpo")
    theirs.current_gradient_accumulation_steps = 1
    wanted = gradient(policy, theirs._compute_loss(policy, inputs(batch, advantages)) * 6)
    assert_same(ours(setting, advantages), wanted)


@pytest.mark.parametrize("loss", LOSSES["trl"], ids=lambda loss: loss.setting)
def test_each_loss_has_the_size_that_advise_says(loss, setting, tmp_path):
    problem, policy, batch, rewards = setting
    advantages = get("maxpo")(rewards, k=4)
    kind, _, name = loss.setting.removesuffix(" (default)").partition("Trainer")
    theirs = trainer(kind.lower(), problem, policy, tmp_path, **({"loss_type": name.split("'")[1]} if name else {}))
    theirs.current_gradient_accumulation_steps = theirs.args.steps_per_generation = 1
    found = gradient(policy, theirs._compute_loss(policy, inputs(batch, advantages))).clone()
    wanted = ours(setting, advantages)
    if loss.size is None:
        assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) < 0.99
    else:
        assert_same(found, loss.size(batch.completions.lengths.flatten().tolist(), 6) * wanted)


def test_the_advised_settings_are_options(tmp_path):
    for place, values in settings("trl", 8).items():
        config = getattr(trl, place)(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], **values)
        assert all(getattr(config, name) == value for name, value in values.items())


def test_advantages_are_the_published_formulas(setting):
    """verl core_algos: GRPO (r - mean) / (std + 1e-6) with ddof 1; RLOO (n r - sum) / (n - 1). TRL's RLOO is the same."""
    rewards = setting[3][0]
    n = rewards.shape[-1]
    grpo = (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + 1e-6)
    found = get("grpo")(rewards, k=1, ddof=1)
    torch.testing.assert_close(found, grpo, atol=1e-5, rtol=1e-5)
    rloo = rewards * n / (n - 1) - rewards.mean(-1, keepdim=True) * n / (n - 1)
    torch.testing.assert_close(get("rloo")(rewards, k=1), rloo, atol=1e-12, rtol=1e-12)
