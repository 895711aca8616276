"""`maxpo-bench check` names each of the trainers' own advantage functions, with its options and where the table has it."""

from types import SimpleNamespace

import pytest
import torch

from maxpo_bench.check import check_estimator

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

VERL = {
    "grpo": "grpo with ddof = 1, eps = 1e-06", "grpo_vectorized": "grpo with ddof = 1, eps = 1e-06", "grpo_passk": "grpo_passk",
    "rloo": "rloo", "rloo_vectorized": "rloo", "opo": "opo", "gpg": "gpg with count = rewards",
    "reinforce_plus_plus": "reinforce_pp with token_weighted = True, variance_eps = 1e-08, eps = 0",
    "reinforce_plus_plus_baseline": "reinforce_pp_baseline with token_weighted = True, variance_eps = 1e-08, eps = 0",
    "optimal_token_baseline": "optimal_baseline with leave_one_out = False",
    "tir_optimal_token_baseline": "optimal_baseline with leave_one_out = False",
}  # fmt: skip
NO_ENTRY = {"gdpo"}  # of one reward it is a z-score of a z-score
NEEDS_MORE = {"remax": "'reward_baselines', rewards of a greedy rollout", "gae": "'values', a value function's estimates"}


@pytest.fixture(scope="module")
def verl():
    return pytest.importorskip("verl.trainer.ppo.core_algos", reason="needs verl")


@pytest.mark.parametrize("name", VERL)
def test_verl(name, verl):
    report = check_estimator(verl.get_adv_estimator_fn(name))
    assert not {"permutation", "ties", "index", "mask"} & set(report.failed), str(report)
    assert f"verl ({name}" in report.shipped_as or f", {name})" in report.shipped_as, str(report)
    assert report.equals == VERL[name], str(report)


def test_verl_s_every_estimator_is_named_or_it_is_said_why_not(verl):
    own = {name for name in verl.ADV_ESTIMATOR_REGISTRY if not str(name).startswith("maxpo_bench.")}
    assert own == {*VERL, *NO_ENTRY, *NEEDS_MORE}
    for name, words in NEEDS_MORE.items():
        function = getattr(verl, f"compute_{name}_outcome_advantage", None) or verl.compute_gae_advantage_return
        with pytest.raises(ValueError, match=f"needs {words}"):
            check_estimator(function)


def test_verl_s_gdpo_is_not_taken_for_another(verl):
    report = check_estimator(verl.compute_gdpo_outcome_advantage)
    assert report.equals is None and report.nearly is None


def test_tinker_cookbook():
    data = pytest.importorskip("tinker_cookbook.rl.data_processing", reason="needs tinker-cookbook")

    def own(rewards):
        return torch.stack(data.compute_advantages([SimpleNamespace(get_total_rewards=row.tolist) for row in rewards.double()]))

    report = check_estimator(own)
    assert report.equals == "dr_grpo" and "verl (grpo with norm" in report.shipped_as


@pytest.mark.parametrize(
    "trainer, options, equals",
    [
        ("GRPO", {"scale_rewards": "group"}, "grpo with ddof = 1, eps = 0.0001"),
        ("GRPO", {"scale_rewards": "none"}, "dr_grpo"),
        ("RLOO", {}, "rloo"),
    ],
)
def test_trl(trainer, options, equals, tmp_path):
    """The trainer's own scoring step; what the model would do is left out. The forms over a batch: test_trainers.py."""
    trl = pytest.importorskip("trl", reason="needs trl")
    from datasets import Dataset

    from maxpo_bench.policies import causal_lm, characters

    tokenizer = characters.tokenizer("0123456789+=")
    size = {"architecture": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 16}
    made = getattr(trl, f"{trainer}Trainer")(
        model=causal_lm.from_config(size, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, 64, 0),
        args=getattr(trl, f"{trainer}Config")(
            output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_completion_length=1, beta=0.0,
            report_to=[], use_cpu=True, bf16=False, **options,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["2+2="] * 4}),
        reward_funcs=lambda prompts, **_: values.tolist(),
        processing_class=tokenizer,
    )  # fmt: skip
    values = torch.zeros(0)

    def generate(prompts):
        ids, texts = [[tokenizer.eos_token_id]] * len(prompts), [""] * len(prompts)
        return (ids, ids, None, texts, [[0.0]] * len(prompts), {}, None, None) if trainer == "GRPO" else (ids, ids, texts)

    def log_probs(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        zeros = torch.zeros(len(input_ids), logits_to_keep)
        return zeros, zeros, None

    made._generate, made._get_per_token_logps_and_entropies = generate, log_probs

    def own(rewards, num_generations):
        nonlocal values
        values, made.num_generations = rewards, num_generations
        return made._generate_and_score_completions([{"prompt": ""}] * len(rewards))["advantages"]

    report = check_estimator(own)
    assert report.equals == equals, str(report)
    assert f"TRL ({trainer}Trainer" in report.shipped_as, str(report)
