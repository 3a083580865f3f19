"""A model whose weights are not those of its files is refused, where a hook depends on them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMaskedLM

from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.engine.models.files.local_checkpoint import checkpoint_files
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.models.weights.loaded_weights import not_finite
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import FAMILIES, WITH_IMAGES, make_model

Tensors = dict[str, Tensor]
UP = "layers.0.mlp.up_proj.weight"


@pytest.fixture
def folder(llama: str, tmp_path: Path) -> Path:
    """A Llama to spoil."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


def change(folder: Path, how: Callable[[Tensors], Tensors], file: str = "model.safetensors") -> None:
    save_file(how(load_file(folder / file)), folder / file, metadata={"format": "pt"})


def refusal(folder: Path, *hooks: str, dtype: str = "auto") -> str:
    with pytest.raises(CheckpointError) as caught:
        load_language_model(local(folder), hooks or ["layers.1"], dtype=dtype)
    message = str(caught.value)
    assert message.startswith(f"language model {folder}: model.safetensors")
    assert message.isprintable()
    return message


def loads(folder: Path, *hooks: str) -> LanguageModel:
    return load_language_model(local(folder), hooks or ["layers.1"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "transformer.model."])
def test_keys_with_a_prefix_that_nothing_knows_are_named(folder: Path, prefix: str) -> None:
    change(folder, lambda all_: {prefix + key: own for key, own in all_.items()})
    message = refusal(folder)
    assert (
        "hook 'layers.1' depends on: not in the files: embed_tokens.weight, layers.0.input_layernorm.weight" in message
    )
    assert "and 15 more" in message
    assert f"which hold 29 without a place in the model, such as {prefix}embed_tokens.weight" in message


def test_keys_of_one_compiled_layer_are_named(folder: Path) -> None:
    change(folder, lambda all_: {key.replace("layers.1.", "layers.1._orig_mod."): own for key, own in all_.items()})
    assert "layers.1._orig_mod.input_layernorm.weight" in refusal(folder)
    loads(folder, "layers.0")


def test_the_prefix_of_the_model_with_its_head_is_known(folder: Path) -> None:
    change(folder, lambda all_: {f"model.{key}": own for key, own in all_.items()} | {"lm_head.weight": torch.ones(3)})
    loads(folder, "layers.2")


def test_a_missing_weight_counts_up_to_the_hook_alone(folder: Path) -> None:
    change(folder, lambda all_: {key: own for key, own in all_.items() if key != "layers.1.mlp.up_proj.weight"})
    assert "not in the files: layers.1.mlp.up_proj.weight" in refusal(folder, "layers.1")
    assert "layers.1.mlp.up_proj.weight" in refusal(folder, "layers.0", "layers.2.input")
    loads(folder, "layers.1.input", "layers.1.self_attn", "layers.1.mlp.input")


def test_what_lies_behind_the_deepest_hook_may_be_missing_or_broken(folder: Path) -> None:
    def behind(all_: Tensors) -> Tensors:
        kept = {key: own for key, own in all_.items() if key != "norm.weight"}
        return kept | {"layers.2.mlp.up_proj.weight": torch.full((3, 3), float("nan")), "layers.7.x": torch.ones(2)}

    change(folder, behind)
    loads(folder, "layers.1")
    assert "layers.2.mlp.up_proj.weight (3, 3), expected (32, 16)" in refusal(folder, "layers.2")


def test_another_shape_is_named_with_both(folder: Path) -> None:
    change(folder, lambda all_: {**all_, UP: torch.ones(5, 16)})
    assert f"of another shape in the files: {UP} (5, 16), expected (32, 16)" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_weight_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    def spoil(all_: Tensors) -> Tensors:
        all_[UP][3, 4] = value
        return all_

    change(folder, spoil)
    assert refusal(folder).endswith(f"NaN or infinite in float32: {UP}")


