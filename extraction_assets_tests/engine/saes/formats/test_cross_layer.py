"""Layers of cross-layer transcoders encode as SAELens's loaders make them, and reconstruct nothing."""

from pathlib import Path

import pytest
import torch

from extraction_assets.engine.saes.formats import CheckpointError, SAEWeights, files_on_hub
from extraction_assets.engine.saes.located_checkpoint import read_sae, sae_files
from extraction_assets.engine.saes.published import PublishedSae, published_sae
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets.settings import ResolvedSae
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    TOKENS,
    assert_same_sae,
    random,
    read_by_name,
    read_by_sae_lens,
    thresholds,
    write_gemma_scope_2_clt,
    write_mntss,
)

NAMED = published_sae("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_2")
CLT = "clt/width_262k_l0_big/layer_3"
GEMMA_SCOPE_2 = PublishedSae("", "", "google/gemma-scope-2-1b-pt", CLT, "gemma_3", "google/gemma-3-1b-pt")


def read_at(root: Path, inside: str) -> SAEWeights:
    return read_sae(ResolvedSae(path=str(root), subfolder=inside, hook="unused"))


def test_a_layer_of_mntss_encodes_as_sae_lens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = read_by_name(write_mntss(tmp_path), NAMED)
    theirs = read_by_sae_lens(monkeypatch, tmp_path, NAMED)
    assert_same_sae(ours, theirs, decodes=False)
    known = theirs.cfg.metadata
    assert ours.record.hook == known.hook_name == "blocks.2.hook_resid_mid"
    assert (ours.record.model_name, ours.record.hook_out) == (known.model_name, None)


def test_thresholds_of_mntss_apply_as_in_circuit_tracer_where_sae_lens_leaves_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """circuit-tracer's ``JumpReLU``: z where z > threshold, of z = x W_enc^T + b_enc."""
    limits = thresholds(D_SAE, seed=5)
    write_mntss(tmp_path, threshold=limits)
    x = random(TOKENS, D_IN, seed=0) * 3
    theirs = read_by_sae_lens(monkeypatch, tmp_path, NAMED)
    with torch.no_grad():
        relu = theirs.encode(x)
    ours = SAE(read_by_name(tmp_path, NAMED)).encode(x)
    torch.testing.assert_close(ours, relu * (relu > limits), rtol=1e-5, atol=1e-5)
    assert int((ours > 0).sum()) < int((relu > 0).sum())


def test_a_layer_of_gemma_scope_2_encodes_as_sae_lens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gemma_scope_2_clt(tmp_path, CLT)
    ours = read_at(tmp_path, f"{CLT}.safetensors")
    theirs = read_by_sae_lens(monkeypatch, tmp_path, GEMMA_SCOPE_2)
    assert_same_sae(ours, theirs, decodes=False)
    assert ours.record.hook == theirs.cfg.metadata.hf_hook_name == "model.layers.3.pre_feedforward_layernorm.output"


def test_neither_needs_its_decoders(tmp_path: Path) -> None:
    assert files_on_hub(NAMED.path, NAMED.loader) == ["config.yaml", "W_enc_2.safetensors"]
    (write_mntss(tmp_path) / "W_dec_2.safetensors").unlink()
    weights = read_at(tmp_path, "W_enc_2.safetensors")
    assert (weights.w_dec, weights.reconstructs, weights.d_out) == (None, False, D_IN)
    reference = ResolvedSae(path=str(tmp_path), subfolder="W_enc_2.safetensors", hook="unused").checkpoint
    assert [file.name for file in sae_files(reference)] == ["W_enc_2.safetensors", "config.yaml"]


def test_to_decode_by_one_layer_is_refused(tmp_path: Path) -> None:
    sae = SAE(read_at(write_mntss(tmp_path), "W_enc_2.safetensors"))
    firings = sae.encode_sparse(torch.ones(4, D_IN))
    with pytest.raises(ValueError, match="encodes only: it has no decoder"):
        sae.decode(SparseFeatures(*firings[:3], 1, 4, D_SAE))


def test_to_fold_the_norms_of_a_decoder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_mntss(tmp_path)
    settings = ResolvedSae(path=str(tmp_path), subfolder="W_enc_2.safetensors", hook="unused", fold_decoder_norm=True)
    with pytest.raises(CheckpointError, match="fold_decoder_norm needs a decoder, and this SAE encodes only"):
        read_sae(settings)


def test_a_file_of_another_layer_is_named(tmp_path: Path) -> None:
    (write_mntss(tmp_path) / "W_enc_2.safetensors").rename(tmp_path / "W_enc_5.safetensors")
    with pytest.raises(CheckpointError, match=r"W_enc_5.safetensors lacks W_enc_5, b_enc_5, b_dec_5.* holds W_enc_2"):
        read_at(tmp_path, "W_enc_5.safetensors")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    (write_mntss(tmp_path) / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"config.yaml is missing"):
        read_at(tmp_path, "W_enc_2.safetensors")
