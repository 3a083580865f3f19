"""Every name of the checkpoint's own class is a hook or has its reason, and every suggestion works."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModel

from extraction_assets.engine.models.hooks.hook import HookError, Site, find_hook, resolve_hook
from extraction_assets.engine.models.language_model import load_language_model, probe_hooks
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import FAMILIES, make_model
from extraction_assets_tests.engine.models.tiny_types import tiny_config

OWN = {
    "LlamaForCausalLM": ("llama", "lm_head"),
    "LlamaForSequenceClassification": ("llama", "score"),
    "Gemma3ForConditionalGeneration": ("gemma3", "lm_head"),
    "Qwen3_5ForConditionalGeneration": ("qwen3_5", "lm_head"),
    "Qwen3_5MoeForCausalLM": ("qwen3_5_moe_text", "lm_head"),
    "GptOssForCausalLM": ("gpt_oss", "lm_head"),
    "GPT2LMHeadModel": ("gpt2", "lm_head"),
    "GPTNeoXForCausalLM": ("gpt_neox", "lm_head"),
    "BertForMaskedLM": ("bert", "cls"),
    "BertForSequenceClassification": ("bert", "dropout", "classifier"),
    "RobertaForMaskedLM": ("roberta", "lm_head"),
    "PhiForCausalLM": ("phi", "lm_head"),
    "T5ForConditionalGeneration": ("t5", "lm_head"),
    "T5EncoderModel": ("t5",),
    "AlbertForMaskedLM": ("albert", "predictions"),
    "MptForCausalLM": ("mpt", "lm_head"),
    "OPTForCausalLM": ("opt", "lm_head"),
    "MambaForCausalLM": ("mamba", "lm_head"),
    "DistilBertForMaskedLM": ("distilbert", "activation", "vocab_", "mlm_loss_fct"),
}
"""Class -> its configuration, and what its names beside the model begin with."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, str]]:
    """A model of a class of its own, and the folder where it lies."""
    folder, made = tmp_path_factory.mktemp("own"), dict[str, tuple[Any, str]]()

    def make(name: str) -> tuple[Any, str]:
        if name not in made:
            model_type = OWN[name][0]
            config = FAMILIES[model_type].config() if model_type in FAMILIES else tiny_config(model_type)
            torch.manual_seed(0)
            own = getattr(transformers, name)(config)
            own.save_pretrained(folder / name)
            made[name] = own, str(folder / name)
        return made[name]

    return make


@pytest.mark.parametrize("name", OWN)
def test_every_name_of_the_own_class_is_that_module_or_a_head(
    name: str, saved: Callable[[str], tuple[Any, str]]
) -> None:
    own, path = saved(name)
    model = AutoModel.from_pretrained(path)
    for hook, module in own.named_modules():
        if not hook:
            continue
        if hook.startswith(OWN[name][1:]) and len(OWN[name]) > 1:
            with pytest.raises(HookError, match=rf"is in {name} beyond .* take a module of the model beneath it, such"):
                resolve_hook(model, hook)
        else:
            found = model.get_submodule(resolve_hook(model, hook).path)
            assert type(found) is type(module), hook
            mine, theirs = ([p.shape for p in one.parameters(recurse=False)] for one in (found, module))
            assert mine == theirs, hook


def test_a_gemma_with_images_takes_the_names_of_its_own_class(saved: Callable[[str], tuple[Any, str]]) -> None:
    _, path = saved("Gemma3ForConditionalGeneration")
    hook = "model.language_model.layers.1"
    assert probe_hooks(local(path), [hook, "language_model.layers.1", "layers.1"]).keys() >= {hook}
    ids = torch.arange(3, 13).reshape(2, 5)
    outputs = load_language_model(local(path), [hook, "blocks.1.hook_resid_post"]).activations(
        ids, torch.ones_like(ids).bool()
    )
    assert torch.equal(*outputs.values())


def test_the_model_under_its_name_gives_its_last_hidden_state(saved: Callable[[str], tuple[Any, str]]) -> None:
    own, path = saved("LlamaForCausalLM")
    ids = torch.arange(3, 13).reshape(2, 5)
    [output] = load_language_model(local(path), ["model"]).activations(ids, torch.ones_like(ids).bool()).values()
    with torch.inference_mode():
        torch.testing.assert_close(output, own.eval().model(input_ids=ids).last_hidden_state)


