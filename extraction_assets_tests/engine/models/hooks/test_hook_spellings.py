"""Spellings of a hook, and what is said of a hook that is not there."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, BartConfig, OPTConfig

from extraction_assets.engine.models.hooks.hook import HookError, Site, resolve_hook
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import FAMILIES, VOCABULARY, make_model

token_ids = torch.randint(3, VOCABULARY - 2, (2, 7), generator=torch.Generator().manual_seed(0))
mask = torch.ones_like(token_ids).bool()


class Made(NamedTuple):
    path: str
    full: Any
    """The whole model as transformers loads it."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    folder = tmp_path_factory.mktemp("spellings")

    @cache
    def make(family: str) -> Made:
        path = make_model(folder / family, family)
        return Made(path, AutoModel.from_pretrained(path, dtype=torch.float32).eval().requires_grad_(False))

    return make


@pytest.mark.parametrize(
    ("hook", "path", "side"),
    [
        ("layers.1", "layers.1", "output"),
        ("model.layers.1", "layers.1", "output"),
        ("layers.1.output", "layers.1", "output"),
        ("model.layers.1.output", "layers.1", "output"),
        ("blocks.1.hook_resid_post", "layers.1", "output"),
        ("blocks.01.hook_resid_post", "layers.1", "output"),
        ("model.layers.1.mlp.input", "layers.1.mlp", "input"),
        ("blocks.1.mlp.hook_in", "layers.1.mlp", "input"),
        ("blocks.0.attn.hook_z", "layers.0.self_attn.o_proj", "input"),
    ],
)
def test_one_tensor_has_several_names(hook: str, path: str, side: Any, run: Callable[[str], Made]) -> None:
    assert resolve_hook(run("llama").full, hook) == Site(path, side)


def test_two_names_of_one_tensor_are_captured_once(run: Callable[[str], Made]) -> None:
    hooks = ["layers.1", "model.layers.1.output", "blocks.1.hook_resid_post"]
    model = load_language_model(local(run("llama").path), hooks)
    model.activations(token_ids, mask)  # the first batch is watched to the end
    model.module.get_submodule("layers.2").register_forward_pre_hook(lambda *_: pytest.fail("a later block ran"))
    outputs = model.activations(token_ids, mask)
    assert list(outputs) == hooks
    assert outputs[hooks[0]] is outputs[hooks[1]] is outputs[hooks[2]]


@pytest.mark.parametrize(
    ("hook", "path", "side"),
    [
        ("encoder.layer.0.output", "encoder.layer.0.output", "output"),
        ("encoder.layer.0.output.output", "encoder.layer.0.output", "output"),
        ("encoder.layer.0.output.input", "encoder.layer.0.output", "input"),
        ("bert.encoder.layer.0.attention.output.input", "encoder.layer.0.attention.output", "input"),
        ("encoder.layer.0.input", "encoder.layer.0", "input"),
    ],
)
def test_a_module_called_output_comes_before_the_side(
    hook: str, path: str, side: Any, run: Callable[[str], Made]
) -> None:
    assert resolve_hook(run("bert").full, hook) == Site(path, side)


@pytest.mark.parametrize("hook", ["layers.1", "model.layers.1", "language_model.layers.1", "blocks.1.hook_resid_post"])
def test_the_text_of_a_model_with_images_needs_no_prefix(hook: str, run: Callable[[str], Made]) -> None:
    assert resolve_hook(run("gemma3").full, hook) == Site("language_model.layers.1", "output")


@pytest.mark.parametrize(
    "hook", ["layers.0.linear_attn.out_proj.input", "model.language_model.layers.0.linear_attn.out_proj.input"]
)
def test_what_an_error_says_to_take_in_linear_attention_exists(hook: str, run: Callable[[str], Made]) -> None:
    assert resolve_hook(run("qwen3_5").full, hook) == Site("language_model.layers.0.linear_attn.out_proj", "input")


@pytest.mark.parametrize("hook", ["transformer.h.1", "h.1", "blocks.1.hook_resid_post"])
def test_a_model_with_its_head_has_the_same_hooks(hook: str, run: Callable[[str], Made]) -> None:
    whole = AutoModelForCausalLM.from_config(FAMILIES["gpt2"].config())
    assert resolve_hook(whole, hook) == Site("transformer.h.1", "output")


