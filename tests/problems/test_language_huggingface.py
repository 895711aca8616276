"""Real models, offline: a tiny random Qwen2 in a folder, questions in GSM8K's schema, against transformers itself."""

import copy
import json
import shutil

import pandas
import pytest
import torch
import yaml

from maxpo_bench import cli
from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.policies import causal_lm
from maxpo_bench.problems import build
from maxpo_bench.settings import task_file

PAD, END = 320, 321  # <|endoftext|> and <|im_end|> of the tokenizer below
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder, a JSONL and the task file that names them."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    folder = tmp_path_factory.mktemp("huggingface")
    with open(folder / "train.jsonl", "w") as file:
        for i in range(60):
            question = f"What is {i} plus 1?" if i % 2 else f"How many apples are left after eating 1 of {i} apples?"
            file.write(json.dumps({"question": question, "answer": f"{i} ... #### {i + 1}"}) + "\n")
    bpe = ByteLevelBPETokenizer()
    bpe.train([str(folder / "train.jsonl")], vocab_size=320, show_progress=False)
    bpe.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text().splitlines()[1:]]
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=96, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    return folder


def write_task(folder, name="tiny", **changes):
    task = {
        "version": 1, "kind": "huggingface", "title": "tiny", "k": 2, "group_size": 4, "groups": 5, "steps": 2,
        "seeds": 1,
        "model": {"name": str(folder / "model")},
        "data": {"source": str(folder / "train.jsonl")},
        "sampling": {"max_new_tokens": 6},
        "optimiser": {"lr": 1e-4},
    }  # fmt: skip
    for section, values in changes.items():
        task[section] = {**task.get(section, {}), **values} if isinstance(values, dict) else values
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task))
    return task_file.load(str(path))


@pytest.fixture(scope="module")
def problem(folder):
    return build(write_task(folder), (0,))


@pytest.fixture(scope="module")
def policy(problem):
    return problem.initial_policy()


def test_prompts_wear_the_chat_template(problem):
    rows, tokens = problem.split("train")
    text = problem.tokenizer.decode(tokens[0])
    assert text == f"<|im_start|>user\n{rows[0]['prompt']}<|im_end|>\n<|im_start|>assistant\n"
    assert {row["prompt"] for row in rows}.isdisjoint(row["prompt"] for row in problem.split("held_out")[0])


