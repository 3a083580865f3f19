"""Decoder rows some at a time: those of the whole SAE, bit for bit, without its memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from extraction_assets.engine.saes import decoder_parts as parts_of
from extraction_assets.engine.saes.decoder_parts import decoder_parts
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.engine.saes.located_checkpoint import read_sae
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.settings import ResolvedSae
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    random,
    write_gemma_scope,
    write_gemma_scope_2,
    write_gemma_scope_2_clt,
    write_sae_lens,
    write_sparsify,
)
from extraction_assets_tests.engine.saes.formats.published_layouts_b import (
    write_llama_scope,
    write_llama_scope_r1_distill,
    write_llamascopium,
    write_mwhanna,
)

Write = Callable[[Path], object]
LAYER = "layer_3.safetensors"
PUBLISHED = "resid_post/layer_9_width_16k_l0_medium"


def finetuned(root: Path) -> None:
    """With a factor for each feature, as SAELens 5 wrote it."""
    write_sae_lens(root, "sae")
    file = root / "sae" / "sae_weights.safetensors"
    tensors = {"W_enc": random(D_IN, D_SAE, seed=1), "W_dec": random(D_SAE, D_IN, seed=3)}
    vectors = {"b_enc": random(D_SAE, seed=2), "b_dec": random(D_IN, seed=4), "scaling_factor": random(D_SAE, seed=5)}
    save_file({**tensors, **vectors}, file)


LAYOUTS: dict[str, tuple[Write, dict[str, Any]]] = {
    "SAELens": (lambda root: write_sae_lens(root, "sae"), {}),
    "SAELens, norms folded": (lambda root: write_sae_lens(root, "sae"), {"fold_decoder_norm": True}),
    "SAELens, rescaled": (lambda root: write_sae_lens(root, "sae", rescale_acts_by_decoder_norm=True), {}),
    "SAELens, finetuned": (finetuned, {}),
    "sparsify, fewer features in a part than k": (lambda root: write_sparsify(root, "sae", k=30), {}),
    "Gemma Scope 2": (lambda root: write_gemma_scope_2(root / "sae", PUBLISHED), {"subfolder": PUBLISHED}),
    "Llama Scope, turned": (lambda root: write_llama_scope(root, "sae"), {}),
    "Llama Scope R1, turned": (lambda root: write_llama_scope_r1_distill(root, "sae"), {}),
    "Llamascopium": (lambda root: write_llamascopium(root, "sae"), {}),
    "circuit-tracer": (lambda root: write_mwhanna(root / "sae", LAYER), {"subfolder": LAYER}),
}


def settings(root: Path, **options: Any) -> ResolvedSae:
    return ResolvedSae(path=str(root / "sae"), hook="layers.1", **options)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_of, "ROWS_AT_ONCE", 20)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_are_the_rows_of_the_whole(layout: str, tmp_path: Path) -> None:
    write, options = LAYOUTS[layout]
    write(tmp_path)
    sae = settings(tmp_path, **options)
    found, expected = list(decoder_parts(sae)), SAE(read_sae(sae)).decoder
    assert [len(part) for part in found] == [20, 20, 8]
    assert expected is not None
    assert torch.equal(torch.cat(found), expected)


@pytest.mark.usefixtures("small_parts")
def test_files_that_are_read_whole_give_all_rows_at_once(tmp_path: Path) -> None:
    write_gemma_scope(tmp_path, "sae")
    (found,) = decoder_parts(settings(tmp_path))
    expected = SAE(read_sae(settings(tmp_path))).decoder
    assert expected is not None
    assert torch.equal(found, expected)


@pytest.mark.usefixtures("small_parts")
def test_an_sae_as_wide_as_its_model_is_read_whole(tmp_path: Path) -> None:
    write_sae_lens(tmp_path, "sae", d_in=D_SAE)
    tensors = {"W_enc": random(D_SAE, D_SAE, seed=1), "W_dec": random(D_SAE, D_SAE, seed=3)}
    vectors = {name: random(D_SAE, seed=2) for name in ("b_enc", "b_dec")}
    save_file({**tensors, **vectors}, tmp_path / "sae" / "sae_weights.safetensors")
    (found,) = decoder_parts(settings(tmp_path))
    assert torch.equal(found, tensors["W_dec"])


@pytest.mark.usefixtures("small_parts")
def test_an_sae_that_encodes_only_has_no_rows(tmp_path: Path) -> None:
    inside = "clt/width_262k_l0_big/layer_3"
    write_gemma_scope_2_clt(tmp_path / "sae", inside)
    assert list(decoder_parts(settings(tmp_path, subfolder=f"{inside}.safetensors"))) == []


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("d_sae", [D_SAE + 1, 20])
def test_a_width_that_is_not_the_stated_one_is_refused(d_sae: int, tmp_path: Path) -> None:
    write_sae_lens(tmp_path, "sae", d_sae=d_sae)
    with pytest.raises(CheckpointError, match=rf"says d_sae = {d_sae}, but W_enc of \S+ has {D_SAE}"):
        list(decoder_parts(settings(tmp_path)))


@pytest.mark.usefixtures("small_parts")
def test_a_number_that_is_none_is_found_in_its_part(tmp_path: Path) -> None:
    write_sae_lens(tmp_path, "sae")
    tensors = {"W_enc": random(D_IN, D_SAE, seed=1), "W_dec": random(D_SAE, D_IN, seed=3)}
    tensors["W_dec"][30, 2] = np.nan
    vectors = {"b_enc": random(D_SAE, seed=2), "b_dec": random(D_IN, seed=4)}
    save_file({**tensors, **vectors}, tmp_path / "sae" / "sae_weights.safetensors")
    with pytest.raises(CheckpointError, match=r"sae_weights.safetensors: W_dec holds 1 NaN"):
        list(decoder_parts(settings(tmp_path)))


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    write_sae_lens(tmp_path, "sae")
    file = tmp_path / "sae" / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"sae_weights\.safetensors is not a whole safetensors file"):
        list(decoder_parts(settings(tmp_path)))
