"""What the TRL adapter makes of rewards and settings, without TRL: its trainer is a stand-in."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from maxpo_bench.adapters import Prepared
from maxpo_bench.adapters.trl import examine, group_advantages
from maxpo_bench.check.trainers import settings
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get

COMMON = {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "max_grad_norm": 0.0}
GRPO = {"use_vllm": False, "vllm_importance_sampling_correction": True, "max_completion_length": 64}


def looked_at(place="RLOOConfig", k=4, n_eval=None, **options):
    config = settings("trl", 8)[place] | COMMON | (GRPO if place == "GRPOConfig" else {}) | options
    examine(Prepared("maxpo", k), SimpleNamespace(**config, num_generations_eval=n_eval))


@pytest.mark.parametrize("place", ["RLOOConfig", "GRPOConfig"])
def test_the_advised_settings_pass_in_silence(place):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        looked_at(place)


@pytest.mark.parametrize(
    "place, option, value, said",
    [
        ("RLOOConfig", "beta", 0.05, "set beta to 0.0"),
        ("RLOOConfig", "normalize_advantages", True, "set normalize_advantages to False"),
        ("RLOOConfig", "reward_clip_range", (-1, 1), "set reward_clip_range to None"),
        ("GRPOConfig", "multi_objective_aggregation", "normalize_then_sum", "'sum_then_normalize'"),
    ],
)
def test_what_would_bypass_it_is_refused(place, option, value, said):
    with pytest.raises(InputError, match=said) as error:
        looked_at(place, **{option: value})
    assert f"{option}=" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "place, option, value, remedy",
    [
        ("GRPOConfig", "beta", 0.1, "0.0"),
        ("GRPOConfig", "loss_type", "dapo", "'luspo'"),
        ("GRPOConfig", "loss_type", "bnpo", "'luspo'"),
        ("GRPOConfig", "loss_type", "grpo", "another gradient"),
        ("GRPOConfig", "loss_type", "sapo", "not linear"),
        ("GRPOConfig", "loss_type", "vespo", "not linear"),
        ("GRPOConfig", "loss_type", "dr_grpo", "divides the gradient by 64; multiply learning_rate"),
        ("GRPOConfig", "scale_rewards", "group", "'none'"),
        ("GRPOConfig", "top_entropy_quantile", 0.2, "1.0"),
        ("GRPOConfig", "off_policy_mask_threshold", 0.5, "None"),
        ("GRPOConfig", "delta", 2.0, "None"),
        ("GRPOConfig", "use_vllm", True, "vllm_importance_sampling_correction"),
        ("RLOOConfig", "mask_truncated_completions", True, "False"),
        ("RLOOConfig", "num_iterations", 2, "set num_iterations to 1"),
        ("RLOOConfig", "steps_per_generation", 4, "set them equal"),
        ("RLOOConfig", "max_grad_norm", 1.0, "no clipping"),
    ],
)
def test_what_would_rescale_it_is_warned_of(place, option, value, remedy):
    with pytest.warns(UserWarning) as caught:
        looked_at(place, **{option: value})
    [line] = [str(one.message) for one in caught]
    assert remedy in line and option.removeprefix("use_") in line


def test_a_k_that_does_not_fit_names_both():
    with pytest.raises(InputError, match=r"maxpo: k = 8 does not fit num_generations = 8, which allows k in 1\.\.7"):
        looked_at(k=8)
    with pytest.raises(InputError, match="k = 4 does not fit num_generations_eval = 4"):
        looked_at(n_eval=4)
    looked_at(n_eval=1)


def test_weights_missing_rewards_and_unscorable_groups():
    none = torch.nan
    rewards = torch.tensor([[0, 2], [1, none], [none, 2], [1, 1], [0, 1], [none, none], [1, 0], [1, 1]])
    one = SimpleNamespace(
        compute=Prepared("maxpo", 2),
        num_generations=4,
        num_generations_eval=1,
        model=SimpleNamespace(training=True),
        reward_weights=torch.tensor([1.0, 0.5]),
    )
    found, unscorable = group_advantages(one, rewards, torch.ones(8))
    wanted = get("maxpo")(torch.tensor([1.0, 1.0, 1.0, 1.5]).double(), k=2)
    torch.testing.assert_close(found[:4], wanted)
    assert found[4:].tolist() == [0.0] * 4 and unscorable == 1
    one.model.training = False
    assert group_advantages(one, rewards, torch.ones(8))[0].tolist() == [0.0] * 8
