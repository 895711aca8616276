"""What check_estimator asks for, says and refuses; functions written as the trainers have them."""

import math
import subprocess
import sys
from collections import defaultdict
from itertools import combinations

import pytest
import torch

from maxpo_bench.check import check_estimator
from maxpo_bench.check.conventions import Adapted
from maxpo_bench.check.signature import load
from maxpo_bench.cli import main
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get

# Functions as trainers have them.


def by_group(index):
    rows = defaultdict(list)
    for row, name in enumerate(index):
        rows[name].append(row)
    return rows.values()


def trl_group_advantages(rewards, num_generations):
    """scale_rewards: std with ddof 1 and eps 1e-4."""
    grouped = rewards.view(-1, num_generations)
    mean, std = grouped.mean(dim=1), grouped.std(dim=1)
    mean, std = mean.repeat_interleave(num_generations), std.repeat_interleave(num_generations)
    return (rewards - mean) / (std + 1e-4)


def verl_grpo(token_level_rewards, response_mask, index, epsilon=1e-6, config=None):
    scores = token_level_rewards.sum(dim=-1)
    out = torch.zeros_like(scores)
    for rows in by_group(index):
        out[rows] = (scores[rows] - scores[rows].mean()) / (scores[rows].std() + epsilon)
    return out[:, None] * response_mask, out[:, None] * response_mask


def verl_rloo(token_level_rewards, response_mask, index, epsilon=1e-6, config=None, **kwargs):
    scores = token_level_rewards.sum(dim=-1)
    out = torch.zeros_like(scores)
    for rows in by_group(index):
        n = len(rows)
        out[rows] = scores[rows] * n / (n - 1) - scores[rows].mean() * n / (n - 1)
    return out[:, None] * response_mask, out[:, None] * response_mask


def verl_rloo_vectorized(token_level_rewards, response_mask, index, **kwargs):
    import numpy as np

    scores = token_level_rewards.sum(dim=-1)
    place = torch.from_numpy(np.unique(index, return_inverse=True)[1])
    count = torch.bincount(place)[place].to(scores.dtype)
    out = (count * scores - torch.bincount(place, weights=scores)[place]) / (count - 1).clamp_min(1) * (count > 1)
    return out[:, None] * response_mask, out[:, None] * response_mask


def verl_opo(token_level_rewards, response_mask, index, config=None):
    """A baseline that weighs by response length."""
    lengths, scores = response_mask.sum(-1), token_level_rewards.sum(-1).double()
    out = torch.zeros_like(scores)
    for rows in by_group(index):
        out[rows] = scores[rows] - (lengths[rows] * scores[rows]).sum() / lengths[rows].sum()
    return out[:, None] * response_mask, out[:, None] * response_mask


def verl_opo_of_the_others(token_level_rewards, response_mask, index, config=None):
    lengths, scores = response_mask.sum(-1).double(), token_level_rewards.sum(-1).double()
    out = torch.zeros_like(scores)
    for rows in by_group(index):
        own, length = scores[rows], lengths[rows]
        out[rows] = own - ((length * own).sum() - length * own) / (length.sum() - length)
    return out[:, None] * response_mask, out[:, None] * response_mask


def verl_passk(token_level_rewards, response_mask, index, config=None):
    """Best minus second best for the best response; divided by the std when the config says so."""
    scores = token_level_rewards.sum(dim=-1)
    advantages = torch.zeros_like(scores)
    for rows in by_group(index):
        top, where = torch.topk(scores[rows], 2)
        scale = scores[rows].std() + 1e-6 if config.get("norm_adv_by_std_in_grpo", True) else 1.0
        advantages[rows[where[0]]] = (top[0] - top[1]) / scale
    return advantages[:, None] * response_mask, advantages[:, None] * response_mask


def verl_discounted(token_level_rewards, response_mask, config=None):
    """Takes no index; whitened over all tokens of the batch."""
    returns = token_level_rewards.flip(-1).cumsum(-1).flip(-1) * config.gamma
    mean = (returns * response_mask).sum() / response_mask.sum()
    variance = ((returns - mean).square() * response_mask).sum() / (response_mask.sum() - 1)
    advantages = (returns - mean) / (variance.sqrt() + 1e-8) * response_mask
    return advantages, returns


@pytest.mark.parametrize("function, equals", [
    (trl_group_advantages, "grpo with ddof = 1, eps = 0.0001"), (verl_grpo, "grpo with ddof = 1, eps = 1e-06"),
    (verl_rloo, "rloo"), (verl_rloo_vectorized, "rloo"), (verl_opo, "opo"),
    (verl_opo_of_the_others, "opo with leave_one_out = True"), (verl_passk, "grpo_passk"),
    (verl_discounted, "reinforce_pp with token_weighted = True, eps = 1e-08"),
])  # fmt: skip
def test_the_trainers_functions_are_named_with_their_options(function, equals):
    report = check_estimator(function)
    assert report.equals == equals, str(report)
    assert not {"permutation", "ties", "index", "mask"} & set(report.failed), str(report)


