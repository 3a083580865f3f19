"""What TransformerLens's hook names mean in each family of models.

TransformerLens's block adds what ``hook_attn_out`` and ``hook_mlp_out`` hold to the residual stream, so in blocks with
norms behind attention and MLP (Gemma 2 and 3) these are the norms' outputs. ``hook_normalized`` is what an RMSNorm
multiplies by its gain, but the output of a LayerNorm, gain and bias included (so TransformerLens up to version 2, on
weights that are not folded). Gemma Scope's transcoders read ``ln2.hook_normalized`` so: they were trained on "input
activations just after the pre-MLP RMSNorm", with its gain folded into the MLP (arXiv:2408.05147v2, page 18), and give
what is added to the stream, behind the norm after the MLP (README of google/gemma-scope-2b-pt-transcoders).

With rotary positions ``hook_embed`` is what the first block reads, after the scaling by sqrt(d_model) of Gemma's
embeddings: TransformerLens multiplies ``W_E`` by it. Behind a gate on the attention (Qwen 3.5) ``hook_z`` is what the
output projection reads, after the gate.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Side = Literal["input", "output", "normalized"]
"""What a module is called with, what it gives, or what an RMSNorm multiplies by its gain."""

Points = Mapping[str, tuple[str, Side]]
"""TransformerLens's names within a block -> (path of a module within the block, side)."""


class Family(NamedTuple):
    """Where models of one layout keep the tensors that TransformerLens has names for."""

    blocks: str
    """Path of the list of blocks."""
    points: Points
    hook_embed: tuple[str, Side] | None = None
    """The embedded tokens; None where TransformerLens's versions mean different tensors."""
    missing: Mapping[str, str] = {}
    """Name that other families have -> why this one does not have it."""
    linear: "Family | None" = None
    """Blocks whose attention is linear, in families where only some blocks' is."""

    def in_block(self, config: Any, block: int) -> "Family":
        """The layout of one block of a model with this text configuration."""
        kinds = getattr(config, "layer_types", None) or []
        is_linear = self.linear is not None and block < len(kinds) and kinds[block] == "linear_attention"
        return self.linear if is_linear and self.linear is not None else self


