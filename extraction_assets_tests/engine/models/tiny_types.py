"""Tiny configurations of transformers' model types of text, made from one set of sizes."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "n_positions", "max_position_embeddings", "max_seq_len", "n_ctx"), 64),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim", "emb_dim"), 16
    ),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "hidden_dim", "n_inner"), 32),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_experts_per_tok", "expand"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "attention_window"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("head_dim", "d_kv", "q_lora_rank", "kv_lora_rank", "v_head_dim", "mamba_d_head"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim", "state_size", "mamba_d_state"), 4),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "num_groups", "mamba_n_groups"), 1),
    "mamba_n_heads": 4,
    "mamba_expand": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

OWN_SIZES: dict[str, dict[str, Any]] = {
    "falcon": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "vocab_size": 64, "alibi": False}
    | {"parallel_attn": True},
    "big_bird": {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"intermediate_size": 32, "max_position_embeddings": 64, "attention_type": "original_full"},
    "gpt_neo": {"vocab_size": 64, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 64}
    | {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"vocab_size": 64, "hidden_size": 16, "num_heads": 4, "head_dim": 8, "state_size": 4, "n_groups": 1}
    | {"num_hidden_layers": 2},
    "xlnet": {"vocab_size": 64, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
}
"""Of types that take other names of sizes."""

TYPES = (
    *(
        "albert",
        "apertus",
        "arcee",
        "bamba",
        "bart",
        "bert",
        "bert-generation",
        "big_bird",
        "biogpt",
        "bitnet",
        "bloom",
    ),
    *(
        "camembert",
        "cohere",
        "cohere2",
        "ctrl",
        "cwm",
        "deberta",
        "deberta-v2",
        "distilbert",
        "doge",
        "electra",
        "ernie",
    ),
    *("ernie4_5", "esm", "eurobert", "exaone4", "falcon", "flaubert", "gemma", "gemma2", "gemma3_text", "glm", "glm4"),
    *("gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "helium", "jetmoe"),
    *("lfm2", "llama", "mamba", "mamba2", "marian", "megatron-bert", "ministral", "mistral", "mixtral", "modernbert"),
    *("mpnet", "mpt", "nemotron", "olmo", "olmo2", "olmoe", "openai-gpt", "opt", "pegasus", "persimmon", "phi", "phi3"),
    *("phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "rembert", "roberta", "roformer", "rwkv", "smollm3"),
    *("stablelm", "starcoder2", "t5", "xglm", "xlm", "xlm-roberta"),
)
"""Model types whose numbers are their own, whatever stands beside a sample."""

READS_PADDING = ("convbert", "fnet", "mobilebert", "nystromformer", "yoso")
"""Encoders in which padding has a part: convolutions, a Fourier transform, landmarks of attention, hashes."""


def tiny_config(model_type: str) -> Any:
    """A configuration of two narrow layers, of at most 64 positions and 64 tokens."""
    made = CONFIG_MAPPING[model_type]
    if model_type in OWN_SIZES:
        return made(**OWN_SIZES[model_type])
    base = made()
    sizes = {name: size for name, size in SIZES.items() if isinstance(getattr(base, name, []), (int, type(None)))}
    sizes = {name: size for name, size in sizes.items() if hasattr(base, name)}
    if getattr(base, "layer_types", None) and "layer_types" in vars(base):
        kinds = list(dict.fromkeys(base.layer_types))
        sizes["layer_types"] = (kinds * 2)[:2]
    return made(**sizes)


def tiny_model(model_type: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model of random weights, gains and biases too."""
    torch.manual_seed(0)
    model: Any = AutoModel.from_config(tiny_config(model_type), dtype=dtype).eval()
    model.config.get_text_config().use_cache = False
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model  # type: ignore[no-any-return]
