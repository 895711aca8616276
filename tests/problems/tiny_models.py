"""Every causal-LM architecture of the installed `transformers`, built tiny from its config."""

import re

import torch

VOCABULARY = 96

# Whole names of integer fields and what they become; the first that fits counts. Heads times head size is the width.
SMALL = [
    (r"(text_|decoder_|unpadded_)?vocab_size(_per_layer_input)?", VOCABULARY),
    (r"(max|n)_positions?(_embeddings)?|n_ctx|max_seq_len|max_target_positions|model_max_length|context_length", 128),
    (r"original_max_position_embeddings", 24),
    (r"(sliding_|attention_|local_attention_|keep_)?window(_size|_len)?|sliding_window_size|attention_chunk_size|local_attention|index_topk", 6),
    (r"(mamba_)?chunk_size|(local|lsh)_attn_chunk_length|index_block_size", 4),
    (r"(num_)?(hidden_|encoder_|decoder_)?(n_)?layers?", 4),
    (r"moe_layer_end_index", 3),
    (r"(num_|n_|encoder_|decoder_|num_encoder_|num_decoder_|swa_num_)?(attention_|index_n_)?heads?|index_n_heads", 4),
    (r"(swa_)?num_(key_value|kv)_heads|linear_num_key_heads", 2),
    (r"linear_num_(value_)?heads", 4),
    (r"qk_rope_head_dim|rotary_dim", 4),
    (r"((qk_nope|v|index|swa|linear|linear_key|linear_value|attention)_)?head_dim|d_head|dim_head|d_kv|kv_channels|attention_head_size", 8),
    (r"(kv|q|o)_lora_rank|\w*dt_rank|time_step_rank|hc_lowrank|laurel_rank|adapter_rank|gated_norm_rank", 8),
    (r"\w*(intermediate_size|ffn_dim|ff_dim|ffn_hidden_size)\w*|d_ff|dff|d_inner|dim_ff|feed_forward_size", 48),
    (r"(attention_|input_|router_)?hidden_size(_per_layer_input)?|n_embd|d_model|emb_dim|\w*embedding_(size|dim)|word_embed_proj_dim|lru_width|\w+_embed_dim", 32),
    (r"(moe_)?(num_|n_)(local_|routed_)?experts|num_experts", 8),
    (r"num_experts_per_tok(en)?|moe_k|moe_topk|top_k_experts", 2),
    (r"n_group|num_expert_group|zero_expert_num|mamba_n_groups|n_groups", 2),
    (r"(mamba_)?(d_)?(ssm_)?state(_size)?|mamba_d_state|ssm_state_size", 8),
    (r"mamba_(n|num)_heads|n_mamba_heads|mamba_(d_head|head_dim|headdim)", 8),
]  # fmt: skip

# Fields that hang together in a way of their own.
EXCEPTIONS = {}


def small(config_class, exceptions=None):
    """A config of this class with small numbers, its parts too."""
    from transformers import PreTrainedConfig

    default = config_class()
    changes = {}
    for name, value in list(vars(default).items()):
        public = name.removeprefix("_")
        if isinstance(value, PreTrainedConfig):
            changes[name] = small(type(value))
        elif name.endswith("_token_id") and type(value) is int and value >= VOCABULARY:
            changes[name] = 3
        elif type(value) is int and value > 1 and not name.startswith("_"):
            changes.update({public: new for pattern, new in SMALL[::-1] if re.fullmatch(pattern, name)})
        elif name in ("initializer_range", "init_std"):
            changes[name] = 0.3
    return config_class(**{**changes, **(exceptions or {})})


def build(model_type):
    """A random float32 model of this architecture, on which what is masked and remembered shows in the logits."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = small(CONFIG_MAPPING[model_type], EXCEPTIONS.get(model_type))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
