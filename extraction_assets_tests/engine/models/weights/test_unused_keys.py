"""A key of the files that the model should have had a place for is refused by name; a head is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    CodeGenConfig,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    Gemma3ForConditionalGeneration,
    Gemma3ForSequenceClassification,
    LlamaForCausalLM,
    XGLMForCausalLM,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import AutoModel

from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import FAMILIES
from extraction_assets_tests.engine.models.tiny_types import TYPES, tiny_config

Tensors = dict[str, Tensor]
UP = "layers.0.mlp.up_proj.weight"


@pytest.fixture
def folder(llama: str, tmp_path: Path) -> Path:
    """A Llama without a head, whose keys have no prefix."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


@pytest.fixture
def headed(tmp_path: Path) -> Path:
    """A Llama saved with its head, whose keys have the prefix ``model.``."""
    LlamaForCausalLM(FAMILIES["llama"].config()).save_pretrained(tmp_path / "headed")
    return tmp_path / "headed"


def change(folder: Path, how: Callable[[Tensors], Tensors]) -> None:
    save_file(how(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def add(folder: Path, *keys: str) -> None:
    change(folder, lambda all_: {**all_, **{key: torch.ones(16) for key in keys}})


def refusal(folder: Path, hook: str = "layers.1") -> str:
    with pytest.raises(CheckpointError) as caught:
        load_language_model(local(folder), [hook])
    return str(caught.value)


def warnings(folder: Path, hook: str = "layers.1") -> list[str]:
    return [finding.message for finding in load_language_model(local(folder), [hook]).weight_findings()]


# ------------------------------------------------------------------------------------- beneath what began to run


def test_a_convolution_that_the_configuration_no_longer_names_is_refused(tmp_path: Path) -> None:
    config = DebertaV2Config(
        **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"), 16),
        num_hidden_layers=3,
        num_attention_heads=2,
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        conv_kernel_size=3,
        pos_att_type=["p2c", "c2p"],
    )
    DebertaV2ForMaskedLM(config).save_pretrained(tmp_path)
    load_language_model(local(tmp_path), ["encoder.layer.1"])
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["conv_kernel_size"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    expected = "in the files without a place in the model: deberta.encoder.conv.LayerNorm.bias, "
    assert expected in refusal(tmp_path, "encoder.layer.1")


@pytest.mark.parametrize("key", ["embed_norm.weight", "model.embed_norm.weight", "module.model.embed_norm.weight"])
def test_a_norm_of_the_embeddings_is_a_part_of_the_model_itself(folder: Path, key: str) -> None:
    add(folder, key)
    assert refusal(folder).endswith(f"in the files without a place in the model: {key}")


def test_a_part_of_the_model_itself_is_distinguished_from_a_head_by_the_prefix(headed: Path) -> None:
    add(headed, "v_head.weight", "embed_norm.weight")
    assert "holds embed_norm.weight beside the model" in warnings(headed)[0]
    add(headed, "model.embed_norm.weight")
    assert refusal(headed).endswith("without a place in the model: model.embed_norm.weight")


@pytest.mark.parametrize("key", ["v_head.weight", "value_head.0.bias", "mtp.layers.0.x", "visual.x", "score.weight"])
def test_heads_and_towers_are_known_by_name(folder: Path, headed: Path, key: str) -> None:
    for where in (folder, headed):
        add(where, key, f"model.{key}", f"module.{key}", "model.layers.61.mlp.up_proj.weight")
        assert warnings(where) == []


def test_the_name_of_a_head_says_nothing_inside_a_block(folder: Path) -> None:
    add(folder, "layers.0.self_attn.head_gate.weight")
    assert "layers.0.self_attn.head_gate.weight" in refusal(folder)


# --------------------------------------------------------------------------------------------- names of wrappers


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.model.", "base_model.model.model."])
def test_a_second_set_under_the_name_of_a_wrapper_must_be_equal(folder: Path, prefix: str) -> None:
    change(folder, lambda all_: all_ | {prefix + key: own.clone() for key, own in all_.items()})
    assert warnings(folder) == []
    change(folder, lambda all_: all_ | {prefix + UP: all_[UP] * 2})
    assert refusal(folder).endswith(f"in the files more than once, with different numbers: {UP}")


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "_orig_mod.model.layers.0.extra.weight",
        "module.layers.0._orig_mod.mlp._orig_mod.extra",
    ],
)
def test_names_of_wrappers_hide_no_owner(folder: Path, key: str) -> None:
    add(folder, key)
    assert refusal(folder).endswith(f"without a place in the model: {key}")


# ------------------------------------------------------------------------------------------- computed by the class


def test_masks_and_positions_that_the_class_computes_need_no_place(tmp_path: Path) -> None:
    config = CodeGenConfig(vocab_size=64, n_positions=64, n_ctx=64, n_embd=64, n_layer=2, n_head=4, rotary_dim=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "codegen")
    add(tmp_path / "codegen", "transformer.h.0.attn.causal_mask")
    assert warnings(tmp_path / "codegen", "h.0") == []
    XGLMForCausalLM(tiny_config("xglm")).save_pretrained(tmp_path / "xglm")
    add(tmp_path / "xglm", "model.embed_positions.weights")
    assert warnings(tmp_path / "xglm", "layers.0") == []


# -------------------------------------------------------------------------------------------------- no false alarm


def stacks(module: nn.Module) -> list[str]:
    """Paths of the lists of blocks that a text runs through."""
    lists = [path for path, own in module.named_modules() if isinstance(own, nn.ModuleList)]
    outer = [path for path in lists if not any(part.isdecimal() for part in path.split("."))]
    return [path for path in outer if "vision" not in path and "decoder." not in path] or outer


HEADS = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classes": AutoModelForSequenceClassification,
}


