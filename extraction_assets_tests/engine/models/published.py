"""The hooks that SAELens's loaders give for each model of its registry, and the class that the model is published as.

Where a hook stands is written for the published class itself, by what its block's modules are called with and give.
"""

import fnmatch
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml


class Published(NamedTuple):
    """Models of one class with published SAEs."""

    models: tuple[str, ...]
    """As the registry names them; a name that ends with ``*`` is the beginning of several."""
    family: str
    """Of ``families.FAMILIES``, the configuration of a tiny one."""
    blocks: str
    """Path of the list of blocks in the class."""
    hooks: dict[str, str]
    """Hook with N for the number of a block -> module and side within the block."""


_STREAM = {"blocks.N.hook_resid_post": "output"}
_GPT2 = {
    **_STREAM,
    "blocks.N.hook_resid_pre": "input",
    "blocks.N.hook_resid_mid": "ln_2.input",
    "blocks.N.hook_attn_out": "attn.output",
    "blocks.N.hook_mlp_out": "mlp.output",
    "blocks.N.attn.hook_z": "attn.c_proj.input",
}
_PYTHIA = {
    **_STREAM,
    "blocks.N.hook_resid_pre": "input",
    "blocks.N.hook_attn_out": "attention.output",
    "blocks.N.hook_mlp_out": "mlp.output",
}
_GEMMA2 = {
    **_STREAM,
    "blocks.N.hook_mlp_out": "post_feedforward_layernorm.output",
    "blocks.N.attn.hook_z": "self_attn.o_proj.input",
    "blocks.N.hook_resid_mid": "pre_feedforward_layernorm.input",  # of cross-layer transcoders
}
_GEMMA3 = {
    **_STREAM,
    "blocks.N.hook_mlp_out": "post_feedforward_layernorm.output",
    "blocks.N.attn.hook_z": "self_attn.o_proj.input",
    "blocks.N.hook_mlp_in": "pre_feedforward_layernorm.input",
    # config.json of Gemma Scope 2
    "model.layers.N.output": "output",
    "model.layers.N.self_attn.o_proj.input": "self_attn.o_proj.input",
    "model.layers.N.pre_feedforward_layernorm.output": "pre_feedforward_layernorm.output",
    "model.layers.N.post_feedforward_layernorm.output": "post_feedforward_layernorm.output",
}
_LLAMA_SCOPE = {
    **_STREAM,
    "blocks.N.hook_attn_out": "self_attn.output",
    "blocks.N.hook_mlp_out": "mlp.output",
}
_QWEN_SCOPE = {**_STREAM, "model.layers.N": "output"}
_QWEN3 = {**_QWEN_SCOPE, "blocks.N.mlp.hook_in": "mlp.input", "blocks.N.hook_mlp_out": "mlp.output"}
_WITH_IMAGES = "model.language_model.layers"

PUBLISHED = {
    "GPT2LMHeadModel": Published(("gpt2-small",), "gpt2", "transformer.h", _GPT2),
    "GPTNeoXForCausalLM": Published(("pythia-70m-deduped",), "gpt_neox", "gpt_neox.layers", _PYTHIA),
    "GemmaForCausalLM": Published(("gemma-2b", "gemma-2b-it"), "gemma", "model.layers", _STREAM),
    "Gemma2ForCausalLM": Published(("gemma-2-*",), "gemma2", "model.layers", _GEMMA2),
    "Gemma3ForCausalLM": Published(
        ("google/gemma-3-270m*", "google/gemma-3-1b*"), "gemma3_text", "model.layers", _GEMMA3
    ),
    "Gemma3ForConditionalGeneration": Published(
        ("google/gemma-3-4b*", "google/gemma-3-12b*", "google/gemma-3-27b*"), "gemma3", _WITH_IMAGES, _GEMMA3
    ),
    "LlamaForCausalLM": Published(
        ("meta-llama/*", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"), "llama3", "model.layers", _LLAMA_SCOPE
    ),
    "MistralForCausalLM": Published(("mistral-7b",), "mistral", "model.layers", {"blocks.N.hook_resid_pre": "input"}),
    "Qwen2ForCausalLM": Published(("Qwen/Qwen2.5-*",), "qwen2", "model.layers", _STREAM),
    "Qwen3ForCausalLM": Published(
        ("qwen3-*", "Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-8B-Base"), "qwen3", "model.layers", _QWEN3
    ),
    "Qwen3MoeForCausalLM": Published(("Qwen/Qwen3-30B-A3B-Base",), "qwen3_moe", "model.layers", _QWEN_SCOPE),
    "Qwen3_5ForConditionalGeneration": Published(
        ("Qwen/Qwen3.5-2B-Base", "Qwen/Qwen3.5-9B-Base", "Qwen/Qwen3.5-27B"), "qwen3_5", _WITH_IMAGES, _QWEN_SCOPE
    ),
    "Qwen3_5MoeForConditionalGeneration": Published(
        ("Qwen/Qwen3.5-35B-A3B-Base",), "qwen3_5_moe", _WITH_IMAGES, _QWEN_SCOPE
    ),
    "Qwen3_5ForCausalLM": Published((), "qwen3_5_text", "model.layers", _QWEN_SCOPE),
    "Qwen3_5MoeForCausalLM": Published((), "qwen3_5_moe_text", "model.layers", _QWEN_SCOPE),
    "GptOssForCausalLM": Published(("openai/gpt-oss-20b",), "gpt_oss", "model.layers", _STREAM),
}
"""By class; the last ones of Qwen 3.5 without the part for images."""

WITHOUT_A_MODULE = {"gemma2": {"hook_embed", "blocks.N.ln2.hook_normalized"}}
"""Family -> hooks of its SAEs that are not what a module is called with or gives."""


def classes_of(model: str) -> list[str]:
    """The classes that a model of the registry may be."""
    return [
        name
        for name, published in PUBLISHED.items()
        if any(fnmatch.fnmatchcase(model, pattern) for pattern in published.models)
    ]


@cache
def registry() -> dict[str, Any]:
    """Releases of published SAEs, by name, as sae-lens has them."""
    spec = find_spec("sae_lens")
    if spec is None or spec.origin is None:
        pytest.skip("needs sae-lens")
    text = Path(spec.origin).with_name("pretrained_saes.yaml").read_text("utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # type: ignore[no-any-return]