@pytest.mark.parametrize("hook", ["encoder.layers.0", "model.encoder.layers.0"])
def test_an_encoder_beside_a_decoder_has_to_be_named(hook: str) -> None:
    sizes = {
        f"{part}_{size}": 1 for part in ("encoder", "decoder") for size in ("layers", "attention_heads", "ffn_dim")
    }
    both = AutoModel.from_config(BartConfig(vocab_size=9, max_position_embeddings=8, d_model=4, **sizes))
    assert resolve_hook(both, hook) == Site("encoder.layers.0", "output")
    with pytest.raises(HookError, match=r"no module 'layers\.0'; near names: .*encoder\.layers\.0"):
        resolve_hook(both, "layers.0")


def test_inputs_given_by_name_are_read(run: Callable[[str], Made]) -> None:
    llama = run("llama")
    names = ["layers.1.self_attn.input", "layers.1.input"]
    attention, stream = load_language_model(local(llama.path), names).activations(token_ids, mask).values()
    torch.testing.assert_close(attention, llama.full.layers[1].input_layernorm(stream))


# Hooks that are not there


@pytest.mark.parametrize(
    ("family", "hook", "message"),
    [
        ("llama", "blocks.3.hook_resid_pre", "it has 3 blocks, blocks.0.hook_resid_pre to blocks.2.hook_resid_pre"),
        ("llama", "blocks.1.hook_residpost", "no hook 'blocks.1.hook_residpost'; near names: blocks.1.hook_resid_post"),
        ("llama", "blocks.9.hook_z", "near names: .*blocks.2.attn.hook_z"),
        ("llama", "hook_pos_embed", "near names: .*hook_embed"),
        ("qwen3_5", "blocks.0.hook_attn_out", "of this block is linear, .* take blocks.0.linear_attn.hook_out"),
        ("qwen3_5", "blocks.2.attn.hook_z", r"of this block is linear, .* take layers.2.linear_attn.out_proj.input"),
        ("qwen3_5", "blocks.1.linear_attn.hook_out", "near names: .*blocks.1.hook_attn_out"),
        ("qwen3_5", "blocks.3.hook_attn_out", "it has 3 blocks, blocks.1.hook_attn_out to blocks.1.hook_attn_out"),
        ("llama", "layers.9.output", "no module 'layers.9'; near names: .*layers.1"),
        ("llama", "layers.1.hook_resid_pre", "near names: blocks.0.hook_resid_pre"),
        ("gemma3", "model.layers.9", r"near names: model.language_model.layers.\d,"),
        ("qwen3_5", "model.layers.1.outputs", "near names: model.language_model.layers.1"),
        ("gemma3", "model.layers.1x.input", "near names: .*model.language_model.layers.1"),
        ("bert", "blocks.1.hook_resid_mid", "take encoder.layer.1.attention.output .* or encoder.layer.1.att"),
        ("bert", "hook_embed", "take embeddings.word_embeddings"),
        ("bert", "encoder.layer.9.output", "no module 'encoder.layer.9'; near names: encoder.layer"),
    ],
)
def test_an_unknown_hook_says_what_there_is(family: str, hook: str, message: str, run: Callable[[str], Made]) -> None:
    with pytest.raises(HookError, match=message):
        resolve_hook(run(family).full, hook)


def test_a_transformer_lens_name_of_an_unknown_family_asks_for_a_path() -> None:
    model = AutoModel.from_config(
        OPTConfig(vocab_size=9, hidden_size=4, ffn_dim=4, num_hidden_layers=1, num_attention_heads=1, pad_token_id=0)
    )
    with pytest.raises(HookError, match=r"a model of type 'opt' .* give the dotted path of a module, with \.input or"):
        resolve_hook(model, "blocks.0.hook_resid_pre")
    assert resolve_hook(model, "decoder.layers.0.input") == Site("decoder.layers.0", "input")
    with pytest.raises(HookError, match="a model of type 'Linear'"):
        resolve_hook(nn.Linear(1, 1), "blocks.0.hook_resid_pre")


def test_a_module_of_that_name_comes_before_transformer_lens() -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"hook_resid_pre": nn.Identity()})])})
    assert resolve_hook(model, "blocks.0.hook_resid_pre") == Site("blocks.0.hook_resid_pre", "output")