_LLAMA: Points = {
    "hook_resid_pre": ("", "input"),
    "hook_resid_mid": ("post_attention_layernorm", "input"),
    "hook_resid_post": ("", "output"),
    "hook_attn_out": ("self_attn", "output"),
    "hook_mlp_in": ("post_attention_layernorm", "input"),
    "hook_mlp_out": ("mlp", "output"),
    "attn.hook_z": ("self_attn.o_proj", "input"),
    "ln1.hook_normalized": ("input_layernorm", "normalized"),
    "ln2.hook_normalized": ("post_attention_layernorm", "normalized"),
    "mlp.hook_in": ("mlp", "input"),
    "mlp.hook_out": ("mlp", "output"),
}
# Of Qwen 3.5 three blocks in four mix tokens by a gated delta net, which TransformerLens calls linear_attn.
_LINEAR: Points = {
    **{name: place for name, place in _LLAMA.items() if name not in ("hook_attn_out", "attn.hook_z")},
    "linear_attn.hook_in": ("linear_attn", "input"),
    "linear_attn.hook_out": ("linear_attn", "output"),
}
_GEMMA2: Points = {
    **_LLAMA,
    "hook_resid_mid": ("pre_feedforward_layernorm", "input"),
    "hook_attn_out": ("post_attention_layernorm", "output"),
    "hook_mlp_in": ("pre_feedforward_layernorm", "input"),
    "hook_mlp_out": ("post_feedforward_layernorm", "output"),
    "ln2.hook_normalized": ("pre_feedforward_layernorm", "normalized"),
}
_GPT2: Points = {
    "hook_resid_pre": ("", "input"),
    "hook_resid_mid": ("ln_2", "input"),
    "hook_resid_post": ("", "output"),
    "hook_attn_out": ("attn", "output"),
    "hook_mlp_in": ("ln_2", "input"),
    "hook_mlp_out": ("mlp", "output"),
    "attn.hook_z": ("attn.c_proj", "input"),
    "ln1.hook_normalized": ("ln_1", "output"),
    "ln2.hook_normalized": ("ln_2", "output"),
    "mlp.hook_in": ("mlp", "input"),
    "mlp.hook_out": ("mlp", "output"),
}
_GPT_NEOX: Points = {  # one after the other; Pythia's blocks are parallel
    "hook_resid_pre": ("", "input"),
    "hook_resid_mid": ("post_attention_layernorm", "input"),
    "hook_resid_post": ("", "output"),
    "hook_attn_out": ("attention", "output"),
    "hook_mlp_in": ("post_attention_layernorm", "input"),
    "hook_mlp_out": ("mlp", "output"),
    "attn.hook_z": ("attention.dense", "input"),
    "ln1.hook_normalized": ("input_layernorm", "output"),
    "ln2.hook_normalized": ("post_attention_layernorm", "output"),
    "mlp.hook_in": ("mlp", "input"),
    "mlp.hook_out": ("mlp", "output"),
}
_PHI: Points = {  # one norm feeds attention and MLP
    "hook_resid_pre": ("", "input"),
    "hook_resid_post": ("", "output"),
    "hook_attn_out": ("self_attn", "output"),
    "hook_mlp_in": ("", "input"),
    "hook_mlp_out": ("mlp", "output"),
    "attn.hook_z": ("self_attn.dense", "input"),
    "ln1.hook_normalized": ("input_layernorm", "output"),
    "ln2.hook_normalized": ("input_layernorm", "output"),
    "mlp.hook_in": ("mlp", "input"),
    "mlp.hook_out": ("mlp", "output"),
}
# Norms stand behind the additions, on the stream itself. hook_resid_post is what the next block reads, as in
# TransformerLens 3 and later; version 2's HookedEncoder called that hook_normalized_resid_post.
_BERT: Points = {
    "hook_resid_pre": ("", "input"),
    "hook_resid_post": ("", "output"),
    "hook_attn_out": ("attention.output.dense", "output"),
    "hook_mlp_out": ("output.dense", "output"),
    "attn.hook_z": ("attention.output.dense", "input"),
    "ln1.hook_normalized": ("attention.output.LayerNorm", "output"),
    "ln2.hook_normalized": ("output.LayerNorm", "output"),
    "mlp.hook_in": ("intermediate", "input"),
    "mlp.hook_out": ("output.dense", "output"),
}
_PARALLEL = {
    "hook_resid_mid": "attention and MLP of its blocks read the same stream, so no stream lies between them: take "
    "hook_resid_pre or hook_resid_post"
}
_POST_NORM = "TransformerLens's versions mean different tensors by it in a block with norms behind the additions: take "
_BERT_MISSING = {
    "hook_resid_mid": f"{_POST_NORM}encoder.layer.N.attention.output (after the norm) or "
    "encoder.layer.N.attention.output.LayerNorm.input (before it)",
    "hook_mlp_in": f"{_POST_NORM}mlp.hook_in (after the norm) or encoder.layer.N.attention.output.LayerNorm.input",
    "hook_embed": "TransformerLens's versions mean different tensors by it: take embeddings.word_embeddings, or "
    "blocks.0.hook_resid_pre for what the first block reads",
}
_ROTARY: tuple[str, Side] = ("layers.0", "input")
_LINEAR_MISSING = {
    "hook_attn_out": "the attention of this block is linear, which TransformerLens names otherwise: take "
    "blocks.N.linear_attn.hook_out",
    "attn.hook_z": "the attention of this block is linear, and TransformerLens has no hook_z there: take "
    "layers.N.linear_attn.out_proj.input, what its output projection reads",
}
_LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "phi3", "gemma", "gpt_oss")
_HYBRID = Family("layers", _LLAMA, _ROTARY, linear=Family("layers", _LINEAR, _ROTARY, _LINEAR_MISSING))

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(_LIKE_LLAMA, Family("layers", _LLAMA, _ROTARY)),
    **dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text"), _HYBRID),
    **dict.fromkeys(("gemma2", "gemma3_text"), Family("layers", _GEMMA2, _ROTARY)),
    "phi": Family("layers", _PHI, _ROTARY, _PARALLEL),
    "gpt2": Family("h", _GPT2, ("wte", "output")),
    "gpt_neox": Family("layers", _GPT_NEOX, _ROTARY),
    **dict.fromkeys(("bert", "roberta"), Family("encoder.layer", _BERT, None, _BERT_MISSING)),
}
"""By ``model_type`` of the model's text configuration."""


def family_of(config: Any) -> Family | None:
    """The layout of models with this text configuration; None if it is not known."""
    family = FAMILIES.get(getattr(config, "model_type", ""))
    if family and config.model_type == "gpt_neox" and config.use_parallel_residual:
        points = {name: place for name, place in _GPT_NEOX.items() if name not in _PARALLEL}
        return family._replace(points=points, missing=_PARALLEL)
    return family