def test_rloo_is_rloo_and_all_its_properties_hold():
    for function in (verl_rloo, verl_rloo_vectorized):
        report = check_estimator(function)
        assert report.ok and report.equals == "rloo", str(report)


def test_lengths_follow_the_samples():
    """A weight by length is no dependence on the order of the samples, nor on other groups."""
    report = check_estimator(verl_opo)
    assert report["permutation"].status == report["groups"].status == "pass"
    assert "depend on the lengths" in report["lengths"].text and "lengths [3.0, 1.0]" in report["unbiased"].counter_example
    assert check_estimator(verl_opo_of_the_others).ok

    def in_groups(rewards, lengths):
        return rewards - (lengths * rewards).sum(-1, keepdim=True) / lengths.sum(-1, keepdim=True)

    assert check_estimator(in_groups).equals == "opo"

    def by_place(rewards, lengths):
        weight = torch.arange(1, rewards.shape[-1] + 1) * lengths
        return rewards - (weight * rewards).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)

    assert "permutation" in check_estimator(by_place).failed


def test_score_norms_follow_the_samples():
    def best_baseline(rewards, score_norms):
        weighted, total = (score_norms * rewards).sum(-1, keepdim=True), score_norms.sum(-1, keepdim=True)
        return rewards - (weighted - score_norms * rewards) / (total - score_norms)

    report = check_estimator(best_baseline)
    assert report.ok and report.equals == "optimal_baseline", str(report)
    assert "depend on the score norms" in report["score norms"].text


def test_tokens_of_a_response_with_different_advantages():
    def reward_to_go(token_level_rewards, response_mask, index):
        places = torch.arange(response_mask.shape[-1])
        return (token_level_rewards.sum(-1, keepdim=True) * 0.9**places * response_mask,) * 2

    report = check_estimator(reward_to_go)
    assert report["tokens"].status == "note" and "responses of one token" in report["tokens"].text
    assert report.equals == "reinforce"


def test_verl_function_that_ignores_index():
    def contiguous(token_level_rewards, response_mask, index):
        scores = token_level_rewards.sum(-1)
        n = int((index == index[0]).sum())
        advantages = get("rloo")(scores.view(-1, n)).flatten()[:, None] * response_mask
        return advantages, advantages

    report = check_estimator(contiguous)
    assert "index" in report.failed and "unbiased" not in report.failed
    assert report["index"].got != report["index"].expected


def test_verl_function_that_ignores_the_mask():
    def unmasked(token_level_rewards, response_mask, index):
        advantages = token_level_rewards.sum(-1, keepdim=True).expand_as(response_mask)
        return advantages, advantages

    report = check_estimator(unmasked)
    assert report.failed == ["mask"] and "behind a response's end" in report["mask"].text
    assert report["mask"].got != report["mask"].expected


def test_slow_brute_force_is_right_and_measured_as_slow():
    def brute_force(rewards, k):
        n = rewards.shape[-1]
        subsets = torch.tensor(list(combinations(range(n), k)))
        best = rewards.double()[..., subsets].amax(-1)  # [..., C]
        inside = (subsets[:, :, None] == torch.arange(n)).any(1).double()  # [C, N]
        return k * (best @ inside / math.comb(n - 1, k - 1) - best @ (1 - inside) / math.comb(n - 1, k))

    report = check_estimator(brute_force)
    assert report.ok and report.equals == "maxpo", str(report)
    assert "too slow for larger groups" in report["cost"].text


def test_objective_told():
    with pytest.raises(InputError, match="takes no k: say which"):
        check_estimator(trl_group_advantages, objective="J_K")
    with pytest.raises(InputError, match="unknown objective 'J_k', did you mean"):
        check_estimator(get("rloo"), objective="J_k")


# What the parameters mean.


@pytest.mark.parametrize("word", ["n_samples_per_prompt", "num_generations", "group_size", "n", "num_return_sequences", "N"])
def test_words_for_the_group_size(word):
    space = {}
    exec(
        f"def flat(rewards, {word}):\n    g = rewards.reshape(-1, {word})\n"
        f"    return (g - (g.sum(1, keepdim=True) - g) / ({word} - 1)).flatten()",
        space,
    )
    report = check_estimator(space["flat"])
    assert report.ok and report.equals == "rloo" and report.convention == "trl", str(report)
    exec(f"def grouped(rewards, {word}):\n    return (rewards - rewards.mean(-1, keepdim=True)) * {word} / ({word} - 1)", space)
    report = check_estimator(space["grouped"])
    assert report.ok and report.equals == "rloo" and report.convention == "groups", str(report)


@pytest.mark.parametrize("word", ["k", "K", "pass_k"])
def test_words_for_k(word):
    space = {"get": get}
    exec(f"def f(rewards, {word}):\n    return get('maxpo')(rewards, k={word})", space)
    assert check_estimator(space["f"]).equals == "maxpo"


