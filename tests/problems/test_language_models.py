"""Kinds of language models: each is read right, or refused in one line. Held against plain forwards of one row."""

import json

import pytest
import torch
from tiny_models import build

from maxpo_bench import cli
from maxpo_bench.errors import InputError
from maxpo_bench.policies import causal_lm, reading, self_check

KINDS = {
    "plain": ("llama", {}),
    "eager attention": ("gptj", {}),
    "window": ("mistral", {}),
    "window in some layers": ("gemma3_text", {}),
    "learnt positions": ("gpt2", {}),
    "alibi": ("bloom", {}),
    "alibi, eager": ("mpt", {}),
    "alibi of Falcon": ("falcon", {"alibi": True}),
    "state-space": ("mamba", {}),
    "state-space, second kind": ("mamba2", {}),
    "hybrid of Mamba": ("jamba", {}),
    "hybrid of convolutions": ("lfm2", {}),
    "hybrid of linear attention": ("qwen3_next", {}),
    "recurrent": ("rwkv", {}),
    "decoder of an encoder-decoder": ("bart", {}),
}


@pytest.fixture(params=KINDS)
def model(request):
    name, changes = KINDS[request.param]
    return build(name, **changes)


def prompts(lengths=(3, 14, 9), seed=3):
    """Left-padded prompts of these lengths: tokens and mask [G, P]."""
    tokens = torch.randint(4, 90, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    return tokens, torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]


def plainly(model, prompt, completion):
    """Log-probabilities [T] of a completion by one forward of one row, with nothing but its tokens."""
    logits = model(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits[0].float()
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, completion[:, None])[:, 0]


