"""Every causal-LM architecture of the installed `transformers`, built tiny from its config."""

import re

import torch

VOCABULARY = 96
WIDTH, HEADS, HEAD = 32, 4, 8

# Whole names of integer fields and what they become. Heads times head size is the width.
SMALL = {
    VOCABULARY: r"(text_|decoder_|unpadded_)?vocab_size(_per_layer_input)?|ngram_vocab_size_base",
    128: r"(max|n)_positions?(_embeddings)?|n_ctx|max_seq_len|max_target_positions|model_max_length|context_length",
    24: r"original_max_position_embeddings",
    6: r"(sliding_|attention_|local_attention_)?window(_size|_len)?|sliding_window_size|attention_chunk_size|local_attention",
    WIDTH: r"(attention_|input_|router_)?hidden_size(_per_layer_input)?|n_embd|d_model|emb_dim|\w*embedding_(size|dim)"
    r"|word_embed_proj_dim|lru_width|\w+_embed_dim",
    16: r"index_n_heads",
    48: r"\w*(intermediate_size|ffn_dim|ff_dim|ffn_hidden_size)\w*|d_ff|dff|d_inner|dim_ff|feed_forward_size",
    HEADS: r"(num_|n_|encoder_|decoder_|num_encoder_|num_decoder_|swa_num_)?(attention_)?heads?"
    r"|num_(hidden_)?layers|n_layers?|(num_)?(en|de)coder_layers|linear_num_(value_)?heads|(mamba_)?chunk_size|index_block_size",
    HEAD: r"(qk_nope_|qk_rope_|v_|index_|swa_|linear_|linear_key_|linear_value_|attention_|mamba_)?head_dim|d_head|dim_head|d_kv"
    r"|kv_channels|attention_head_size|rotary_dim|(kv|q|o)_lora_rank|\w*_rank|hc_lowrank|mamba_(n|num)_heads|mamba_d_head|index_topk"
    r"|(mamba_)?d_state|(ssm_)?state_size|(moe_)?(num_|n_)(local_|routed_)?experts",
    2: r"num_experts_per_tok(en)?|moe_k|moe_topk|top_k_experts|linear_num_key_heads|n_groups?|num_expert_group|zero_expert_num",
    1: r"topk_group|first_k_dense_replace",
}  # fmt: skip

# What hangs together in a way of its own.
MIXED = ["linear_attention", "full_attention"] * 2
EXCEPTIONS = {
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": WIDTH, "ffn_hidden_size": 48},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
    "dots3_note_text": {"num_key_value_heads": HEADS, "per_layer_config": {}, "head_dim": 2 * HEAD},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": MIXED},
    "hrm_text": {"initializer_range": 0.05, "num_layers_per_stack": 1, "num_hidden_layers": 8},
    "hunyuan_v1_dense": {"head_dim": HEAD},
    "hunyuan_v1_moe": {"head_dim": HEAD},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": MIXED},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"qk_head_dim": 2 * HEAD},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": HEAD},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": HEADS, "indexer_kv_heads": 1, "indexer_head_dim": HEAD, "indexer_budget": 8, "indexer_compress_ratio": 2,
    },
    "reformer": {"is_decoder": True, "axial_pos_shape": (8, 16), "axial_pos_embds_dim": (16, 16)},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 8, "attention_hidden_size": 64, "attention_head_dim": 16},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2, "mamba_headdim": 8,
        "attention_hidden_size": 64, "attention_head_dim": 16,
    },
}  # fmt: skip


def small(config_class, exceptions=None):
    """A config of this class with small numbers, its parts too."""
    from transformers import PreTrainedConfig

    default, changes = config_class(), {}
    for name, value in vars(default).items():
        if isinstance(value, PreTrainedConfig):
            changes[name] = small(type(value), EXCEPTIONS.get(value.model_type))
        elif name.endswith("_token_id") and type(value) is int and value >= VOCABULARY:
            changes[name] = 3
        elif re.fullmatch(r"(swa_)?num_(key_value|kv)_heads", name) and value is not None:
            changes[name] = HEADS if value == vars(default).get(name.replace("key_value", "attention")) else 2
        elif type(value) is int and value > 1:
            changes[name] = next((number for number, pattern in SMALL.items() if re.fullmatch(pattern, name)), value)
        elif name in ("initializer_range", "init_std"):
            changes[name] = 0.3
        elif name == "is_decoder":  # of the models that can be either, the causal one
            changes[name] = True
    return config_class(**{**changes, **(exceptions or {})})


def build(model_type, **changes):
    """A random float32 model of this architecture, on which what is masked and remembered shows in the logits."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = small(CONFIG_MAPPING[model_type], {**EXCEPTIONS.get(model_type, {}), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def names():
    """Every model type that `transformers` has a causal language model for."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def outcome(model_type):
    """(model or None, "right" | "refused" | "not built", the way it is read, or why not)."""
    from maxpo_bench.errors import InputError
    from maxpo_bench.policies import self_check

    try:
        model = build(model_type)
    except Exception as error:  # a config that cannot be made small says so in any way
        return None, "not built", f"{type(error).__name__}: {error}"
    try:
        return model, "right", self_check.way_of(model, 64).name
    except InputError as error:
        return model, "refused", str(error)


WAYS = {
    "shared": "A prompt is read once for its group, in sampling and in scoring; prompts of different lengths share a batch.",
    "by length": "The same, prompts of each length by themselves: left padding changes these models' numbers.",
    "whole to score": "Sampled with the model's own cache, scored by reading prompt and completion whole, prompts of each length "
    "by themselves.",
    "whole": "No cache: every token that is sampled reads everything before it again. Right, and slow.",
}


def page(outcomes):
    """docs/models.md: the text of what outcome() gave of every model type, {model type: (kind, detail)}."""
    import transformers

    count = {kind: sum(found == kind for found, _ in outcomes.values()) for kind in ("right", "refused", "not built")}
    lines = [
        "# Which language models are read right",
        "",
        f"Every causal language model of transformers {transformers.__version__}, built small and random from its config, went "
        "through the self-check of the base stage:",
        "log-probabilities through the suite equal those of a plain forward of one row to 1e-4, with padding and without, beyond "
        "windows, sampled and scored,",
        f"and so does the gradient. {count['right']} are right, {count['refused']} are refused in one line, {count['not built']} "
        "could not be built small. Whatever the list says, a model of your own passes",
        "the same check before anything is trained.",
        "",
        "Written by `python tests/problems/tiny_models.py`; tests/problems/test_language_all_models.py holds it to a run.",
    ]
    for way, words in WAYS.items():
        chosen = sorted(name for name, (kind, detail) in outcomes.items() if (kind, detail) == ("right", way))
        lines += ["", f"## Right: {way} ({len(chosen)})", "", words, "", ", ".join(chosen)]
    for kind in ("refused", "not built"):
        lines += ["", f"## {kind.capitalize()} ({count[kind]})", ""]
        for name, (found, detail) in sorted(outcomes.items()):
            if found == kind:
                words = re.sub(r"by [-+.e0-9]+ nats", "", " ".join(detail.split()))  # the size differs between machines
                lines.append(f"- {name}: {words[:180]}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    text = page({name: outcome(name)[1:] for name in names()})
    (Path(__file__).parents[2] / "docs" / "models.md").write_text(text, encoding="utf-8")