def test_log_probs_equal_a_plain_forward(problem, policy):
    batch = problem.sample(policy, 0)
    assert batch.prompt_mask.logical_not().any() and not batch.prompt_mask[:, 0].all(), "the case needs left padding"
    found = problem.log_probs(policy, batch)[0]
    for g, prompt in enumerate(batch.prompt_tokens):
        prompt = prompt[batch.prompt_mask[g]]
        for i, length in enumerate(batch.completions.lengths[g]):
            completion = batch.completions.tokens[g, i, :length]
            with torch.no_grad():
                log_p = policy(input_ids=torch.cat([prompt, completion])[None]).logits[0].log_softmax(-1)
            wanted = log_p[len(prompt) - 1 : -1].gather(-1, completion[:, None]).sum()
            torch.testing.assert_close(found[g, i], wanted, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(batch.log_probs[0, g, i], wanted, atol=1e-4, rtol=1e-4)


def greedy(problem, policy, bias):
    """At a temperature near 0 our sampler is greedy: its tokens and lengths and generate's tokens, on a left-padded batch.

    bias: {token id: what is added to its logit}, so that some rows end and some do not.
    """
    policy = copy.deepcopy(policy)
    policy.lm_head.bias = torch.nn.Parameter(torch.zeros(policy.lm_head.out_features))
    for token, value in bias.items():
        policy.lm_head.bias.data[token] = value
    prompt_tokens, prompt_mask = problem._left_pad(problem.split("train")[1][:12])
    uniforms = torch.full((12, 2, 20), 0.5, dtype=torch.float64)
    ours = causal_lm.sample_groups(policy, prompt_tokens, prompt_mask, uniforms, problem.eos_ids, problem.pad_id, 1e-4)
    theirs = policy.generate(
        input_ids=prompt_tokens, attention_mask=prompt_mask.long(), max_new_tokens=20, do_sample=False,
        pad_token_id=problem.pad_id,
    )[:, prompt_tokens.shape[1] :]  # fmt: skip
    assert torch.equal(ours.tokens[:, 0], ours.tokens[:, 1])
    return ours.tokens[:, 0], ours.lengths[:, 0], theirs


def first_end(tokens, ends):
    """Tokens up to the first of the end tokens, that one included; all of them where there is none: [R]."""
    is_end = torch.isin(tokens, torch.tensor(ends))
    return torch.where(is_end.any(-1), is_end.long().argmax(-1) + 1, tokens.shape[1])


def test_greedy_text_equals_generate(problem, policy):
    ours, lengths, theirs = greedy(problem, policy, {problem.eos_ids[0]: 2.0})
    assert torch.equal(ours, theirs) and torch.equal(lengths, first_end(theirs, problem.eos_ids))
    ended = (theirs == problem.eos_ids[0]).any(-1)
    assert 3 <= ended.sum() <= 9 and lengths[ended].unique().numel() > 1, "the case needs rows that end and rows that do not"


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_any_of_several_end_tokens_ends_a_completion(folder, tmp_path, name):
    """As with Qwen2.5, whose chat model ends with <|im_end|> or <|endoftext|>, the token that pads."""
    shutil.copytree(folder / "model", tmp_path / "model")
    ends = [END, PAD]
    for file in {"generation_config.json", name}:  # what generate reads; and the file in question
        config = json.loads((tmp_path / "model" / file).read_text())
        (tmp_path / "model" / file).write_text(json.dumps({**config, "eos_token_id": ends}))
    problem = build(write_task(folder, "ends", model={"name": str(tmp_path / "model")}), (0,))
    ours, lengths, theirs = greedy(problem, problem.initial_policy(), dict.fromkeys(ends, 2.0))
    last = theirs.gather(-1, first_end(theirs, ends)[:, None] - 1)[:, 0].tolist()
    assert set(ends) < set(last), "the case needs rows that end with either, and rows that do not end"
    assert problem.eos_ids == ends
    assert torch.equal(ours, theirs) and torch.equal(lengths, first_end(theirs, ends))


def test_a_model_needs_no_generation_config(folder, tmp_path):
    """Without one, or with one that names no end, the config's end is the end; the tokenizer's stays the first."""
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "eos_token_id": [PAD, END]}))
    for text in ("{}", '{"eos_token_id": null}', "{not json", None):
        (model / "generation_config.json").unlink() if text is None else (model / "generation_config.json").write_text(text)
        assert build(write_task(folder, "ends", model={"name": str(model)}), (0,)).eos_ids == [END, PAD]
    (model / "generation_config.json").write_text('{"early_stopping": "perhaps"}')
    with pytest.raises(InputError, match="^ends.yaml: model.name: generation_config.json of .*must be a boolean") as caught:
        build(write_task(folder, "ends", model={"name": str(model)}), (0,))
    assert "\n" not in str(caught.value)


