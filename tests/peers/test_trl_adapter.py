"""The adapter in TRL's own trainers: one process and two, accumulation, evaluation, logging, a changed TRL, and training."""

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from maxpo_bench.adapters.groups import advantages
from maxpo_bench.errors import Fault, InputError

trl = pytest.importorskip("trl", reason="needs the extra peers: pip install '.[peers]'")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")]

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = [1.0, 0.25]
UNSCORABLE = ("*", "<", ":")  # completions that no reward function scores start so


@pytest.fixture(scope="module")
def example():
    """examples/trl_maxpo.py as a namespace."""
    from types import SimpleNamespace

    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "trl_maxpo.py")))


@pytest.fixture(scope="module")
def problem():
    from maxpo_bench.problems import build
    from maxpo_bench.settings import task_file

    task = task_file.load("countdown3")
    task.section("warm_start")["steps"] = 0
    return build(task, (0,))


def by_digit(completions, **_):
    """Something that varies without training, and no score for some completions."""
    return [None if text.startswith(UNSCORABLE) else sum(map(text.count, "123")) / 3 for text in completions]


def by_length(completions, **_):
    return [None if text.startswith(UNSCORABLE) else float(len(text) % 3) for text in completions]


def make(problem, folder, kind="RLOO", estimator="maxpo", k=2, model=None, rewards=(by_digit, by_length), eval_rows=0, **options):
    from maxpo_bench.adapters.trl import with_estimator

    chosen = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 5, "beta": 0.0,
        "report_to": [], "use_cpu": True, "bf16": False, "max_grad_norm": 0.0, "save_strategy": "no", "max_steps": 2,
        "logging_steps": 1, "disable_tqdm": True, "reward_weights": WEIGHTS[: len(rewards)],
    }  # fmt: skip
    if kind == "GRPO":
        chosen |= {"loss_type": "luspo", "scale_rewards": "none", "importance_sampling_level": "sequence"}
    table = problem.source.table("train").select(range(16))
    return with_estimator(getattr(trl, f"{kind}Trainer"), estimator, k=k)(
        model=problem.initial_policy() if model is None else model,
        args=getattr(trl, f"{kind}Config")(**chosen | options),
        train_dataset=table,
        eval_dataset=table.select(range(eval_rows)) if eval_rows else None,
        reward_funcs=list(rewards),
        processing_class=problem.tokenizer,
    )


def recorded(trainer):
    """Every scored batch: [(prompts, completions, advantages of the rows)], from what TRL gives and logs."""
    batches, plain = [], trainer._generate_and_score_completions

    def record(inputs):
        output = plain(inputs)
        texts = trainer.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
        batches.append(([row["prompt"] for row in inputs], texts, output["advantages"].clone()))
        return output

    trainer._generate_and_score_completions = record
    return batches


def expected(prompts, texts, n, estimator="maxpo", k=2):
    """From each prompt's own completions, in order: rows."""
    scores = [by_digit(texts), by_length(texts)]
    rewards = [None if a is None else WEIGHTS[0] * a + WEIGHTS[1] * b for a, b in zip(*scores, strict=True)]
    rows = []
    for at in range(0, len(rewards), n):
        assert len(set(prompts[at : at + n])) == 1
        group = rewards[at : at + n]
        rows += [torch.zeros(n)] if None in group else [advantages([group], estimator, k)[0]]
    return torch.cat(rows).float()


@pytest.mark.parametrize("kind", ["RLOO", "GRPO"])
@pytest.mark.parametrize(
    "options", [{}, {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}], ids=["", "accumulated"]
)
def test_advantages_are_those_of_each_prompt_s_own_completions(kind, options, problem, tmp_path):
    trainer = make(problem, tmp_path, kind, **options)
    batches = recorded(trainer)
    trainer.train()
    assert len(batches) == 2
    for prompts, texts, found in batches:
        torch.testing.assert_close(found, expected(prompts, texts, 4), rtol=1e-6, atol=1e-6)
    assert any(found.any() for *_, found in batches)
    prompts, texts, found = batches[-1]
    assert list(trainer._logs["advantages"]) == pytest.approx(found.tolist(), abs=1e-6)  # the log of completions has ours
    lines = [line for line in trainer.state.log_history if "unscorable_groups" in line]
    without = [
        sum(any(t.startswith(UNSCORABLE) for t in texts[i : i + 4]) for i in range(0, len(texts), 4)) for _, texts, _ in batches
    ]
    assert [line["unscorable_groups"] for line in lines] == without and sum(without) > 0
    assert lines[-1]["advantages/max"] == pytest.approx(found.abs().max().item(), abs=1e-6)