def drawn(model, lengths=(3, 14, 9), ends=(20, 21, 22, 23, 24, 25)):
    """A batch of 3 completions a prompt: (prompt tokens, prompt mask, Completions)."""
    tokens, mask = prompts(lengths)
    uniforms = torch.rand(len(lengths), 3, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return tokens, mask, causal_lm.sample_groups(model, tokens, mask, uniforms, list(ends), 0)


def rows_of(mask, completions):
    """The arguments prompt_of, tokens and lengths of token_log_probs for all completions."""
    return torch.arange(len(mask)).repeat_interleave(3), completions.tokens.flatten(0, 1), completions.lengths.flatten()


@pytest.mark.parametrize("lengths", [(3, 14, 9), (12, 12, 12)], ids=["padded", "unpadded"])
def test_sampled_and_scored_log_probs_are_those_of_a_plain_forward(model, lengths):
    tokens, mask, completions = drawn(model, lengths)
    of, rows, ends = rows_of(mask, completions)
    scored = causal_lm.token_log_probs(model, tokens, mask, of, rows, ends).detach()
    for i, length in enumerate(ends):
        wanted = plainly(model, tokens[of[i]][mask[of[i]]], rows[i, :length]).detach()
        torch.testing.assert_close(scored[i, :length], wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(completions.token_log_probs.flatten(0, 1)[i, :length], wanted, atol=1e-4, rtol=1e-4)
        assert not scored[i, length:].any()


def test_the_gradient_is_that_of_a_plain_forward(model):
    tokens, mask, completions = drawn(model)
    of, rows, ends = rows_of(mask, completions)
    parameters = list(model.parameters())
    weights = torch.linspace(-1, 1, len(rows))

    def gradient(log_probs):
        return torch.autograd.grad((weights * log_probs).sum(), parameters, allow_unused=True, materialize_grads=True)

    found = gradient(causal_lm.token_log_probs(model, tokens, mask, of, rows, ends).sum(-1))
    plain = [plainly(model, tokens[g][mask[g]], row[:end]).sum() for g, row, end in zip(of, rows, ends, strict=True)]
    wanted = gradient(torch.stack(plain))
    largest = max(part.abs().max() for part in wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).abs().max() <= 1e-3 * largest


def test_scores_are_gradients_of_single_rows(model):
    tokens, mask, completions = drawn(model)
    of, rows, ends = (part[:4] for part in rows_of(mask, completions))
    found = causal_lm.score_rows(model, tokens[of], mask[of], rows, ends)
    parameters = list(model.parameters())
    for i, length in enumerate(ends):
        log_prob = plainly(model, tokens[of[i]][mask[of[i]]], rows[i, :length]).sum()
        wanted = torch.autograd.grad(log_prob, parameters, allow_unused=True, materialize_grads=True)
        wanted = torch.cat([part.flatten() for part in wanted])
        assert (found[i] - wanted).abs().max() <= 1e-3 * wanted.abs().max()


@pytest.mark.parametrize("way", reading.WAYS, ids=lambda way: way.name)
def test_every_way_draws_the_same_completions_of_a_model_that_allows_all(way):
    model = build("llama")
    tokens, mask = prompts()
    uniforms = torch.rand(3, 3, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    wanted = reading.sample(model, reading.WAYS[0], tokens, mask, uniforms, [20, 21, 22], 0, 0.8)
    found = reading.sample(model, way, tokens, mask, uniforms, [20, 21, 22], 0, 0.8)
    assert torch.equal(found.tokens, wanted.tokens) and torch.equal(found.lengths, wanted.lengths)
    for name in ("token_log_probs", "token_entropies", "score_norms"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=1e-4, rtol=1e-4)


def test_later_tokens_do_not_matter_to_eager_attention():
    model = build("gptj")
    tokens, mask = prompts((3,))
    rows = torch.tensor([[8, 9, 10, 11], [8, 9, 20, 21]])
    found = causal_lm.token_log_probs(model, tokens, mask, torch.zeros(2).long(), rows, torch.tensor([4, 4]))
    torch.testing.assert_close(found[0, :2], found[1, :2], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name, changes, lacks",
    [
        ("bert", {"is_decoder": False}, "BertLMHeadModel .* depends on later tokens; is_decoder is false in its config.json"),
        ("xlnet", {}, "XLNetLMHeadModel .* depends on later tokens"),
        ("reformer", {}, "ReformerModelWithLMHead .* a plain forward of tokens raises AssertionError"),
    ],
)
def test_what_no_way_gets_right_is_refused_in_a_line(name, changes, lacks):
    with pytest.raises(InputError, match=lacks) as refused:
        drawn(build(name, **changes))
    assert "\n" not in str(refused.value)


class Forgetful(torch.nn.Module):
    """A model that remembers something of its own beside the cache, and shows it."""

    def __init__(self, model, fault):
        super().__init__()
        self.model, self.config, self.fault, self.calls = model, model.config, fault, 0

    def forward(self, input_ids, **options):
        self.calls += 1
        out = self.model(input_ids=input_ids, **options)
        if self.fault == "memory":
            out.logits = out.logits + 0.01 * self.calls * torch.arange(out.logits.shape[-1])
        elif self.fault == "nan":
            out.logits = out.logits * float("nan")
        return out


@pytest.mark.parametrize("fault, lacks", [("memory", "Forgetful cannot be a policy"), ("nan", "log-probabilities are not finite")])
def test_a_planted_fault_is_refused(fault, lacks):
    with pytest.raises(InputError, match=lacks):
        self_check.way_of(Forgetful(build("llama"), fault), 20)


@pytest.mark.parametrize("fault", ["position", "mask", "rows", "gradient"])
def test_a_mistake_in_the_shared_way_is_seen(monkeypatch, fault):
    """Ways that share are given up for one that is right; with the mistake mended all of them are taken."""
    if fault == "position":
        monkeypatch.setattr(reading, "positions", lambda mask: torch.arange(mask.shape[1]).expand(mask.shape))
    elif fault == "mask":
        forward = reading.Reader._forward

        def unmasked(self, tokens, options):
            self.padded = False
            return forward(self, tokens, options)

        monkeypatch.setattr(reading.Reader, "_forward", unmasked)
    elif fault == "rows":
        select = reading.Reader.select
        monkeypatch.setattr(reading.Reader, "select", lambda self, rows: select(self, rows.flip(0)))
    else:
        first = reading.Reader.first
        monkeypatch.setattr(reading.Reader, "first", lambda self: first(self).detach())
    try:
        assert self_check.way_of(build("gpt2"), 20) != reading.WAYS[0]
    except InputError:
        assert fault == "rows", "rows are selected in every way"
    monkeypatch.undo()
    assert self_check.way_of(build("gpt2"), 20) == reading.WAYS[0]


def test_a_window_is_looked_past_only_where_texts_are_that_long(monkeypatch):
    tried = []
    find = self_check._find_way
    monkeypatch.setattr(self_check, "_find_way", lambda model, length: tried.append(length) or find(model, length))
    model = build("mistral", sliding_window=40)
    for longest in (20, 12, 20, 30, 60, 128):
        self_check.way_of(model, longest)
    assert tried == [15, 25, 44]


def test_positions_told_in_another_way_above_a_length_are_refused_where_texts_cross_it():
    """longrope: a text of more than 16 tokens changes the numbers of its first ones, whatever was sampled before."""
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16,
        "short_factor": [1.0] * 4, "long_factor": [3.0] * 4,
    }  # fmt: skip
    model = build("llama", rope_parameters=rope)
    self_check.way_of(model, 16)
    for longest in (18, 39, 64):  # 39: prompts of 30 and of 12 tokens with completions of 9
        with pytest.raises(InputError, match="LlamaForCausalLM cannot be a policy"):
            self_check.way_of(model, longest)


def test_under_bfloat16_sampled_and_scored_stay_close(monkeypatch):
    read, model = reading.Reader.read, build("llama")
    self_check.way_of(model, 20)
    with torch.autocast("cpu", torch.bfloat16):
        assert self_check.sampled_against_scored(model) < self_check.AUTOCAST_TOLERANCE
        monkeypatch.setattr(reading.Reader, "read", lambda self, tokens: read(self, tokens) * (1 + (tokens.shape[1] > 1)))
        assert self_check.sampled_against_scored(model) > self_check.AUTOCAST_TOLERANCE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """write(model) -> the project's folder with a task `tiny` whose model it is."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "params.yaml").write_text("tasks: [tiny]\nestimators: [rloo]\nstudies: []\n")
    words = {word: i for i, word in enumerate(["[PAD]", "[END]", "[UNK]", *map(str, range(90))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    rows = [{"question": " ".join(str(i + j) for j in range(1 + i % 7)), "answer": str(i)} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")

    def write(model):
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[END]", unk_token="[UNK]")
        fast.save_pretrained(tmp_path / "model")
        model.save_pretrained(tmp_path / "model")
        task = {
            "version": 1, "kind": "huggingface", "title": "tiny", "k": 2, "group_size": 4, "groups": 2, "steps": 2, "seeds": 1,
            "model": {"name": str(tmp_path / "model")}, "sampling": {"max_new_tokens": 6}, "optimiser": {"lr": 1e-4},
            "data": {"source": str(tmp_path / "rows.jsonl"), "chat": False, "template": "{prompt}"},
            "evaluation": {"prompts": 3, "samples": 4, "curve_prompts": 2, "curve_samples": 4},
        }  # fmt: skip
        (tmp_path / "tasks" / "tiny.yaml").write_text(json.dumps(task))
        return tmp_path

    return write


def test_the_base_stage_takes_a_hybrid_and_refuses_what_is_not_causal_before_it_touches_the_old_base(folder, capsys):
    place = folder(build("jamba"))
    assert cli.main(["base", "tiny"]) == 0 and cli.main(["train", "tiny", "rloo"]) == 0
    before = (place / "results" / "base" / "tiny" / "base.json").read_bytes()
    folder(build("bert", is_decoder=False))
    capsys.readouterr()
    assert cli.main(["base", "tiny"]) == 2
    lines = [line for line in "".join(capsys.readouterr()).splitlines() if "BertLMHeadModel cannot be a policy" in line]
    assert len(lines) == 1 and "tiny.yaml: model: BertLMHeadModel" in lines[0] and "Traceback" not in lines[0]
    assert (place / "results" / "base" / "tiny" / "base.json").read_bytes() == before
