"""Gemma Scope as published, beside SAELens's loaders of it."""

from pathlib import Path

import pytest

from extraction_assets.engine.saes.published import published_sae
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    assert_same_sae,
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
