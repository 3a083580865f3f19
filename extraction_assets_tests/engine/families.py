"""A tiny random model of every family, saved as its users would have it, and where each keeps its parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoModel,
    BertConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3_5Config,
    Qwen3_5MoeConfig,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    RobertaConfig,
    SiglipVisionConfig,
)

VOCABULARY, D_MODEL, D_Z, NUM_BLOCKS = 50, 16, 24, 3


class Layout(NamedTuple):
    """Where a model keeps what the tests compute with."""

    config: Callable[[], Any]
    blocks: str
    projection: str
    """The attention's output projection within a block."""
    final_norm: str | None
    kind: str = "sequential"
    """``sequential``, ``parallel`` or ``post-norm``."""
    d_z: int = D_MODEL
    """Heads times width of a head; it differs from the model's width wherever the family lets it."""
    second_norm: str = "post_attention_layernorm"
    """The norm before the MLP."""
    behind: tuple[str, str] | None = None
    """Norms behind attention and MLP, before what they give is added."""
    linear: tuple[int, ...] = ()
    """Blocks whose attention is linear."""


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": 40,
    "num_hidden_layers": NUM_BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
PARTLY: dict[str, Any] = {**SIZES, "num_attention_heads": 2}  # a quarter of a head's width rotates: 2 of 8
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "pad_token_id": 0}
WIDE: dict[str, Any] = {**GROUPED, "head_dim": 6}
WINDOW: dict[str, Any] = {"sliding_window": 4}
MIXED: dict[str, Any] = {**WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
CAPPED: dict[str, Any] = {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 6}  # most scores are larger
BEHIND: dict[str, Any] = {
    "d_z": D_Z,
    "second_norm": "pre_feedforward_layernorm",
    "behind": ("post_attention_layernorm", "post_feedforward_layernorm"),
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DELTA: dict[str, Any] = {  # a gated delta net in two blocks of three
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 6,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "head_dim": 8,  # a quarter of it rotates
}
QWEN3_5: dict[str, Any] = {**GROUPED, **DELTA}
QWEN3_5_MOE: dict[str, Any] = {
    **{name: size for name, size in QWEN3_5.items() if name != "intermediate_size"},
    **EXPERTS,
    "shared_expert_intermediate_size": 16,
}
HYBRID: dict[str, Any] = {"d_z": 32, "linear": (0, 2)}
LLAMA3: dict[str, Any] = {  # of Llama 3.1 and 3.3
    "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 16},
}
GPT_OSS: dict[str, Any] = {
    **WIDE,
    **MIXED,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "rope_theta": 150000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
    | {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
}


def _qwen3_5_with_images() -> Qwen3_5Config:
    return Qwen3_5Config(text_config=Qwen3_5TextConfig(**QWEN3_5).to_dict(), **_QWEN3_5_IMAGES)


def _qwen3_5_moe_with_images() -> Qwen3_5MoeConfig:
    return Qwen3_5MoeConfig(text_config=Qwen3_5MoeTextConfig(**QWEN3_5_MOE).to_dict(), **_QWEN3_5_IMAGES)


_QWEN3_5_IMAGES: dict[str, Any] = {
    "vision_config": {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "patch_size": 2}
    | {"out_hidden_size": D_MODEL, "num_position_embeddings": 4},
    **{f"{name}_token_id": VOCABULARY - 1 for name in ("image", "video", "vision_start", "vision_end")},
}


def _gemma3_with_images() -> Gemma3Config:
    text = Gemma3TextConfig(**WIDE, **MIXED)
    vision = SiglipVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        vision_use_head=False,
    )
    return Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=49)


FAMILIES: dict[str, Layout] = {
    "llama": Layout(lambda: LlamaConfig(**WIDE), "layers", "self_attn.o_proj", "norm", d_z=D_Z),
    "mistral": Layout(lambda: MistralConfig(**WIDE, **WINDOW), "layers", "self_attn.o_proj", "norm", d_z=D_Z),
    "gemma": Layout(lambda: GemmaConfig(**WIDE), "layers", "self_attn.o_proj", "norm", d_z=D_Z),
    "gemma2": Layout(lambda: Gemma2Config(**WIDE, **MIXED, **CAPPED), "layers", "self_attn.o_proj", "norm", **BEHIND),
    "gemma3_text": Layout(lambda: Gemma3TextConfig(**WIDE, **MIXED), "layers", "self_attn.o_proj", "norm", **BEHIND),
    "gemma3": Layout(_gemma3_with_images, "language_model.layers", "self_attn.o_proj", "language_model.norm", **BEHIND),
    "qwen2": Layout(
        lambda: Qwen2Config(**GROUPED, **MIXED, use_sliding_window=True), "layers", "self_attn.o_proj", "norm"
    ),
    "qwen3": Layout(lambda: Qwen3Config(**WIDE), "layers", "self_attn.o_proj", "norm", d_z=D_Z),
    "llama3": Layout(lambda: LlamaConfig(**WIDE, **LLAMA3), "layers", "self_attn.o_proj", "norm", d_z=D_Z),
    "qwen3_moe": Layout(lambda: Qwen3MoeConfig(**WIDE, **EXPERTS), "layers", "self_attn.o_proj", "norm", d_z=D_Z),
    "qwen3_5_text": Layout(lambda: Qwen3_5TextConfig(**QWEN3_5), "layers", "self_attn.o_proj", "norm", **HYBRID),
    "qwen3_5": Layout(
        _qwen3_5_with_images, "language_model.layers", "self_attn.o_proj", "language_model.norm", **HYBRID
    ),
    "qwen3_5_moe_text": Layout(
        lambda: Qwen3_5MoeTextConfig(**QWEN3_5_MOE), "layers", "self_attn.o_proj", "norm", **HYBRID
    ),
    "qwen3_5_moe": Layout(
        _qwen3_5_moe_with_images, "language_model.layers", "self_attn.o_proj", "language_model.norm", **HYBRID
    ),
    "gpt_oss": Layout(lambda: GptOssConfig(**GPT_OSS), "layers", "self_attn.o_proj", "norm", d_z=D_Z),
    "phi": Layout(lambda: PhiConfig(**GROUPED), "layers", "self_attn.dense", "final_layernorm", "parallel"),
    "phi3": Layout(lambda: Phi3Config(**GROUPED, **WINDOW), "layers", "self_attn.o_proj", "norm"),
    "gpt2": Layout(
        lambda: GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=D_MODEL, n_layer=NUM_BLOCKS, n_head=4),
        "h",
        "attn.c_proj",
        "ln_f",
        second_norm="ln_2",
    ),
    "gpt_neox": Layout(lambda: GPTNeoXConfig(**PARTLY), "layers", "attention.dense", "final_layer_norm", "parallel"),
    "gpt_neox_sequential": Layout(
        lambda: GPTNeoXConfig(**PARTLY, use_parallel_residual=False), "layers", "attention.dense", "final_layer_norm"
    ),
    "bert": Layout(lambda: BertConfig(**SIZES), "encoder.layer", "attention.output.dense", None, "post-norm"),
    "roberta": Layout(
        lambda: RobertaConfig(**SIZES | {"max_position_embeddings": 34}),
        "encoder.layer",
        "attention.output.dense",
        None,
        "post-norm",
    ),
}

WITH_IMAGES = ("gemma3", "qwen3_5", "qwen3_5_moe")
"""Families whose class holds a model of images beside that of text."""


def make_model(folder: Path, family: str) -> str:
    """Saves a model of which every parameter is random, gains and biases too."""
    save_model(AutoModel.from_config, folder, family)
    return str(folder)


def save_model(make: Callable[[Any], Any], folder: Path, family: str) -> Any:
    """What ``make`` makes of a family's configuration, with every parameter random, saved in ``folder``."""
    torch.manual_seed(sorted(FAMILIES).index(family))
    model = make(FAMILIES[family].config())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
            if name.endswith("A_log"):
                parameter.sub_(4)  # so that linear attention remembers more than a chunk of 64 tokens
    model.save_pretrained(folder)
    if family == "gemma2":
        model.set_attn_implementation("eager")  # otherwise transformers before 5.22 leaves out the cap
    return model.eval().requires_grad_(False)
