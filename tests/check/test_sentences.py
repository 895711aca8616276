"""What a report says of functions with a slip: the cause and not another, the right name or none, rewards that show it."""

import pytest
import torch

from maxpo_bench.check import check_estimator
from maxpo_bench.estimators import get
from maxpo_bench.estimators.order_statistics import include_one_max


def loo_mean(rewards):
    return (rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1)


def baseline_added(rewards, k):
    """PKPO with the leave-one-out baseline's sign slipped: unbiased still."""
    q = k * include_one_max(rewards.double(), k)
    return q if k == rewards.shape[-1] else 2 * q - get("pkpo_loo")(rewards.double(), k=k)


def right_for_few(rewards, k):
    return get("maxpo")(rewards.double(), k=min(k, 2))


def over_own_length(rewards, lengths):
    return (rewards - rewards.mean(-1, keepdim=True)) / lengths


def length_penalty(rewards, lengths):
    paid = rewards - 0.1 * lengths
    return paid - loo_mean(paid)


def single_inside(rewards):
    """float32 inside, whatever it is given; the variance of the others as a difference of sums."""
    r, n = rewards.float(), rewards.shape[-1]
    others, squares = r.sum(-1, keepdim=True) - r, (r * r).sum(-1, keepdim=True) - r * r
    variance = (squares / (n - 1) - (others / (n - 1)).square()).clamp_min(0)
    return (r - others / (n - 1)) / (variance.sqrt() + 1e-6)


def over_prompts(rewards):
    """The mean over the wrong axis."""
    return rewards - rewards.mean(0, keepdim=True)


def other_groups(rewards):
    if len(rewards) == 1:
        return rewards - loo_mean(rewards)
    return rewards - (rewards.sum() - rewards.sum(-1, keepdim=True)) / (rewards.numel() - rewards.shape[-1])


def nothing(rewards):
    return torch.zeros_like(rewards)


def uphill(rewards):
    return loo_mean(rewards) - rewards


def median(rewards):
    return rewards - rewards.median(-1, keepdim=True).values


def whitened(rewards):
    return (rewards - rewards.mean()) / (rewards.var() + 1e-8).sqrt()


SAID = [  # function, property, status, words of it
    (baseline_added, "unbiased", "pass", "grad J_K"),
    (baseline_added, "constant group", "fail", "one is added, not taken off"),
    (right_for_few, "unbiased", "fail", "unbiased at K = 1, 2, not at K = 3, 4, 5"),
    (over_own_length, "unbiased", "fail", "with lengths all alike, wrong scale: E[g] = c grad J_1 with c = 1 - 1/N"),
    (over_own_length, "permutation", "pass", ""),
    (length_penalty, "unbiased", "fail", "with lengths all alike it is unbiased"),
    (length_penalty, "constant group", "pass", ""),
    (length_penalty, "own reward", "pass", "neither scale nor baseline"),
    (single_inside, "float32 residue", "fail", "which binary holds exactly"),
    (over_prompts, "own reward", "fail", "1 - 1/G"),
    (over_prompts, "ddof", "note", "does not apply"),
    (other_groups, "own reward", "pass", "one to one"),
    (nothing, "unbiased", "fail", "E[g] = 0"),
    (nothing, "own reward", "note", "does not apply"),
    (nothing, "form", "note", "always 0"),
    (uphill, "unbiased", "fail", "wrong sign"),
    (median, "own reward", "note", "in a median"),
]
REPORTS: dict = {}


def report_on(function):
    if function not in REPORTS:
        REPORTS[function] = check_estimator(function)
    return REPORTS[function]


@pytest.mark.parametrize("function, name, status, words", SAID, ids=[f"{row[0].__name__}-{row[1]}" for row in SAID])
def test_says(function, name, status, words):
    finding = report_on(function)[name]
    assert finding.status == status and words in finding.text, str(report_on(function))


@pytest.mark.parametrize(
    "function, equals",
    [
        (right_for_few, None),
        (other_groups, None),  # in batches of two groups it is jspo
        (nothing, None),
        (uphill, "rloo, times -1"),
        (whitened, "reinforce_pp with variance_eps = 1e-08, eps = 1e-08"),  # not by token: of lengths nothing is known
    ],
)
def test_names(function, equals):
    report = report_on(function)
    assert report.equals == equals and report.nearly is None


def test_a_counter_example_beside_other_groups_says_which():
    """Handed over as it is shown, it gives the advantages that are shown."""
    finding = report_on(over_prompts)["ties"]
    assert finding.given == "beside a group of rewards [0.0, 1.0]"
    shown = over_prompts(torch.tensor([finding.counter_example, [0.0, 1.0]], dtype=torch.float64))[0]
    assert shown.tolist() == pytest.approx(finding.got)


def test_side_information_is_shown_by_a_group_that_stands_alone():
    def whitened_by_token(token_level_rewards, response_mask, index):
        counts, scores = response_mask.sum(-1), token_level_rewards.sum(-1)
        mean = (scores * counts).sum() / counts.sum()
        variance = (counts * (scores - mean) ** 2).sum() / (counts.sum() - 1)
        found = ((scores - mean) / (variance + 1e-8).sqrt())[:, None] * response_mask
        return found, found

    finding = check_estimator(whitened_by_token)["lengths"]
    rewards = torch.tensor(finding.counter_example, dtype=torch.float64)
    counts = torch.tensor([float(word) for word in finding.given.split("[")[1].split("]")[0].split(",")], dtype=torch.float64)
    wanted = get("reinforce_pp")(rewards[None], lengths=counts[None], token_weighted=True, eps=0, variance_eps=1e-8)[0]
    assert finding.got == pytest.approx(wanted.tolist(), abs=1e-6)


def test_a_function_that_draws_is_judged_no_further():
    generator = torch.Generator().manual_seed(0)
    report = check_estimator(lambda rewards: rewards * torch.rand(rewards.shape, generator=generator))
    assert report.failed == ["pure"] and report.equals is None
    assert [finding.name for finding in report.findings] == ["runs", "pure", "the rest"]


def test_a_function_that_changes_its_rewards_is_judged_by_its_formula():
    def in_place(rewards):
        return rewards.sub_(rewards.mean(-1, keepdim=True))

    report = check_estimator(in_place)
    assert report.equals == "dr_grpo" and set(report.failed) == {"pure", "unbiased", "own reward"}


def test_what_the_check_cannot_hand_over_is_said():
    with pytest.raises(ValueError, match="needs 'values', a value function's estimates"):
        check_estimator(lambda token_level_rewards, values, response_mask: token_level_rewards)