def suggestions(message: str) -> list[str]:
    return re.split("near names: |such as ", message)[-1].split(", ")


@pytest.mark.parametrize(
    ("family", "hook"),
    [
        ("llama", "model.layers.9"),
        ("llama", "layer.1"),
        ("llama", "layers.1.mpl"),
        ("llama", "blocks.1.hook_resid_pst"),
        ("llama", "blocks.1.resid_post"),
        ("llama", "blocks.7.resid_mid"),
        ("llama", "block.1.hook_resid_post"),
        ("llama", "blocks.1.attn.z"),
        ("llama", "hook_embedd"),
        ("gemma3", "model.language_model.layers.7"),
        ("gemma3", "model.layers.1x"),
        ("gemma3", "model.vision.layers.0"),
        ("gemma3", "language_model.layer.1.input"),
        ("bert", "bert.encoder.layers.1"),
        ("bert", "encoder.layer.1.outputs"),
        ("gpt2", "transformer.layers.1"),
        ("phi", "blocks.1.resid_mid"),
        ("qwen3_5", "blocks.0.attn_out"),
        ("qwen3_5", "blocks.2.attn.z"),
        ("qwen3_5_moe", "model.language_model.layers.0.self_attn"),
    ],
)
def test_every_suggestion_works(family: str, hook: str, tmp_path: Path) -> None:
    path = make_model(tmp_path, family)
    with pytest.raises(HookError, match="near names: ") as caught:
        probe_hooks(local(path), [hook])
    near = suggestions(str(caught.value))
    assert near
    assert set(probe_hooks(local(path), near)) == set(near)


@pytest.mark.parametrize(
    ("hook", "near"),
    [
        ("blocks.1.hook_resid_pst", "blocks.1.hook_resid_post"),
        ("blocks.1.resid_post", "blocks.1.hook_resid_post"),
        ("blocks.2.mlp_out", "blocks.2.hook_mlp_out"),
        ("blocks.1.attn.z", "blocks.1.attn.hook_z"),
        ("model.layers.1.mpl", "model.layers.1.mlp"),
    ],
)
def test_near_names_of_both_spellings_are_suggested(hook: str, near: str, llama: str) -> None:
    with pytest.raises(HookError) as caught:
        probe_hooks(local(llama), [hook])
    assert near in suggestions(str(caught.value))


def test_the_suggestion_for_a_head_works(saved: Callable[[str], tuple[Any, str]]) -> None:
    for name in ("LlamaForCausalLM", "BertForMaskedLM", "AlbertForMaskedLM"):
        _, path = saved(name)
        with pytest.raises(HookError) as caught:
            probe_hooks(local(path), [OWN[name][1]])
        [near] = suggestions(str(caught.value))
        assert set(probe_hooks(local(path), [near])) == {near}


def test_a_list_of_modules_is_refused_with_its_members(llama: str) -> None:
    with pytest.raises(
        HookError, match=r"container of modules, which is not itself run: .* such as layers\.0, layers\.1"
    ):
        probe_hooks(local(llama), ["model.layers"])


def test_members_of_a_list_in_brackets_are_written_with_dots(llama: str) -> None:
    with pytest.raises(HookError, match=r"the members of a list are written model\.layers\.1\.mlp"):
        probe_hooks(local(llama), ["model.layers[1].mlp"])


def test_a_module_at_two_places_has_one_name() -> None:
    both = nn.ModuleDict({"first": nn.Linear(1, 1)})
    both["second"] = both["first"]
    assert find_hook(both, "second") == find_hook(both, "first") == Site("first", "output")


def test_a_class_that_cannot_be_made_offers_no_names(llama: str) -> None:
    model = AutoModel.from_pretrained(llama)
    model.config.architectures = ["NoSuchClass"]
    with pytest.raises(HookError, match="no module 'lm_head'; near names: "):
        resolve_hook(model, "lm_head")
    model = AutoModel.from_pretrained(llama)
    model.config.architectures = None
    assert isinstance(model, nn.Module)
    with pytest.raises(HookError, match="no module 'lm_head'; near names: "):
        resolve_hook(model, "lm_head")
