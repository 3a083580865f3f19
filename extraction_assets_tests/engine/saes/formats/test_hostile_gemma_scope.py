"""Damaged and malicious files of Gemma Scope 2 and cross-layer transcoders (``test_hostile``)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.engine.saes.located_checkpoint import read_sae, read_sae_record, sae_files
from extraction_assets.settings import ResolvedSae
from extraction_assets_tests.engine.saes.formats import published_layouts
from extraction_assets_tests.engine.saes.formats.published_layouts import D_IN, D_SAE
from extraction_assets_tests.engine.saes.formats.test_hostile import (
    Spoil,
    deep,
    header,
    loop,
    merge,
    put,
    replaced,
    tensors,
)

NAN, INF = float("nan"), float("inf")


def gemma_scope_2(root: Path) -> Path:
    inside = "transcoder_all/layer_3_width_16k_l0_small_affine"
    return published_layouts.write_gemma_scope_2(root, inside) / inside


def gemma_scope_2_clt(root: Path) -> Path:
    return (
        published_layouts.write_gemma_scope_2_clt(root, "clt/width_16k/layer_3") / "clt/width_16k/layer_3.safetensors"
    )


def mntss(root: Path) -> Path:
    return published_layouts.write_mntss(root) / "W_enc_2.safetensors"


CFG, PARAMS, LAYER = "config.json", "params.safetensors", "layer_3.safetensors"
YAML, ENC = "config.yaml", "W_enc_2.safetensors"

HOSTILE: dict[str, tuple[Callable[[Path], Path], str, Spoil]] = {
    "config list": (gemma_scope_2, CFG, put(CFG, "[]")),
    "config deep": (gemma_scope_2, CFG, put(CFG, deep(200_000))),
    "config empty": (gemma_scope_2, CFG, put(CFG, "{}")),
    "config huge": (gemma_scope_2, CFG, lambda folder: os.truncate(folder / CFG, 1 << 40)),
    "config loop": (gemma_scope_2, CFG, replaced(CFG, loop)),
    "config pipe": (gemma_scope_2, CFG, replaced(CFG, os.mkfifo)),
    "config folder": (gemma_scope_2, CFG, replaced(CFG, Path.mkdir)),
    "architecture list": (gemma_scope_2, CFG, merge(CFG, architecture=["jump_relu"])),
    "affine as text": (gemma_scope_2, CFG, merge(CFG, affine_connection="true")),
    "affine null": (gemma_scope_2, CFG, merge(CFG, affine_connection=None)),
    "params cut": (gemma_scope_2, PARAMS, lambda folder: os.truncate(folder / PARAMS, 999)),
    "params no threshold": (gemma_scope_2, PARAMS, header(PARAMS, lambda all_: all_.update(t=all_.pop("threshold")))),
    "params integers": (gemma_scope_2, PARAMS, tensors(PARAMS, w_enc=torch.ones(D_IN, D_SAE, dtype=torch.int8))),
    "params not turned": (gemma_scope_2, PARAMS, tensors(PARAMS, w_enc=torch.ones(D_SAE, D_IN))),
    "params NaN": (gemma_scope_2, PARAMS, tensors(PARAMS, w_dec=torch.full((D_SAE, D_IN), NAN))),
    "params infinite skip": (
        gemma_scope_2,
        PARAMS,
        tensors(PARAMS, affine_skip_connection=torch.full((D_IN, D_IN), INF)),
    ),
    "skip of a vector": (gemma_scope_2, PARAMS, tensors(PARAMS, affine_skip_connection=torch.ones(D_IN))),
    "skip of another width": (gemma_scope_2, PARAMS, tensors(PARAMS, affine_skip_connection=torch.ones(D_IN, 9))),
    "layer cut": (gemma_scope_2_clt, LAYER, lambda folder: os.truncate(folder / LAYER, 99)),
    "layer NaN": (gemma_scope_2_clt, LAYER, tensors(LAYER, threshold=torch.full((D_SAE,), NAN))),
    "layer of another width": (gemma_scope_2_clt, LAYER, tensors(LAYER, b_dec=torch.ones(9))),
    "yaml list": (mntss, YAML, put(YAML, "- 1")),
    "yaml object of Python": (mntss, YAML, put(YAML, "a: !!python/object/apply:os.mkdir [harm]")),
    "yaml deep": (mntss, YAML, put(YAML, "a: " + deep(100_000))),
    "yaml huge": (mntss, YAML, lambda folder: os.truncate(folder / YAML, 1 << 40)),
    "yaml missing": (mntss, YAML, lambda folder: (folder / YAML).unlink()),
    "yaml pipe": (mntss, YAML, replaced(YAML, os.mkfifo)),
    "encoder cut": (mntss, ENC, lambda folder: os.truncate(folder / ENC, 99)),
    "encoder not turned": (mntss, ENC, tensors(ENC, W_enc_2=torch.ones(D_IN, D_SAE))),
    "encoder of three dimensions": (mntss, ENC, tensors(ENC, W_enc_2=torch.ones(D_SAE, D_IN, 1))),
    "encoder infinite": (mntss, ENC, tensors(ENC, b_enc_2=torch.full((D_SAE,), INF))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_is_refused_by_one_sentence_with_its_files_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, file, spoil = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    path = make(tmp_path / "sae")
    folder = path if path.is_dir() else path.parent
    spoil(folder)
    settings = ResolvedSae(path=str(path), hook="layers.0")
    with pytest.raises(CheckpointError) as caught:
        for read in (sae_files, read_sae_record):
            read(settings.checkpoint)
        read_sae(settings)
    message = str(caught.value)
    assert str(folder) in message
    assert file in message
    assert message.isprintable()
    assert len(message) < 700
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("make", dict.fromkeys(make for make, _, _ in HOSTILE.values()))
def test_what_is_spoiled_is_sound_before(make: Callable[[Path], Path], tmp_path: Path) -> None:
    assert read_sae(ResolvedSae(path=str(make(tmp_path / "sae")), hook="layers.0")).latent_dim == D_SAE
