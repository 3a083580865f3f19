"""Tiny models with their heads, of every family with published SAEs and of others, and where their final norm is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor

from extraction_assets_tests.engine.families import D_MODEL, FAMILIES, GROUPED, NUM_BLOCKS, VOCABULARY, WIDE
from extraction_assets_tests.engine.models.published import PUBLISHED

_GPT: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": D_MODEL, "n_layer": NUM_BLOCKS, "n_head": 4}
_SHORT: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": D_MODEL}
_LAYERS: dict[str, Any] = {**_SHORT, "num_hidden_layers": NUM_BLOCKS, "num_attention_heads": 4}


class WithHead(NamedTuple):
    """A class of transformers with an unembedding."""

    config: Callable[[], Any]
    norm: str
    """Path of the final norm."""
    blocks: str
    """Path of the list of blocks."""


_OF_PUBLISHED = {
    name: WithHead(
        FAMILIES[one.family].config,
        f"{one.blocks.rpartition('.')[0]}.{str(FAMILIES[one.family].final_norm).rpartition('.')[2]}",
        one.blocks,
    )
    for name, one in PUBLISHED.items()
}
_PHI, _MODEL = FAMILIES["phi"].config, "model.layers"
MODELS: dict[str, WithHead] = {
    **_OF_PUBLISHED,
    "PhiForCausalLM": WithHead(_PHI, "model.final_layernorm", _MODEL),
    "Phi3ForCausalLM": WithHead(FAMILIES["phi3"].config, "model.norm", _MODEL),
    "MixtralForCausalLM": WithHead(
        lambda: transformers.MixtralConfig(**WIDE, num_local_experts=4), "model.norm", _MODEL
    ),
    "OlmoForCausalLM": WithHead(lambda: transformers.OlmoConfig(**GROUPED), "model.norm", _MODEL),
    "Olmo2ForCausalLM": WithHead(lambda: transformers.Olmo2Config(**GROUPED), "model.norm", _MODEL),
    "FalconForCausalLM": WithHead(lambda: transformers.FalconConfig(**_LAYERS), "transformer.ln_f", "transformer.h"),
    "BloomForCausalLM": WithHead(
        lambda: transformers.BloomConfig(**_SHORT, n_layer=NUM_BLOCKS, n_head=4), "transformer.ln_f", "transformer.h"
    ),
    "OPTForCausalLM": WithHead(
        lambda: transformers.OPTConfig(**_LAYERS, ffn_dim=40, max_position_embeddings=32, word_embed_proj_dim=D_MODEL),
        "model.decoder.final_layer_norm",
        "model.decoder.layers",
    ),
    "GPTJForCausalLM": WithHead(
        lambda: transformers.GPTJConfig(**_GPT, rotary_dim=2, n_positions=32), "transformer.ln_f", "transformer.h"
    ),
    "StableLmForCausalLM": WithHead(lambda: transformers.StableLmConfig(**GROUPED), "model.norm", _MODEL),
    "CohereForCausalLM": WithHead(lambda: transformers.CohereConfig(**GROUPED), "model.norm", _MODEL),
    "GraniteForCausalLM": WithHead(
        lambda: transformers.GraniteConfig(**GROUPED, logits_scaling=4.0), "model.norm", _MODEL
    ),
    "NemotronForCausalLM": WithHead(lambda: transformers.NemotronConfig(**GROUPED), "model.norm", _MODEL),
    "MptForCausalLM": WithHead(
        lambda: transformers.MptConfig(
            d_model=D_MODEL, n_heads=4, n_layers=NUM_BLOCKS, vocab_size=VOCABULARY, max_seq_len=32
        ),
        "transformer.norm_f",
        "transformer.blocks",
    ),
    "Starcoder2ForCausalLM": WithHead(lambda: transformers.Starcoder2Config(**GROUPED), "model.norm", _MODEL),
}


def save_with_head(folder: Path, name: str, *, tied: bool | None = None, **options: Any) -> Any:
    """A model of class ``name`` with every parameter random, saved in ``folder``; ``options`` are those of saving."""
    torch.manual_seed(sorted(MODELS).index(name))
    config = MODELS[name].config()
    if tied is not None:
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = tied
    whole = getattr(transformers, name)._from_config(config)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    whole.save_pretrained(folder, **options)
    return whole.eval().requires_grad_(False)


def lens_by_the_model(whole: Any, norm: str, rows: Tensor) -> Tensor:
    """The logit lens of float32 [n, D] by the model's own final norm and head: what they give of a very large stream in
    a row's direction, times its size, without what they give of none. float64 [n, V]."""
    module, head = whole.get_submodule(norm), whole.get_output_embeddings()
    size = 1e4

    def run(stream: Tensor) -> Tensor:
        return torch.nn.functional.linear(module(stream).double(), head.weight.double())

    centred = rows - rows.mean(dim=1, keepdim=True)
    shifted = module(rows * size + size) - module(rows * size)  # a LayerNorm does not see a shift
    moved = centred if float(shifted.abs().max()) < 1e-2 else rows
    return (run(rows * size) - run(rows * 0)) * moved.double().square().mean(dim=1, keepdim=True).sqrt()
