"""Gemma Scope 2 as published, beside SAELens's loader of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from extraction_assets.engine.saes.formats import CheckpointError, read_checkpoint, read_checkpoint_record
from extraction_assets.engine.saes.published import published_sae
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    assert_same_sae,
    read_by_name,
    read_by_sae_lens,
    write_gemma_scope_2,
)

RELEASE = "gemma-scope-2-4b-pt-"
NAMES = {
    "res": "layer_17_width_16k_l0_medium",
    "res-all": "layer_0_width_16k_l0_big",
    "att": "layer_17_width_16k_l0_big",
    "mlp": "layer_17_width_16k_l0_small",
    "transcoders": "transcoder/layer_17_width_16k_l0_big",
    "transcoders-all": "layer_0_width_16k_l0_small_affine",
}
RESIDUAL = "resid_post/layer_17_width_16k_l0_medium"
AFFINE = "transcoder_all/layer_3_width_16k_l0_small_affine"


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize("kind", NAMES)
def test_gemma_scope_2_encodes_and_decodes_as_sae_lens(
    kind: str, config: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = published_sae(f"{RELEASE}{kind}", NAMES[kind])
    write_gemma_scope_2(tmp_path, sae.path, D_IN + 8 if "transcoder" in kind else D_IN, config=config)
    ours, theirs = read_by_name(tmp_path, sae), read_by_sae_lens(monkeypatch, tmp_path, sae)
    assert_same_sae(ours, theirs)
    known = theirs.cfg.metadata
    assert (ours.record.hook, ours.record.hook_out) == (known.hf_hook_name, known.hf_hook_name_out)
    assert (ours.record.model_name, ours.record.prepend_bos) == ("google/gemma-3-4b-pt", True)
    assert ours.record.model_name == known.model_name


@pytest.mark.parametrize(
    ("repository", "stated", "model"),
    [
        ("gemma-scope-2-270m-pt", "gemma-v3-270m-pt", "google/gemma-3-270m"),
        ("gemma-scope-2-270m-it", None, "google/gemma-3-270m-it"),
        ("gemma-scope-2-27b-it", None, "google/gemma-3-27b-it"),
        ("anything", "google/gemma-3-12b-it", "google/gemma-3-12b-it"),
        ("anything", None, None),
    ],
)
def test_the_model_is_named_as_on_the_hub(
    repository: str, stated: str | None, model: str | None, tmp_path: Path
) -> None:
    write_gemma_scope_2(tmp_path / repository, RESIDUAL, config=stated is not None, model_name=stated)
    assert read_checkpoint_record(tmp_path / repository / RESIDUAL).model_name == model


def test_the_hooks_of_the_file_go_before_those_of_its_name(tmp_path: Path) -> None:
    write_gemma_scope_2(tmp_path, RESIDUAL, hf_hook_point_in="model.layers.4.mlp.input", hf_hook_point_out=None)
    record = read_checkpoint_record(tmp_path / RESIDUAL)
    assert (record.hook, record.is_transcoder) == ("model.layers.4.mlp.input", False)


def test_a_folder_of_another_name_without_a_configuration_says_no_hook(tmp_path: Path) -> None:
    write_gemma_scope_2(tmp_path, RESIDUAL, config=False)
    (tmp_path / RESIDUAL).rename(tmp_path / "mine")
    assert read_checkpoint_record(tmp_path / "mine").hook is None
    assert read_checkpoint(tmp_path / "mine").latent_dim == 48


@pytest.mark.parametrize(
    ("inside", "changes", "message"),
    [
        (RESIDUAL, {"architecture": "topk"}, r"architecture 'topk' is not supported \(known: jump_relu\)"),
        (AFFINE, {"affine_connection": False}, "holds affine_skip_connection, but config.json has .* = false"),
        (AFFINE.removesuffix("_affine"), {"affine_connection": True}, "lacks affine_skip_connection, but .* = true"),
        (AFFINE, {"affine_connection": "yes"}, "affine_connection = 'yes', expected true or false"),
        (
            AFFINE,
            {"hf_hook_point_out": "model.layers.3.pre_feedforward_layernorm.output"},
            "so it is a transcoder, but",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(inside: str, changes: Any, message: str, tmp_path: Path) -> None:
    write_gemma_scope_2(tmp_path, inside, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / inside)


def test_an_affine_transcoder_without_a_configuration_is_one_by_its_tensor(tmp_path: Path) -> None:
    write_gemma_scope_2(tmp_path, AFFINE, config=False)
    stored = load_file(tmp_path / AFFINE / "params.safetensors")["affine_skip_connection"]
    skip = read_checkpoint(tmp_path / AFFINE).w_skip
    assert skip is not None
    assert torch.equal(skip, stored)
