"""Gemma Scope as published, beside SAELens's loaders of it."""

from pathlib import Path

import pytest
import torch

from extraction_assets.engine.saes.formats import (
    checkpoint_facts,
    place_of,
    read_checkpoint,
    read_checkpoint_record,
)
from extraction_assets.engine.saes.published import PublishedSae, all_saes, published_sae
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    assert_same_sae,
    jumprelu_parameters,
    read_by_name,
    read_by_sae_lens,
    write_gemma_scope,
)

NAMES = {
    "gemma-scope-2b-pt-res": "layer_12/width_16k/average_l0_82",
    "gemma-scope-2b-pt-res-canonical": "layer_12/width_16k/canonical",
    "gemma-scope-9b-it-res": "layer_9/width_16k/average_l0_88",
    "gemma-scope-2b-pt-mlp": "layer_5/width_16k/average_l0_575",
    "gemma-scope-2b-pt-att": "layer_5/width_16k/average_l0_30",
}


@pytest.mark.parametrize("release", NAMES)
def test_gemma_scope_encodes_and_decodes_as_sae_lens(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = published_sae(release, NAMES[release])
    write_gemma_scope(tmp_path, sae.path)
    ours = read_by_name(tmp_path, sae)
    theirs = read_by_sae_lens(monkeypatch, tmp_path, sae, d_in=D_IN, d_sae=D_SAE)
    assert_same_sae(ours, theirs)
    assert ours.record.hook == theirs.cfg.metadata.hook_name


def test_a_transcoder_encodes_and_decodes_as_sae_lens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = published_sae("gemma-scope-2b-pt-transcoders", "layer_7/width_16k/average_l0_70")
    write_gemma_scope(tmp_path, sae.path)
    ours = read_by_name(tmp_path, sae)
    theirs = read_by_sae_lens(monkeypatch, tmp_path, sae, d_in=D_IN, d_out=D_IN, d_sae=D_SAE)
    assert_same_sae(ours, theirs)
    known, record = theirs.cfg.metadata, ours.record
    assert (record.hook, record.hook_out) == (known.hook_name, known.hook_name_out)
    assert (record.is_transcoder, record.model_name) == (True, f"google/{known.model_name}")


EMBEDDING = [sae for sae in all_saes() if sae.loader == "gemma_2" and sae.path.startswith("embedding/")]


@pytest.mark.parametrize("sae", EMBEDDING, ids=lambda sae: sae.sae_id)
def test_an_sae_of_embeddings_encodes_and_decodes_as_sae_lens(
    sae: PublishedSae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gemma_scope(tmp_path, sae.path)
    ours = read_by_name(tmp_path, sae)
    theirs = read_by_sae_lens(monkeypatch, tmp_path, sae, d_in=D_IN, d_sae=D_SAE)
    assert_same_sae(ours, theirs)
    assert ours.record.hook == theirs.cfg.metadata.hook_name == "hook_embed"


def test_there_are_eight_saes_of_embeddings() -> None:
    assert len(EMBEDDING) == 8


@pytest.mark.parametrize("before", ["", "copies/of/models", "google/gemma-scope-2b-pt-res"])
def test_an_sae_of_embeddings_is_one_by_its_folders_alone(before: str, tmp_path: Path) -> None:
    folder = tmp_path / before / "embedding/width_4k/average_l0_6"
    write_gemma_scope(tmp_path / before, "embedding/width_4k/average_l0_6")
    stored = jumprelu_parameters()["W_enc"]
    torch.testing.assert_close(read_checkpoint(folder).w_enc, stored / D_IN**0.5)
    assert read_checkpoint_record(folder).hook == "hook_embed"


def test_that_embeddings_are_scaled_is_part_of_the_fingerprint_and_nothing_is_of_others(tmp_path: Path) -> None:
    facts = {}
    for inside in ("embedding/width_4k/average_l0_6", "layer_3/width_16k/average_l0_7", "embedding/mine"):
        write_gemma_scope(tmp_path, inside)
        facts[inside] = checkpoint_facts(place_of(tmp_path / inside))
    assert list(facts.values()) == [{"reads_scaled_embeddings": True}, {}, {}]
