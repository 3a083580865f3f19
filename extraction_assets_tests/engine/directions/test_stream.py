"""Which hooks are part of the residual stream, in every family: by what a pass adds up, not by names."""

from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.engine.directions.stream import NotDefined, follow
from extraction_assets.engine.models.hooks.hook import read_at, resolve_hook
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.directions.models import MODELS, save_with_head
from extraction_assets_tests.engine.families import D_MODEL
from extraction_assets_tests.engine.models.published import PUBLISHED

INSIDE = {"input", "output", "ln_2.input", "attn.output", "mlp.output", "self_attn.output", "attention.output"}
INSIDE |= {"pre_feedforward_layernorm.input", "post_feedforward_layernorm.output"}
OUTSIDE = {"attn.c_proj.input", "self_attn.o_proj.input", "pre_feedforward_layernorm.output", "mlp.input"}
"""Where published SAEs read: what is added to the stream, or is the stream, and what is neither."""

MORE = {
    "LlamaForCausalLM": {
        "model.embed_tokens": True,
        "model.layers.1.mlp.down_proj": True,
        "model.layers.1.self_attn.o_proj": True,
        "model.layers.1.self_attn.k_proj": False,
        "model.layers.1.mlp.act_fn": False,
        "model.layers.1.input_layernorm": False,
        "blocks.1.ln2.hook_normalized": False,
        "hook_embed": True,
        "model.norm": False,
    },
    "Gemma2ForCausalLM": {
        "model.layers.1.mlp": False,  # a norm stands between it and the sum
        "model.layers.1.self_attn": False,
        "blocks.1.hook_attn_out": True,
        "model.embed_tokens": True,  # scaled within its module
        "blocks.1.ln2.hook_normalized": False,
    },
    "GPT2LMHeadModel": {"hook_embed": True, "transformer.h.1.mlp.c_fc": False},
    "GPTNeoXForCausalLM": {"gpt_neox.layers.1.attention.dense": True, "gpt_neox.layers.1.mlp.act": False},
    "FalconForCausalLM": {"transformer.h.1.mlp": True, "transformer.h.1.self_attention": True},  # added in place
    "GraniteForCausalLM": {"model.layers.1": True, "model.layers.1.mlp": False},  # multiplied before it is added
    "Olmo2ForCausalLM": {"model.layers.1.mlp": False, "model.layers.1.post_feedforward_layernorm": True},
    "MixtralForCausalLM": {"model.layers.1.mlp": True, "model.layers.1.post_attention_layernorm": False},
}


def is_inside(folder: Path, hook: str) -> bool:
    try:
        return bool(follow(local(folder), hook).norm)
    except NotDefined as error:
        if f"hook {hook} is not part of the residual stream" in str(error):
            return False
        raise


@pytest.mark.parametrize("name", PUBLISHED)
def test_hooks_of_published_saes(name: str, tmp_path: Path) -> None:
    save_with_head(tmp_path, name)
    for hook, place in PUBLISHED[name].hooks.items():
        assert is_inside(tmp_path, hook.replace("N", "1")) is (place in INSIDE), (hook, place)
        assert place in INSIDE | OUTSIDE


@pytest.mark.parametrize("name", MORE)
def test_other_hooks(name: str, tmp_path: Path) -> None:
    save_with_head(tmp_path, name)
    assert {hook: is_inside(tmp_path, hook) for hook in MORE[name]} == MORE[name]


@pytest.mark.parametrize("name", MODELS)
def test_the_final_norm_is_that_of_the_class(name: str, tmp_path: Path) -> None:
    save_with_head(tmp_path, name)
    assert follow(local(tmp_path), f"{MODELS[name].blocks}.1").norm == MODELS[name].norm


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("LlamaForCausalLM", "model.layers.2.mlp"),
        ("Gemma2ForCausalLM", "blocks.2.hook_mlp_out"),
        ("GPTNeoXForCausalLM", "blocks.2.hook_attn_out"),
        ("GPT2LMHeadModel", "blocks.2.hook_resid_post"),
    ],
)
def test_what_is_added_inside_arrives_at_the_final_norm_as_it_is(name: str, hook: str, tmp_path: Path) -> None:
    """Of the last block, behind which nothing reads the stream but the norm."""
    whole, direction = save_with_head(tmp_path, name), torch.randn(D_MODEL)
    site = resolve_hook(whole, hook)
    given: list[Any] = []
    read_at(whole, resolve_hook(whole, f"{MODELS[name].norm}.input"), given.append)

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        first, *rest = output if isinstance(output, tuple) else (output,)
        return (first + direction, *rest) if isinstance(output, tuple) else first + direction

    ids = torch.tensor([[3, 1, 4]])
    whole(input_ids=ids)
    whole.get_submodule(site.path).register_forward_hook(add)
    whole(input_ids=ids)
    assert is_inside(tmp_path, hook)
    torch.testing.assert_close(given[1] - given[0], direction.expand(1, 3, -1), rtol=1e-4, atol=1e-4)


def test_a_model_that_keeps_no_cache_is_followed(tmp_path: Path) -> None:
    whole = save_with_head(tmp_path, "LlamaForCausalLM")
    whole.config.use_cache = False
    whole.config.save_pretrained(tmp_path)
    assert is_inside(tmp_path, "model.layers.1")