def test_a_weight_too_large_for_the_chosen_dtype_says_so(folder: Path) -> None:
    change(folder, lambda all_: {**all_, UP: all_[UP] + 1e6})
    assert refusal(folder, dtype="float16").endswith(
        f"NaN or infinite in float16: {UP}, which has no room for them: set language_model.dtype to float32"
    )
    loads(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2, torch.int32])
def test_a_type_that_only_a_quantizer_explains_is_refused_without_one(folder: Path, dtype: torch.dtype) -> None:
    change(folder, lambda all_: {**all_, UP: torch.ones(32, 16).to(dtype)})
    assert f"stored in a type that only a quantization_config explains: {UP} (" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_type_of_plain_numbers_is_converted(folder: Path, dtype: torch.dtype) -> None:
    change(folder, lambda all_: {key: own.to(dtype) for key, own in all_.items()})
    loads(folder)


def test_packed_weights_without_a_quantization_config_are_named(folder: Path) -> None:
    packed = {"qweight": torch.ones(2, 32, dtype=torch.int32), "scales": torch.ones(1, 32), "qzeros": torch.ones(1, 4)}

    def pack(all_: Tensors) -> Tensors:
        kept = {key: own for key, own in all_.items() if key != UP}
        return kept | {UP.replace("weight", name): own for name, own in packed.items()}

    change(folder, pack)
    message = refusal(folder)
    assert f"not in the files: {UP}" in message
    assert "layers.0.mlp.up_proj.qweight, layers.0.mlp.up_proj.qzeros, layers.0.mlp.up_proj.scales" in message


@pytest.mark.parametrize(
    "key", ["layers.0.self_attn.q_proj.bias", "layers.1.mlp.up_proj.weight_scale", "model.layers.0.extra_norm.weight"]
)
def test_a_weight_beneath_a_module_that_runs_must_have_a_place(folder: Path, key: str) -> None:
    change(folder, lambda all_: {**all_, key: torch.ones(16)})
    assert refusal(folder).endswith(f"in the files without a place in the model: {key}")


@pytest.mark.parametrize(
    "key",
    [
        "lm_head.weight",
        "pooler.dense.weight",
        "vision_tower.layers.0.weight",
        "mtp.0.weight",
        "layers.2.mlp.up_proj.bias",
    ],
)
def test_a_weight_of_what_does_not_run_needs_no_place(folder: Path, key: str) -> None:
    change(folder, lambda all_: {**all_, key: torch.ones(16)})
    loads(folder)


def test_a_weight_of_the_block_that_the_hook_is_inside_must_have_a_place(folder: Path) -> None:
    change(folder, lambda all_: {**all_, "layers.1.extra_norm.weight": torch.ones(16)})
    assert "layers.1.extra_norm.weight" in refusal(folder, "layers.1.self_attn")
    loads(folder, "layers.0.mlp")


@pytest.mark.parametrize("key", ["rotary_emb.inv_freq", "bias", "masked_bias", "rotary_emb.cos_cached"])
def test_what_earlier_versions_stored_and_is_computed_now_is_left_out(folder: Path, key: str) -> None:
    name = f"layers.0.{'attention.' if 'bias' in key else 'self_attn.'}{key}"
    change(folder, lambda all_: {**all_, name: torch.ones(1, 1, 4, 4)})
    loads(folder)


def test_two_keys_for_one_weight_are_refused_unless_they_are_equal(folder: Path) -> None:
    other = f"model.{UP}"
    change(folder, lambda all_: {**all_, other: all_[UP].clone()})
    loads(folder)
    change(folder, lambda all_: {**all_, other: all_[UP] + 1})
    assert refusal(folder).endswith(f"in the files more than once, with different numbers: {UP}")


# ---------------------------------------------------------------------------------------------------- several files