def test_an_end_token_ends_a_completion(problem, policy):
    """Make the end token likely: lengths count it, nothing but padding follows."""
    rows, tokens = problem.split("train")
    prompt_tokens, prompt_mask = problem._left_pad(tokens[:8])
    uniforms = torch.rand(8, 16, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = list(range(0, len(problem.tokenizer) - 5, 2))  # half the vocabulary ends
    drawn = causal_lm.sample_groups(policy, prompt_tokens, prompt_mask, uniforms, ends, problem.pad_id)
    at = torch.arange(drawn.tokens.shape[-1])
    last = drawn.tokens.gather(-1, drawn.lengths[..., None] - 1)[..., 0]
    assert drawn.lengths.float().mean() < 10 and torch.isin(last, torch.tensor(ends)).float().mean() > 0.9
    assert torch.all(drawn.tokens[at >= drawn.lengths[..., None]] == problem.pad_id)


def test_it_trains_end_to_end(folder, problem, policy):
    from maxpo_bench.estimators import get

    batch = problem.sample(policy, 0)
    assert problem.reward(batch).shape == (1, 5, 4)
    rewards = torch.rand(1, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    advantages = get("maxpo")(rewards, k=2).flatten().float()
    before = problem.log_probs(policy, batch).detach().flatten()
    optimiser = torch.optim.SGD(policy.parameters(), lr=1e-2)
    (-(advantages * problem.log_probs(policy, batch).flatten()).mean()).backward()
    optimiser.step()
    after = problem.log_probs(policy, batch).detach().flatten()
    assert (advantages * (after - before)).sum() > 0
    problem.load_states(policy, problem.policy_states(problem.initial_policy()))
    assert torch.equal(problem.log_probs(policy, batch).detach().flatten(), before)


def test_a_cell_from_the_command_line(folder, tmp_path, monkeypatch):
    """`base` and `train`, two large steps of one seed: results as of any task, no weights kept. Any number earns 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAXPO_BENCH_WORKERS", "1")
    monkeypatch.setenv("MAXPO_BENCH_CHECKPOINT_SECONDS", "0")
    task = write_task(
        folder, "cell", groups=12, k=3, data={"answer_tolerance": 1e9}, optimiser={"lr": 0.05},
        evaluation={"every": 1, "prompts": 3, "samples": 8},
    )  # fmt: skip
    for words in (["base", str(task.path)], ["train", str(task.path), "maxpo"]):
        assert cli.main(words) == 0
    base, run = tmp_path / "results" / "base" / "cell", tmp_path / "results" / "runs" / "cell" / "maxpo"
    assert files.read_json(base / "base.json")["status"] == "ok"
    metrics = files.read_json(run / "metrics.json")
    assert (metrics["status"], metrics["reason"], metrics["seeds"]) == ("ok", "", [0])
    curve = pandas.read_csv(run / "curve.csv.gz")
    assert curve.step.tolist() == [0, 1, 2] and curve.entropy.diff().max() < -0.05, "it trains"
    ladder = pandas.read_csv(run / "ladder.csv.gz")
    assert ladder.k.tolist() == [1, 2, 3, 4] * 2 and ladder.step.tolist() == [0] * 4 + [2] * 4
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"] == []


def test_templates_are_filled_in(folder):
    """With every prompt as it is, braces included; inside the chat's turn, or alone."""
    data = {"template": "Q: {prompt}\nA, after ####:"}
    made = build(write_task(folder, "template", data=data), (0,))
    rows, tokens = made.split("train")
    text = f"Q: {rows[3]['prompt']}\nA, after ####:"
    assert made.tokenizer.decode(tokens[3]) == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    plain = build(write_task(folder, "plain", data={**data, "chat": False}), (0,))
    assert plain.tokenizer.decode(plain.split("train")[1][3]) == text
    assert plain.source.format_prompt("Is {x} 1 ?", plain.tokenizer) == "Q: Is {x} 1 ?\nA, after ####:"


def test_a_local_folder_has_splits_columns_and_subsets(folder, tmp_path):
    """A folder as one downloads it from the hub: its README.md says which files are which subset's splits."""
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        "- {config_name: socratic, data_files: [{split: train, path: other.jsonl}, {split: test, path: other.jsonl}]}\n"
        "- {config_name: main, data_files: [{split: first, path: a.jsonl}, {split: test, path: b.jsonl}]}\n---\n"
    )
    for name, numbers in (("a", range(40)), ("b", range(40, 45)), ("other", [99])):
        lines = [json.dumps({"problem": f"What is {i} plus 0?", "solution": i, "question": "", "answer": ""}) for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    data = {"source": str(tmp_path), "subset": "main", "split": "first", "held_out_split": "test"}
    task = write_task(folder, "local", data={**data, "prompt_column": "problem", "answer_column": "solution"})
    problem = build(task, (0,))
    for split, numbers in (("train", range(40)), ("held_out", range(40, 45))):
        wanted = [{"prompt": f"What is {i} plus 0?", "answer": str(i)} for i in numbers]
        assert problem.split(split)[0] == wanted


def test_rewards_read_the_answer(problem):
    row = {"prompt": "", "answer": "3 + 4 is 7 #### 7"}
    assert problem.source.verify(row, "the answer is 7 .") == 1
    assert problem.source.verify(row, "the answer is 8 .") == 0
    with pytest.raises(ValueError, match="holds no number"):
        problem.source.verify({"prompt": "", "answer": "none"}, "7")


def test_the_answer_may_have_to_be_marked_and_need_not_be_exact(folder):
    row = {"prompt": "", "answer": "3 + 4 is 7"}
    marked = build(write_task(folder, "marked", data={"answer": "marked"}), (0,)).source
    texts = ["7", "the answer is 7 .", "#### 7", "so \\boxed{7}", "#### 8", "7 #### 8"]
    assert [marked.verify(row, text) for text in texts] == [0, 0, 1, 1, 0, 0]
    near = build(write_task(folder, "near", data={"answer_tolerance": 0.25}), (0,)).source
    texts = ["7", "7.25", "6.75", "27/4", "7.26", "6.74", "-7", "none"]
    assert [near.verify(row, text) for text in texts] == [1, 1, 1, 1, 0, 0, 0, 0]


BAD = [
    ({"data": {"prompt_column": "questoin"}}, "has no column 'questoin'; it has question, answer"),
    ({"data": {"split": "train", "source": "FOLDER/empty.jsonl"}}, "empty.jsonl is empty"),
    ({"data": {"source": "FOLDER/missing.jsonl"}}, "no file"),
    ({"data": {"source": "FOLDER/broken.jsonl"}}, "broken.jsonl: line 2 is no row of JSON: Expecting property name"),
    ({"data": {"source": "FOLDER/twice.jsonl"}}, "twice.jsonl: line 1 is no row of JSON: a key is there twice"),
    ({"data": {"source": "FOLDER/list.jsonl"}}, "list.jsonl: line 1 is no row of JSON: it must be an object"),
    ({"data": {"source": "FOLDER/half.jsonl"}}, "half.jsonl: line 1 is no row of JSON: .*surrogates not allowed"),
    ({"data": {"source": "FOLDER/broken.json"}}, "cannot load split 'train' of .*broken.json: (?!An error occurred)"),
    ({"data": {"source": "FOLDER/rows.jsonl.gz"}}, "rows.jsonl.gz is neither .jsonl nor .json; unpack it"),
    ({"model": {"name": "FOLDER/not_a_model"}}, "is not a model folder: it has no config.json"),
    ({"model": {"name": "FOLDER/nowhere"}}, "no folder"),
    ({"sampling": {"max_new_tokens": 80}}, "more than the model's context of 96"),
]


@pytest.mark.parametrize("changes,message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_one_line(folder, changes, message):
    (folder / "empty.jsonl").write_text("")
    (folder / "broken.jsonl").write_text('{"question": "1 ?", "answer": 1}\n{not json\n')
    (folder / "twice.jsonl").write_text('{"question": "1 ?", "answer": 1, "answer": 2}\n')
    (folder / "list.jsonl").write_text('["1 ?", 1]\n')
    (folder / "half.jsonl").write_text('{"question": "\\ud800 ?", "answer": 1}\n')
    (folder / "broken.json").write_text("{not json\n")
    (folder / "rows.jsonl.gz").write_bytes(b"\x1f\x8b")
    (folder / "not_a_model").mkdir(exist_ok=True)
    changes = json.loads(json.dumps(changes).replace("FOLDER", str(folder)))
    with pytest.raises(InputError, match=message) as caught:
        build(write_task(folder, "bad", **changes), (0,)).split("train")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("bad.yaml: ")


def test_a_split_that_hashing_leaves_empty_is_said(folder):
    (folder / "one.jsonl").write_text('{"question": "What is 1 ?", "answer": "#### 1"}\n')
    problem = build(write_task(folder, "one", data={"source": str(folder / "one.jsonl")}), (0,))
    with pytest.raises(InputError, match="1 rows of .*one.jsonl leave none for (train|held_out); name a data.held_out_split"):
        problem.split("train"), problem.split("held_out")


def test_an_unreachable_hub_is_one_line(folder, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    task = write_task(folder, "hub", model={"name": "nobody/no-such-model"})
    with pytest.raises(InputError, match="neither a local folder nor to be had from the Hugging Face hub") as caught:
        build(task, (0,))
    assert "\n" not in str(caught.value)


def test_an_unreachable_data_set_is_one_line(folder, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    problem = build(write_task(folder, "hub", data={"source": "nobody/no-such-questions", "subset": "main"}), (0,))
    with pytest.raises(InputError, match="^hub.yaml: data.source: cannot load split 'train' of nobody/no-such-q") as caught:
        problem.split("train")
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    problem = build(write_task(folder, "pickle", model={"name": str(tmp_path / "model")}), (0,))
    with pytest.raises(InputError, match="cannot load"):
        problem.initial_policy()