def test_an_unclear_parameter_is_asked_for_in_one_line():
    def f(rewards, m):
        return get("maxpo")(rewards, k=m)

    with pytest.raises(InputError, match=r"f\(rewards, m\): what is 'm'\? Say --k-parameter m or --group-size-parameter m"):
        check_estimator(f)
    assert check_estimator(f, k_parameter="m").equals == "maxpo"

    def g(rewards, m):
        return rewards.view(-1, m).sub(rewards.view(-1, m).mean(1, keepdim=True)).flatten() * m / (m - 1)

    assert check_estimator(g, group_size_parameter="m").equals == "rloo"
    assert check_estimator(g, convention="trl").equals == "rloo"
    with pytest.raises(InputError, match="g has no parameter 'mm', did you mean 'm'"):
        check_estimator(g, group_size_parameter="mm")
    with pytest.raises(InputError, match="what is 'critic'"):
        check_estimator(lambda rewards, k, critic: rewards)
    with pytest.raises(InputError, match=r"\(\*rewards\): give the rewards, and each other parameter, a name of its own"):
        check_estimator(lambda *rewards: rewards[0])
    with pytest.raises(InputError, match="--group-size-parameter"):
        check_estimator(lambda rewards: rewards, convention="trl")
    with pytest.raises(InputError, match="unknown convention 'ver', did you mean 'verl'"):
        check_estimator(get("rloo"), convention="ver")
    assert Adapted(lambda token_level_rewards, response_mask, index, K=1: 0).roles["k"] == "K"


# What is refused, in one line and with exit code 2.

WRONG = {
    "a list": ("return rewards.tolist()", "returned list, not a tensor"),
    "an array": ("return rewards.numpy()", "returned ndarray, not a tensor"),
    "a scalar": ("return rewards.mean()", r"returned shape []"),
    "one a group": ("return rewards[..., :1]", "returned shape [1, 1] for rewards [1, 4]"),
    "NaN": ("return rewards / 0 * 0", "returned [nan, nan, nan, nan]"),
    "infinite": ("return rewards / 0", "returned [nan, nan, inf, inf]"),
    "integers": ("return rewards.long()", "returned torch.int64 for torch.float64 rewards: advantages must be float32 or float64"),
    "half precision": ("return rewards.bfloat16()", "returned torch.bfloat16 for torch.float64 rewards"),
    "an error": ("return rewards[7]", "raised IndexError"),
    "an error of two lines": ("raise ValueError('one\\ntwo')", "raised ValueError: one two"),
    "nothing": ("pass", "returned NoneType, not a tensor"),
}


@pytest.mark.parametrize("body, words", WRONG.values(), ids=list(WRONG))
def test_function_that_does_not_run(body, words, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(f"def mine(rewards, k=2):\n    {body}\n")
    assert main(["check", f"{file}:mine"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and words in shown.err and "mine does not run" in shown.err


def test_load_errors(tmp_path, capsys):
    for place, words in (
        ("maxpo", "write module:function"), ("maxpo_bench:", "write module:function"),
        ("no_such_module:f", "cannot import no_such_module"), (f"{tmp_path}/nothing.py:f", "no file"),
        ("maxpo_bench.estimators.maxpo:maxpoo", "has no function 'maxpoo', did you mean 'maxpo'"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            load(place)
    texts = ("def f(:\n", "import no_such_thing\n", "raise RuntimeError('a\\nb')\n", "import sys\nsys.exit(3)\n", "f = 3\n")
    for number, text in enumerate(texts):
        file = tmp_path / f"broken{number}.py"
        file.write_text(text)
        assert main(["check", f"{file}:f"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_command_line(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("def mine(rewards, m):\n    return (rewards - rewards.mean(-1, keepdim=True)).double() * m\n")
    assert main(["check", f"{file}:mine"]) == 2
    assert "--k-parameter m" in capsys.readouterr().err
    assert main(["check", f"{file}:mine", "--k-parameter", "m"]) == 1
    text = capsys.readouterr().out
    assert "FAIL  unbiased" in text and "shown by rewards" in text and "FAILED: unbiased" in text and "expected" in text
    assert main(["check", "maxpo_bench.estimators.maxpo:maxpo"]) == 0
    assert "equals: maxpo" in capsys.readouterr().out
    assert main(["check", "maxpo_bench.estimators.grpo:grpo", "--objective", "none", "--convention", "groups"]) == 0


def test_torch_and_numpy_are_enough():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('pandas', 'scipy', 'yaml', 'matplotlib', 'gymnasium', 'transformers', 'dvc'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import maxpo_bench.check\n"
        "assert 'torch' not in sys.modules\n"
        "from maxpo_bench.cli import main\n"
        "sys.exit(main(['check', 'maxpo_bench.estimators.maxpo:maxpo']))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