def test_evaluation_with_another_number_of_generations(problem, tmp_path):
    for n, wanted in ((3, True), (1, False)):
        trainer = make(problem, tmp_path, eval_rows=4, num_generations_eval=n, per_device_eval_batch_size=6)
        batches = recorded(trainer)
        assert "eval_advantages/max" in trainer.evaluate()
        for prompts, texts, found in batches:
            torch.testing.assert_close(found, expected(prompts, texts, n) if n > 1 else torch.zeros(len(found)))
        assert any(found.any() for *_, found in batches) == wanted
        trainer.model.train()
        trainer.train()
        prompts, texts, found = batches[-1]
        torch.testing.assert_close(found, expected(prompts, texts, 4), rtol=1e-6, atol=1e-6)


WORKER = """
import json, os, sys
import torch
torch.set_num_threads(1)
from accelerate import PartialState
sys.path.insert(0, sys.argv[1])
import test_trl_adapter as here
from maxpo_bench.problems import build
from maxpo_bench.settings import task_file

task = task_file.load("countdown3")
task.section("warm_start")["steps"] = 0
options = json.loads(sys.argv[3])
torchrun = os.environ.pop("TORCHELASTIC_RUN_ID")  # the problem is data here, its own seeds are not dealt to these processes
problem = build(task, (0,))
os.environ["TORCHELASTIC_RUN_ID"] = torchrun
trainer = here.make(problem, sys.argv[2], **options)
batches = here.recorded(trainer)
trainer.train()
rank = PartialState().process_index
found = [[prompts, texts, advantages.tolist()] for prompts, texts, advantages in batches]
with open(f"{sys.argv[2]}/rank{rank}.json", "w") as file:
    json.dump({"batches": found, "shown": list(trainer._logs["advantages"])}, file)
"""


@pytest.mark.parametrize(
    "options",
    [
        {"per_device_train_batch_size": 4, "num_generations": 8},
        {"kind": "GRPO", "per_device_train_batch_size": 6, "num_generations": 4, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 6, "num_generations": 4},
    ],
    ids=["one group over both ranks", "accumulated", "straddling"],
)
def test_two_processes(options, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    words = [*command, str(tmp_path / "worker.py"), str(Path(__file__).parent), str(tmp_path), json.dumps(options)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert len(ranks[0]["batches"]) == 2
    for one, other in zip(ranks[0]["batches"], ranks[1]["batches"], strict=True):
        prompts, texts, found = (a + b for a, b in zip(one, other, strict=True))  # gathered rows are in the order of ranks
        wanted = expected(prompts, texts, options["num_generations"])
        torch.testing.assert_close(torch.tensor(found), wanted, rtol=1e-6, atol=1e-6)
    assert ranks[0]["shown"] == ranks[1]["shown"] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_an_estimator_that_reads_lengths_gets_them(problem, tmp_path):
    trainer = make(problem, tmp_path, estimator="opo", k=1, rewards=[by_length_always], max_steps=1)
    seen, plain = [], trainer.compute
    trainer.compute = lambda rewards, lengths: seen.append((rewards, lengths, plain(rewards, lengths))) or seen[-1][2]
    trainer.train()
    [(rewards, lengths, found)] = seen
    assert len(lengths.unique()) > 1 and not torch.allclose(found, plain(rewards, torch.ones_like(rewards)))


def by_length_always(completions, **_):
    return [float(len(text) % 3) for text in completions]


def test_what_does_not_go_with_it_is_one_line_when_the_trainer_is_made(problem, tmp_path):
    with pytest.raises(InputError, match=r"k = 4 does not fit num_generations = 4"):
        make(problem, tmp_path, k=4)
    with pytest.raises(InputError, match="set beta to 0.0"):
        make(problem, tmp_path, beta=0.05)
    with pytest.warns(UserWarning, match="loss_type='dapo'"):
        make(problem, tmp_path, "GRPO", loss_type="dapo", importance_sampling_level="token")


def test_not_a_trainer_and_not_a_tested_version(monkeypatch):
    from maxpo_bench.adapters.trl import with_estimator

    with pytest.raises(InputError, match="takes GRPOTrainer or RLOOTrainer.* got SFTTrainer"):
        with_estimator(trl.SFTTrainer, "maxpo", k=4)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.17.0")
    with pytest.raises(InputError, match="tested with trl >=1.16,<1.17, found trl 1.17.0"):
        with_estimator(trl.RLOOTrainer, "maxpo", k=4)


@pytest.mark.parametrize("change", ["order of the rows", "rewards past the hook", "other key", "other log"])
def test_a_changed_trl_fails_when_the_trainer_is_made(change, problem, tmp_path, monkeypatch):
    """Each is what a later TRL might do; the probe must see it."""
    plain_rewards, plain_scoring = trl.RLOOTrainer._calculate_rewards, trl.RLOOTrainer._generate_and_score_completions

    def scoring(self, inputs):
        if change == "rewards past the hook":
            monkeypatch.setattr(type(self), "_calculate_rewards", lambda self, *args: plain_rewards(self, *args))
        output = plain_scoring(self, inputs)
        if change == "order of the rows":
            output["advantages"] = output["advantages"].flip(0)
        if change == "other key":
            output["scores"] = output.pop("advantages")
        if change == "other log":
            self._logs["advantage"] = self._logs.pop("advantages")
        return output

    monkeypatch.setattr(trl.RLOOTrainer, "_generate_and_score_completions", scoring)
    with pytest.raises(Fault, match="is not the tested one"):
        make(problem, tmp_path)


def test_the_probe_leaves_nothing_behind(problem, tmp_path):
    trainer = make(problem, tmp_path)
    assert trainer.reward_funcs == [by_digit, by_length] and trainer.reward_weights.tolist() == WEIGHTS
    assert not any(trainer._logs.values()) and not any(trainer._metrics.values())
    assert "_generate" not in vars(trainer) and trainer.compute.name == "maxpo" and trainer.state.num_input_tokens_seen == 0


def test_the_probe_goes_where_completions_come_from_vllm(problem, tmp_path):
    from maxpo_bench.adapters.trl import probe

    trainer = make(problem, tmp_path, "GRPO")
    trainer.use_vllm = True
    probe(trainer)


def first_step(trainer):
    """(what TRL's scoring gave, with its inputs; the gradient before the optimiser's first step), filled by training."""
    from transformers import TrainerCallback

    outputs, gradients, plain = [], [], trainer._generate_and_score_completions

    def record(inputs):
        outputs.append(plain(inputs) | {"inputs": inputs})
        return outputs[-1]

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **_):
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]).clone())

    trainer._generate_and_score_completions = record
    trainer.add_callback(Look())
    return outputs, gradients


