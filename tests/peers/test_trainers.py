"""The trainers' own functions, called, against the registry entries that shipped.csv names for them, to 1e-6.

Needs what can be installed of the trainers; each test is left out where its trainer is not there.
"""

import importlib
from types import SimpleNamespace

import pytest
import torch

from maxpo_bench.check import shipped
from maxpo_bench.estimators import get

pytestmark = pytest.mark.peers

G, N, T = 4, 6, 5
KINDS = ("binary", "graded", "nearly flat")


def rewards(kind):
    """[G, N] float64. Among the graded: a tie for the best, a flat group, seven-to-one alike. Nearly flat: an eps decides."""
    generator = torch.Generator().manual_seed(0)
    if kind == "binary":
        return (torch.rand(G, N, generator=generator, dtype=torch.float64) < 0.4).double()
    values = torch.rand(G, N, generator=generator, dtype=torch.float64) * 2 - 0.5
    values[1] = 0.35
    values[2, :-1], values[2, -1] = 0.35, 0.85
    if kind == "nearly flat":  # about 0: a float32 mean loses nothing there
        return ((values - values.mean()) * 1e-4).float().double()
    return values


def lengths():
    """[G, N], from 1 to T tokens, differing within each group."""
    return torch.randint(1, T + 1, (G, N), generator=torch.Generator().manual_seed(1))


def registry(formula, values, **side):
    name, options = shipped.parse(formula)
    return get(name)(values, **options, **side)


def close(found, wanted):
    """Trainers compute in float32: 1e-6 of the largest advantage."""
    assert (found.double() - wanted).abs().max() <= 1e-6 * max(1.0, wanted.abs().max().item()), (found, wanted)


VERL = {  # verl's name: (name in shipped.csv, further keyword arguments)
    "grpo": ("grpo, grpo_vectorized", {}),
    "grpo_vectorized": ("grpo, grpo_vectorized", {}),
    "grpo without std": ("grpo with norm_adv_by_std_in_grpo=False", {"norm_adv_by_std_in_grpo": False}),
    "grpo_passk": ("grpo_passk", {}),
    "rloo": ("rloo, rloo_vectorized", {}),
    "rloo_vectorized": ("rloo, rloo_vectorized", {}),
    "reinforce_plus_plus": ("reinforce_plus_plus", {}),
    "reinforce_plus_plus_baseline": ("reinforce_plus_plus_baseline", {}),
    "opo": ("opo", {}),
    "gpg": ("gpg", {}),
}


def formula_of(trainer, name):
    (row,) = [row for row in shipped.rows() if row["trainer"] == trainer and row["name"] == name]
    return row["formula"]


def verl_inputs(values):
    """(token_level_rewards [G N, T] with the reward at the last token, response_mask, uids), groups interleaved."""
    count = lengths().flatten()
    mask = (torch.arange(T) < count[:, None]).float()
    tokens = torch.zeros(G * N, T).scatter_(1, count[:, None] - 1, values.flatten()[:, None].float())
    order = torch.arange(G * N).view(G, N).T.flatten()  # the samples of a prompt do not stand together
    uids = [f"prompt {i // N}" for i in order.tolist()]
    return tokens[order], mask[order], uids, order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VERL)
def test_verl(name, kind):
    np = pytest.importorskip("numpy")
    algos = pytest.importorskip("verl.trainer.ppo.core_algos", reason="needs verl")
    values = rewards(kind)
    tokens, mask, uids, order = verl_inputs(values)
    row, options = VERL[name]
    config = SimpleNamespace(gamma=1.0, get=lambda key, default=None: default)
    function = algos.get_adv_estimator_fn(name.removesuffix(" without std"))
    given = {"token_level_rewards": tokens, "response_mask": mask, "index": np.array(uids, dtype=object), "config": config}
    if name == "reinforce_plus_plus":
        given.pop("index")
    advantages, _ = function(**given, **options)
    found = torch.empty(G * N, T).index_copy_(0, order, advantages).view(G, N, T)
    wanted = registry(formula_of("verl", row), values, lengths=lengths())
    counted = torch.arange(T) < lengths()[..., None]
    close(found * counted, wanted[..., None] * counted)


def test_verl_s_optimal_token_baseline_on_completions_of_one_token():
    np = pytest.importorskip("numpy")
    algos = pytest.importorskip("verl.trainer.ppo.core_algos", reason="needs verl")
    values = rewards("graded")
    chance = torch.rand(G * N, 1, generator=torch.Generator().manual_seed(2))
    squares = chance**2 + 0.5 * (1 - chance) ** 2  # two more tokens share the rest
    advantages, _ = algos.compute_optimal_token_baseline_advantage(
        values.view(-1, 1).float(), torch.ones(G * N, 1), np.arange(G * N) // N, chance.log(), squares
    )
    norms = (1 - 2 * chance + squares).view(G, N)
    close(advantages.view(G, N), registry(formula_of("verl", "optimal_token_baseline"), values, score_norms=norms))


@pytest.mark.parametrize("kind", KINDS)
def test_tinker_cookbook(kind):
    data = pytest.importorskip("tinker_cookbook.rl.data_processing", reason="needs tinker-cookbook")
    values = rewards(kind)
    groups = [SimpleNamespace(get_total_rewards=row.tolist) for row in values]
    close(torch.stack(data.compute_advantages(groups)), registry(formula_of("tinker-cookbook", "compute_advantages"), values))


@pytest.fixture(scope="module")
def problem():
    from maxpo_bench.problems import build
    from maxpo_bench.settings import task_file

    task = task_file.load("countdown3")
    task.section("warm_start")["steps"] = 0
    return build(task, (0,))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "row",
    [
        "GRPOTrainer, scale_rewards='group'",
        "GRPOTrainer, scale_rewards='batch'",
        "GRPOTrainer, scale_rewards='none'",
        "RLOOTrainer",
        "RLOOTrainer, normalize_advantages=True",
    ],
)
def test_trl(row, kind, problem, tmp_path):
    """The trainer's own generation and scoring step; the rewards are given, in the order of the completions."""
    trl = pytest.importorskip("trl", reason="needs trl")
    datasets = importlib.import_module("datasets")
    values, grpo = rewards(kind), row.startswith("GRPO")
    options = {"scale_rewards": row.split("'")[1]} if grpo else {"normalize_advantages": row.endswith("True")}
    config = (trl.GRPOConfig if grpo else trl.RLOOConfig)(
        output_dir=str(tmp_path),
        per_device_train_batch_size=G * N,
        num_generations=N,
        max_completion_length=4,
        beta=0.0,
        report_to=[],
        use_cpu=True,
        bf16=False,
        **options,
    )
    prompts = [{"prompt": f"<{100 + g}>90:"} for g in range(G)]
    trainer = (trl.GRPOTrainer if grpo else trl.RLOOTrainer)(
        model=problem.initial_policy(),
        args=config,
        train_dataset=datasets.Dataset.from_list(prompts),
        reward_funcs=lambda completions, **_: values.flatten().tolist(),
        processing_class=problem.tokenizer,
    )
    output = trainer._generate_and_score_completions([prompt for prompt in prompts for _ in range(N)])
    wanted = registry(formula_of("TRL", row), values)
    close(output["advantages"].view(G, N), wanted)