def shard(folder: Path, first: Callable[[str], bool]) -> dict[str, str]:
    """Splits the weights over two files, and gives the index's map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {
        key: "model-00001-of-00002.safetensors" if first(key) else "model-00002-of-00002.safetensors" for key in tensors
    }
    for name in set(names.values()):
        save_file({key: own for key, own in tensors.items() if names[key] == name}, folder / name, {"format": "pt"})
    write_index(folder, names)
    return names


def write_index(folder: Path, names: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def test_weights_in_two_files_load(folder: Path, llama: str) -> None:
    shard(folder, lambda key: key.startswith("layers.0"))
    ids = torch.tensor([[1, 5, 9]])
    both = [
        model.activations(ids, torch.ones_like(ids).bool())["layers.1"] for model in (loads(folder), loads(Path(llama)))
    ]
    assert torch.equal(*both)


def test_the_index_is_one_of_the_files_that_decide_where_it_chooses_among_them(folder: Path) -> None:
    names = shard(folder, lambda key: key.startswith("layers.0"))
    index = folder / "model.safetensors.index.json"
    assert index not in checkpoint_files(local(folder))
    save_file({UP: torch.ones(2)}, folder / "other.safetensors", {"format": "pt"})
    assert index in checkpoint_files(local(folder))
    write_index(folder, {**names, UP: "other.safetensors"})
    assert index not in checkpoint_files(local(folder))


def test_a_file_of_several_that_is_missing_is_named(folder: Path) -> None:
    shard(folder, lambda key: key.startswith("layers.0"))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        loads(folder)


def test_a_key_that_the_index_names_and_its_file_does_not_hold_is_named_with_the_file(folder: Path) -> None:
    shard(folder, lambda key: key.startswith("layers.0"))
    change(
        folder, lambda all_: {key: own for key, own in all_.items() if key != UP}, "model-00001-of-00002.safetensors"
    )
    assert f"not in the files: {UP} (in model-00001-of-00002.safetensors by the index)" in refusal(folder)


def test_a_key_in_two_files_is_refused_unless_both_are_equal(folder: Path) -> None:
    shard(folder, lambda key: key.startswith("layers.0"))
    same = load_file(folder / "model-00001-of-00002.safetensors")[UP]
    change(folder, lambda all_: {**all_, UP: same}, "model-00002-of-00002.safetensors")
    loads(folder)
    change(folder, lambda all_: {**all_, UP: same + 1}, "model-00002-of-00002.safetensors")
    assert f"in the files more than once, with different numbers: {UP}" in refusal(folder)


# ------------------------------------------------------------------------------------------------- no false alarms


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_saved_with_its_head_loads_at_every_block(family: str, tmp_path: Path) -> None:
    layout = FAMILIES[family]
    with_head = AutoModelForMaskedLM if family in ("bert", "roberta") else AutoModelForCausalLM
    with_head = AutoModelForImageTextToText if family in WITH_IMAGES else with_head
    with_head.from_config(layout.config()).save_pretrained(tmp_path)
    for block in range(3):
        loads(tmp_path, f"{layout.blocks}.{block}")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_projection_of_the_first_block_is_named(family: str, tmp_path: Path) -> None:
    layout = FAMILIES[family]
    make_model(tmp_path, family)
    projection = "linear_attn.out_proj" if 0 in layout.linear else layout.projection
    name = f"{layout.blocks}.0.{projection}.weight".removeprefix("language_model.")
    change(tmp_path, lambda all_: {key: own for key, own in all_.items() if not key.endswith(name)})
    assert name in refusal(tmp_path, f"{layout.blocks}.1")


def test_what_is_not_finite_is_found_in_every_type_with_one_pass() -> None:
    tensors = {
        "fine": torch.ones(3, dtype=torch.bfloat16),
        "nan": torch.tensor([0.0, float("nan"), 1.0]),
        "minus": torch.tensor([0.0, float("-inf")], dtype=torch.float16),
        "wide": torch.tensor([1e300], dtype=torch.float64),
        "numbers": torch.tensor([1, 2]),
        "empty": torch.ones(0),
        "scalar": torch.tensor(float("inf")),
    }
    assert not_finite(tensors) == {"nan", "minus", "scalar"}