def off(gradient, start, problem, output, advantages, n):
    """How far a gradient is from that of our own loss on the same batch, relative to it."""
    log_probs = problem.log_probs(start, our_batch(problem, output, n)).flatten()
    start.zero_grad()
    (-(advantages * log_probs).mean()).backward()
    wanted = torch.cat([p.grad.flatten() for p in start.parameters()])
    assert wanted.norm() > 0
    return float((gradient - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    "kind, options",
    [
        ("RLOO", {}),
        ("RLOO", {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}),
        ("GRPO", {}),
        ("GRPO", {"importance_sampling_level": "token"}),
        ("GRPO", {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}),
    ],
    ids=["RLOO", "RLOO accumulated", "GRPO luspo", "GRPO luspo by token", "GRPO luspo accumulated"],
)
def test_the_gradient_is_that_of_our_own_loss(kind, options, problem, tmp_path):
    trainer = make(problem, tmp_path, kind, rewards=[by_length_always], max_steps=1, **options)
    outputs, gradients = first_step(trainer)
    trainer.train()
    assert off(gradients[0], problem.initial_policy(), problem, outputs[0], outputs[0]["advantages"], 4) < 1e-5


def test_training(example, tmp_path):
    """The example: advantages of the first step are ours to 1e-6, the gradient is our own loss's to 1e-5, pass@4 rises."""
    import copy

    started = time.monotonic()
    problem, model = example.countdown()
    start, before = copy.deepcopy(model), example.pass_at_4(problem, model)
    trainer = example.make_trainer(problem, model, tmp_path)
    outputs, gradients = first_step(trainer)
    trainer.train()
    first = outputs[0]
    after, n = example.pass_at_4(problem, model), example.GROUP_SIZE

    texts = problem.tokenizer.batch_decode(first["completion_ids"], skip_special_tokens=True)
    rewards = torch.tensor([problem.source.verify(row, text) for row, text in zip(first["inputs"], texts, strict=True)])
    ours = torch.cat(list(advantages(rewards.view(-1, n), "maxpo", example.K)))
    torch.testing.assert_close(first["advantages"], ours, rtol=1e-6, atol=1e-6)

    distance = off(gradients[0], start, problem, first, ours, n)
    print(f"pass@4 {before:.3f} -> {after:.3f}, gradient off by {distance:.1e}, {time.monotonic() - started:.0f} s")
    assert distance < 1e-5
    assert after > before + 0.02
    assert time.monotonic() - started < 180


def our_batch(problem, output, n):
    """TRL's completions as a batch of our own loop."""
    from maxpo_bench.policies.causal_lm import Completions
    from maxpo_bench.problems.language import Batch

    tokens, mask = output["completion_ids"], output["completion_mask"]
    zeros = torch.zeros(mask.shape).view(-1, n, mask.shape[1])
    fields = {name: zeros for name in Completions.__dataclass_fields__}
    fields |= {"tokens": tokens.view(-1, n, tokens.shape[1]), "lengths": mask.sum(1).view(-1, n), "token_log_probs": zeros}
    return Batch(output["inputs"][::n], output["prompt_ids"][::n], output["prompt_mask"][::n].bool(), Completions(**fields))