SAVED = [
    (model_type, head)
    for model_type in TYPES
    for head, made in HEADS.items()
    if CONFIG_MAPPING[model_type] in made._model_mapping
    if head != "causal" or CONFIG_MAPPING[model_type] not in AutoModelForSeq2SeqLM._model_mapping  # a decoder alone
]


@pytest.mark.parametrize(("model_type", "head"), SAVED)
def test_a_type_saved_with_any_head_loads_without_a_word(model_type: str, head: str, tmp_path: Path) -> None:
    HEADS[head].from_config(tiny_config(model_type)).save_pretrained(tmp_path)
    first = stacks(AutoModel.from_config(tiny_config(model_type)))[0]
    assert warnings(tmp_path, f"{first}.0") == []


@pytest.mark.parametrize(
    "family", [name for name in FAMILIES if not name.startswith("qwen3_5_moe")]
)  # has no such class
def test_a_family_saved_for_classes_loads_without_a_word(family: str, tmp_path: Path) -> None:
    config = FAMILIES[family].config()
    config.get_text_config().pad_token_id = 0
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    assert warnings(tmp_path, f"{FAMILIES[family].blocks}.1") == []


@pytest.mark.parametrize("with_head", [Gemma3ForConditionalGeneration, Gemma3ForSequenceClassification])
def test_a_model_of_images_and_text_loads_without_a_word(with_head: type, tmp_path: Path) -> None:
    with_head(FAMILIES["gemma3"].config()).save_pretrained(tmp_path)
    assert warnings(tmp_path, "language_model.layers.1") == []


# ------------------------------------------------------------------------------------------------- two sets of files


def test_shards_beside_a_single_file_are_said_not_to_be_read(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {UP: "model-00001-of-00001.safetensors"}}))
    assert warnings(folder) == []
    save_file({UP: torch.ones(2)}, folder / "model-00001-of-00001.safetensors", {"format": "pt"})
    expected = "model.safetensors is read, not model-00001-of-00001.safetensors of model.safetensors.index.json"
    assert expected in warnings(folder)[0]
    index.write_text("{")
    assert warnings(folder) == []
