"""Any data with any model and any verifier, few-shot examples, LoRA: by YAML alone, on tiny models of our own."""

import json

import pytest
import torch
import yaml

from maxpo_bench import cli
from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.policies import causal_lm
from maxpo_bench.problems import build
from maxpo_bench.settings import task_file
from maxpo_bench.training import loop

BASE = {
    "version": 1, "title": "t", "k": 2, "group_size": 4, "groups": 3, "steps": 2, "seeds": 1, "sampling": {"max_new_tokens": 4},
    "optimiser": {"lr": 1e-2}, "evaluation": {"prompts": 4, "samples": 4},
}  # fmt: skip
SMALL = {"hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 16}
FEW_SHOT = {"template": "{examples}{prompt}", "examples": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained model with a token per character, and a JSONL."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from maxpo_bench.policies import characters

    folder = tmp_path_factory.mktemp("any")
    tokenizer = characters.tokenizer("".join(map(chr, range(32, 127))) + "\n")
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=400, eos_token_id=tokenizer.eos_token_id, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    rows = [{"question": f"What is {i} plus 1?", "answer": f"so #### {i + 1}"} for i in range(80)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def load(folder, kind, name="t", **changes):
    task = {**BASE, "kind": kind, **{key: value for key, value in changes.items() if value is not None}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return task_file.load(str(folder / f"{name}.yaml"))


def pretrained(folder):
    return {"name": str(folder / "model")}


DATA = {
    "countdown": {"digits": 3},
    "text_maze": {"size": 4},
    "subset_sum": {},
    "sums": {"digits": [1, 2]},
    "reasoning_gym": {"dataset": "chain_sum", "options": {"max_terms": 2}, "num_train": 40, "num_held_out": 8},
    "huggingface": {"chat": False},
}


@pytest.mark.parametrize("model", ["pretrained", "new", "lora"])
@pytest.mark.parametrize("kind", DATA)
def test_any_data_trains_any_model(folder, kind, model):
    if kind == "reasoning_gym":
        pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    data = {**DATA[kind], **({"source": str(folder / "rows.jsonl")} if kind == "huggingface" else {})}
    own = {"model": SMALL, "warm_start": {"steps": 2, "batch_size": 8}} if model == "new" else {"model": pretrained(folder)}
    lora = {"rank": 2} if model == "lora" else None
    task = load(folder, kind, data=data, lora=lora, sampling={"max_new_tokens": 24 if model == "new" else 4}, **own)
    problem = build(task, (0,))
    policy = problem.initial_policy()
    batch = problem.sample(policy, 0)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    optimiser = loop.make_optimiser(task, [p for p in policy.parameters() if p.requires_grad])
    advantages = torch.linspace(-1, 1, batch.log_probs.numel(), dtype=torch.float64).reshape(batch.log_probs.shape)
    assert loop.update(task, problem, policy, optimiser, batch, advantages, 1e-2) == [0.0]
    moved = {name for name, p in policy.named_parameters() if not torch.equal(before[name], p)}
    assert moved and (model == "lora") == all("lora_" in name for name in moved)
    assert problem.reward(batch).shape == (1, 3, 4)


@pytest.mark.parametrize(
    "name, text, earned",
    [
        ("data", "3", 1),
        ("exact", " 3\n", 1),
        ("exact", "is 3", 0),
        ("last_number", "is 3", 1),
        ("boxed", "3", 0),
        ("boxed", "\\boxed{3}", 1),
    ],
)
def test_any_verifier_judges_any_data_with_answers(folder, name, text, earned):
    task = load(folder, "sums", data={"digits": [1]}, model=pretrained(folder), verifier={"name": name})
    assert build(task, (0,)).verify({"prompt": "1+2=", "answer": "3"}, text) == earned


def test_a_verifier_that_has_nothing_to_compare_with_is_refused(folder):
    task = load(folder, "countdown", data={"digits": 3}, model=pretrained(folder), verifier={"name": "exact"})
    with pytest.raises(InputError, match="verifier.name: exact compares .* kind countdown has none; name: data"):
        build(task, (0,)).split("train")


def test_examples_are_of_the_training_split_and_no_prompts(folder):
    problem = build(load(folder, "sums", data={"digits": [2], **FEW_SHOT}, model=pretrained(folder)), (0,))
    shown = [prompt for prompt, _ in problem.source.examples()]
    own = problem.source.rows("train")["prompt"]
    assert len(set(shown)) == 3 and set(shown) <= set(own)
    rows, tokens = problem.split("train")
    assert [row["prompt"] for row in rows] == [prompt for prompt in own if prompt not in shown]
    text = problem.tokenizer.decode(tokens[0])
    assert text == "".join(f"{p}{a}\n" for p, a in problem.source.examples()) + rows[0]["prompt"]
    again = build(load(folder, "sums", data={"digits": [2], **FEW_SHOT}, model=pretrained(folder)), (1,))
    assert again.source.examples() == problem.source.examples()
    other = build(load(folder, "sums", data={"digits": [2], **FEW_SHOT, "examples_seed": 1}, model=pretrained(folder)), (0,))
    assert other.source.examples() != problem.source.examples()


def test_what_stands_in_a_value_is_not_filled_in(folder):
    problem = build(load(folder, "sums", data={"template": "{prompt} {prompt}"}, model=pretrained(folder)), (0,))
    assert problem.source.format_prompt("a{prompt}b", problem.tokenizer) == "a{prompt}b a{prompt}b"


def test_a_prompt_longer_than_the_context_with_its_examples_is_one_line(folder):
    task = load(folder, "sums", data={"digits": [9], "template": "{examples}{prompt}", "examples": 20}, model=pretrained(folder))
    with pytest.raises(InputError, match=r"tokens with its 20 examples; .* the model's context of 400") as caught:
        build(task, (0,)).split("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"data": {"template": "{examples}{prompt}"}}, "data.examples: must be at least 1"),
        ({"data": {"examples": 2}}, "data.template: '{prompt}' has no {examples}"),
        ({"data": {**FEW_SHOT, "example": "{prompt}"}}, "data.example: '{prompt}' must have"),
        ({"model": {"name": "x", "layers": 3}}, "model.layers: model x is pretrained"),
        ({"verifier": {"name": "last number"}}, "verifier.name: unknown value 'last number', did you mean 'last_number'"),
        ({"lora": {"rank": -1}}, "lora.rank: must be at least 0"),
        ({"warm_start": None, "model": SMALL}, "warm_start.steps: missing"),
    ],
)
def test_bad_files_are_one_line(folder, changes, words):
    with pytest.raises(InputError) as caught:
        load(folder, "sums", **{"model": pretrained(folder), **changes})
    assert words in str(caught.value) and "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------------- LoRA


@pytest.fixture(scope="module")
def adapted(folder):
    pytest.importorskip("peft", reason="peft is not installed")
    task = load(folder, "sums", "lora", data={"digits": [1]}, model=pretrained(folder), lora={"rank": 2}, loss={"kl": 0.1})
    problem = build(task, (0,))
    return problem, problem.initial_policy()


def test_adapters_start_as_no_change_and_alone_are_trained(folder, adapted):
    problem, policy = adapted
    plain = build(load(folder, "sums", data={"digits": [1]}, model=pretrained(folder)), (0,)).initial_policy()
    tokens = torch.arange(5, 15)[None]
    assert torch.equal(policy(input_ids=tokens).logits, plain(input_ids=tokens).logits)
    assert all(("lora_" in name) == p.requires_grad for name, p in policy.named_parameters())
    assert set(problem.policy_states(policy)[0]) == {name for name, _ in policy.named_parameters() if "lora_" in name}


def test_the_reference_is_the_model_without_its_adapters(adapted):
    problem, policy = adapted
    batch = problem.sample(policy, 0)
    wanted = problem.log_probs(policy, batch).detach()
    states = problem.policy_states(policy)
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.add_(0.5)
    try:
        assert not torch.allclose(problem.log_probs(policy, batch), wanted, atol=1e-3)
        torch.testing.assert_close(problem.reference_log_probs(batch), wanted)
        assert not torch.allclose(problem.log_probs(policy, batch), wanted, atol=1e-3), "the adapters are on again"
    finally:
        problem.load_states(policy, states)
    torch.testing.assert_close(problem.log_probs(policy, batch).detach(), wanted)


def test_scores_are_those_of_the_adapters(adapted):
    problem, policy = adapted
    scores = problem.scores(policy, problem.sample(policy, 0))
    assert scores.shape[-1] == sum(p.numel() for p in policy.parameters() if p.requires_grad)


def test_adapters_of_another_model_and_targets_that_are_nowhere_are_one_line(folder, adapted):
    problem, policy = adapted
    state = dict(problem.policy_states(policy)[0])
    name, tensor = next(iter(state.items()))
    for wrong in ({**state, name: tensor[:, :4]}, {f"other.{key}": value for key, value in state.items()}):
        with pytest.raises(InputError, match="these weights are another model's"):
            problem.load_states(policy, [wrong])
    task = load(folder, "sums", data={"digits": [1]}, model=pretrained(folder), lora={"rank": 2, "targets": ["query"]})
    with pytest.raises(InputError, match="lora.targets: no module 'query' in LlamaForCausalLM; it has down_proj"):
        build(task, (0,)).initial_policy()


def test_a_cell_with_adapters_runs_and_keeps_them_alone(folder, tmp_path, monkeypatch):
    pytest.importorskip("peft", reason="peft is not installed")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "params.yaml").write_text("tasks: [t]\nestimators: [maxpo]\nstudies: []\nvariance_policy: maxpo\n")
    load(
        tmp_path / "tasks",
        "sums",
        data={"digits": [1], **FEW_SHOT},
        model=pretrained(folder),
        lora={"rank": 2},
        variance={"groups": 8},
    )
    monkeypatch.chdir(tmp_path)
    for words in (["base", "t"], ["train", "t", "maxpo"], ["variance", "t"]):
        assert cli.main(words) == 0
    metrics = json.loads((tmp_path / "results/runs/t/maxpo/metrics.json").read_text())
    assert metrics["status"] == "ok"
    kept = files.load_tensors(tmp_path / "results/runs/t/maxpo/checkpoints.safetensors")[0]
    assert kept and all("lora_" in name for name in kept)
    rows = (tmp_path / "results/variance/t.csv").read_text().splitlines()
    at = rows[0].split(",").index("num_parameters")
    assert {int(row.split(",")[at]) for row in rows[1:] if row} == {
        sum(t.numel() for n, t in kept.items() if n.startswith("0/final"))
    }


# ------------------------------------------------------------------------------------------------------------ micro-batches


def test_micro_batches_keep_groups_whole_and_add_up_to_the_same_gradient(folder, monkeypatch):
    task = load(folder, "sums", data={"digits": [1]}, model=pretrained(folder))
    problem = build(task, (0,))
    policy = problem.initial_policy()
    batch, rows = problem.sample(policy, 0), torch.tensor([0, 1, 3, 4, 6, 7, 9])
    assert [part.tolist() for part in problem.micro_batches(policy, batch, rows)] == [rows.tolist()]
    seen, gradients = set(), []
    for budget in (2**29, 2**16, 2**15, 1):
        monkeypatch.setattr(causal_lm, "MICRO_BATCH", budget)
        parts = problem.micro_batches(policy, batch, rows)
        assert torch.equal(torch.cat(parts), rows) and all(len(part) for part in parts)
        seen.add(tuple(map(len, parts)))
        policy.zero_grad()
        for part in parts:
            problem.log_probs(policy, batch, part).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    assert len(seen) >= 3 and max(map(len, seen)) == 7
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-4, rtol=1e-4)


def test_bfloat16_on_a_cpu_is_near_float32(folder):
    task = load(folder, "sums", data={"digits": [1]}, model=pretrained(folder), precision="bfloat16")
    problem = build(task, (0,))
    problem.self_check()
    policy = problem.initial_policy()
    batch = problem.sample(policy, 0)
    coarse = problem.log_probs(policy, batch)
    exact = build(load(folder, "sums", data={"digits": [1]}, model=pretrained(folder)), (0,)).log_probs(policy, batch)
    assert 0 < (coarse - exact).abs().max() < 1
    assert all(p.dtype == torch.float32 for p in policy.parameters())
