"""A model and an SAE that do not belong together are found before any work starts."""

from pathlib import Path

import pytest

from extraction_assets.engine.preflight import CheckpointError, CorpusError, HookError, check_combination
from extraction_assets_tests import tiny


def test_a_good_combination_gives_the_weights_by_name(llama: str, sae_folders: dict[str, Path]) -> None:
    weights = check_combination(
        llama, {name: (folder, f"layers.{i % 2}") for i, (name, folder) in enumerate(sae_folders.items())}, 64
    )
    assert {name: own.architecture for name, own in weights.items()} == {name: name for name in sae_folders}


def test_an_sae_of_another_width_is_named_with_both_widths(llama: str, tmp_path: Path) -> None:
    wide = tiny.make_sae(tmp_path / "wide", d_in=24)
    with pytest.raises(CheckpointError, match=r"'wide' .* d_in = 24, but hook 'layers.0' of .* gives 16"):
        check_combination(llama, {"wide": (wide, "layers.0")}, 64)


def test_an_unknown_hook_is_found(llama: str, sae_folders: dict[str, Path]) -> None:
    with pytest.raises(HookError, match=r"no module 'layers\.7'"):
        check_combination(llama, {"relu": (sae_folders["standard"], "layers.7")}, 64)


def test_samples_longer_than_the_model_was_made_for_are_refused(llama: str, sae_folders: dict[str, Path]) -> None:
    with pytest.raises(CorpusError, match=r"max_length is 65, but .* was made for at most 64 positions"):
        check_combination(llama, {"relu": (sae_folders["standard"], "layers.0")}, 65)
