"""The releases in SAELens's own form, as SAELens reads them by name."""

from pathlib import Path
from typing import Any

import pytest

from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.engine.saes.formats.shared.place import place_of
from extraction_assets.engine.saes.published import PublishedSae, all_saes, published_sae, registry
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    K,
    assert_same_sae,
    read_by_name,
    read_by_sae_lens,
    write_sae_lens,
)

RELEASES = [release.name for release in registry().releases.values() if release.loader == "sae_lens"]
TOPK = {"normalize_activations": "layer_norm", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
CONFIGS: dict[str, dict[str, Any]] = {
    "-v5-": TOPK,  # OpenAI's, converted
    "-res-jb": {"normalize_activations": None},
    "-ajt": {"apply_b_dec_to_input": False, "sae_lens_training_version": "2.0.0"},
    "mistral": {"normalize_activations": "none"},  # which the registry repairs
    "matryoshka": {"architecture": "jumprelu", "sae_lens_version": "5.11.0", "apply_b_dec_to_input": True},
}


def config_of(sae: PublishedSae) -> dict[str, Any]:
    scaled = {} if sae.norm_scaling_factor is None else {"normalize_activations": "expected_average_only_in"}
    parts = {key: value for part, config in CONFIGS.items() if part in sae.release for key, value in config.items()}
    return {**parts, **scaled}


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_encodes_and_decodes_as_sae_lens(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes = [sae for sae in all_saes() if sae.release == release]
    sae = next((sae for sae in saes if sae.norm_scaling_factor is not None), saes[0])
    write_sae_lens(tmp_path, sae.path, **config_of(sae))
    theirs = read_by_sae_lens(monkeypatch, tmp_path, sae)
    assert_same_sae(read_by_name(tmp_path, sae, center_input=False), theirs)  # theirs leaves that to the model


def test_there_are_28_releases_with_292_saes() -> None:
    assert (len(RELEASES), sum(sae.loader == "sae_lens" for sae in all_saes())) == (28, 292)


def test_the_registry_repairs_mistrals_normalization(tmp_path: Path) -> None:
    sae = published_sae("mistral-7b-res-wg", "blocks.8.hook_resid_pre")
    write_sae_lens(tmp_path, sae.path, normalize_activations="none")
    assert read_by_name(tmp_path, sae).normalize_activations == "constant_norm_rescale"


def test_the_registry_centers_what_gpt2s_saes_read(tmp_path: Path) -> None:
    sae = published_sae("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    weights = read_by_name(write_sae_lens(tmp_path, sae.path), sae)
    assert (weights.center_input, weights.center_target) == (True, True)


def test_a_folder_may_be_called_like_a_file(tmp_path: Path) -> None:
    sae = published_sae("gpt2-small-resid-post-v5-32k", "blocks.0.hook_resid_post")
    write_sae_lens(tmp_path, sae.path, **TOPK)
    assert sae.path.endswith(".pt")
    assert place_of(tmp_path / sae.path).file is None
    assert (read_by_name(tmp_path, sae).architecture, read_by_name(tmp_path, sae).k) == ("topk", K)


def test_a_temporal_sae_is_refused_by_name(tmp_path: Path) -> None:
    sae = next(sae for sae in all_saes() if sae.loader == "temporal")
    (tmp_path / sae.path).mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"cannot be read: its features depend on earlier positions, which one"):
        read_by_name(tmp_path, sae)
