"""Bad input: one clear error that says what is wrong and what to do; earlier results stay."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from extraction_assets.resources import GpuResource
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_sae, make_settings

pytestmark = pytest.mark.slow


def _with_sae(tiny_folder: Path, **sae: Any) -> Any:
    chosen = {"path": str(tiny_folder / "relu"), "hook": "layers.0", **sae}
    return make_settings(tiny_folder, saes={"relu": chosen})


def _corpus_error(settings: Any, home: Path) -> str:
    """The message of the first run, which does the checks that can be done before work starts."""
    with pytest.raises(dg.Failure) as caught:
        Project(settings, home).corpus()
    return str(caught.value.description)


def test_an_unknown_hook_lists_near_names(tiny_folder: Path, home: Path) -> None:
    message = _corpus_error(_with_sae(tiny_folder, hook="model.layer.1"), home)
    assert "no module 'model.layer.1'" in message
    assert "model.layers.1" in message


def test_an_sae_of_another_width_names_both_widths(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    message = _corpus_error(_with_sae(tiny_folder, path=str(make_sae(tmp_path / "wide", d_in=24))), home)
    assert "d_in = 24" in message
    assert "gives 16" in message


def test_a_missing_checkpoint_is_named(tiny_folder: Path, home: Path) -> None:
    message = _corpus_error(_with_sae(tiny_folder, path=str(tiny_folder / "nowhere")), home)
    assert f"no checkpoint at {tiny_folder / 'nowhere'}" in message


def test_nan_in_the_weights_names_the_parameter(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    folder = make_sae(tmp_path / "nan")
    weights = load_file(folder / "sae_weights.safetensors")
    weights["W_enc"][3, 4] = float("nan")
    save_file(weights, folder / "sae_weights.safetensors")
    assert "W_enc holds 1 NaN" in _corpus_error(_with_sae(tiny_folder, path=str(folder)), home)


def test_a_corpus_too_small_names_both_numbers(tiny_folder: Path, home: Path) -> None:
    message = _corpus_error(make_settings(tiny_folder, evaluation_samples=5000), home)
    assert "the corpus holds" in message
    assert "5000 are requested" in message


def test_samples_longer_than_the_models_context_name_both_numbers(tiny_folder: Path, home: Path) -> None:
    corpus = {"source": str(tiny_folder / "texts"), "max_length": 100}
    message = _corpus_error(make_settings(tiny_folder, corpus=corpus, evaluation_samples=2), home)
    assert "max_length is 100" in message
    assert "at most 64 positions" in message


def test_a_corpus_source_without_files_is_named(tiny_folder: Path, home: Path) -> None:
    corpus = {"source": str(tiny_folder / "*.nothing"), "max_length": 16}
    assert "matches no file" in _corpus_error(make_settings(tiny_folder, corpus=corpus), home)


@pytest.mark.parametrize("value", [0, -1, 1.5, "banana"])
def test_a_wrong_vectorization_batch_size_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"'auto' or a whole number of at least 1, got"):
        GpuResource(vectorization_batch_size=value)


@pytest.mark.parametrize("value", ["auto", 128, "128"])
def test_a_right_vectorization_batch_size_is_taken(value: Any) -> None:
    assert str(GpuResource(vectorization_batch_size=value).vectorization_batch_size) == str(value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "banana"])
def test_a_wrong_batch_size_is_refused_before_a_run_is_made(tiny_folder: Path, home: Path, value: Any) -> None:
    project = Project(make_settings(tiny_folder), home)
    config = {"resources": {"gpu": {"config": {"vectorization_batch_size": value}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="whole number of at least 1"):
        project.execute([dg.AssetKey(["tiny", "corpus"])], config=config)
    assert project.instance.get_runs() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k_examples": 0}, "top_k_examples must be at least 1, got 0"),
        ({"chunk_size": -5}, "chunk_size must be at least 1"),
        ({"min_activation": float("nan")}, "min_activation must be at least 0"),
        ({"saes": {}}, "at least one SAE"),
        ({"corpus": {"source": "x", "max_length": 8, "exclude_first_positions": 8}}, "leaves none of max_length 8"),
        ({"corpus": {"source": "x", "max_length": 8, "exclude_positions": [8]}}, "positions are 0 to 7"),
        ({"corpus": {"source": "x", "max_length": 2, "exclude_positions": [0, 1]}}, "leaves none of max_length 2"),
        ({"corpus": {"source": "x", "exclude_outlier_norms": 0.5}}, "exclude_outlier_norms must be at least 1"),
        ({"corpus": {"source": "x", "shuffle_seed": -1}}, "shuffle_seed must be at least 0"),
        ({"corpus": {"source": "x", "sequence_separator_token": "eos"}}, "set packing: concatenated"),
        ({"corpus": {"source": "x", "attention_mask_column": "mask"}}, "set token_column too"),
        ({"corpus": {"source": "x", "token_column": "ids", "text_column": "body"}}, "are both set"),
        ({"name": "corpora"}, "a folder beside the extractions has that name"),
        ({"name": "my demo"}, "letters, digits and underscores"),
        ({"top_k": 5}, "Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_by_name(tiny_folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_settings(tiny_folder, **change)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    middle = len(data) * 2 // 3
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [_cut, _flip])
@pytest.mark.parametrize("pattern", ["*.parquet", "*.statistics.safetensors", "*.draws.pq"])
def test_a_damaged_table_stops_the_merge_and_earlier_rows_stay(
    project: Project, home: Path, damage: Callable[[bytes], bytes], pattern: str
) -> None:
    before = project.rows("SELECT * FROM feature_activations")
    victim = sorted((home / "tiny" / "relu" / "top_k_table").glob(pattern))[1]
    victim.write_bytes(damage(victim.read_bytes()))
    with pytest.raises(dg.Failure) as caught:
        project.merge("relu")
    assert victim.name in str(caught.value.description)
    assert "damaged" in str(caught.value.description)
    assert project.rows("SELECT * FROM feature_activations") == before


def test_a_damaged_corpus_file_is_named(tiny_folder: Path, home: Path) -> None:
    project = Project(make_settings(tiny_folder), home)
    project.corpus()
    victim = next(home.glob("corpora/*/token_ids.npy"))
    victim.write_bytes(_flip(victim.read_bytes()))
    with pytest.raises(dg.Failure, match=r"token_ids\.npy is damaged"):
        project.chunks()
    project.corpus()  # and is mended by materializing the corpus again
    project.chunks()


def test_chunks_before_their_corpus_say_what_to_do(tiny_folder: Path, home: Path) -> None:
    with pytest.raises(dg.Failure, match="materialize tiny/corpus first"):
        Project(make_settings(tiny_folder), home).chunks()


def test_a_corpus_of_other_settings_is_refused(tiny_folder: Path, home: Path) -> None:
    Project(make_settings(tiny_folder), home).corpus()
    shorter = make_settings(tiny_folder, corpus={"source": str(tiny_folder / "texts"), "max_length": 8})
    with pytest.raises(dg.Failure, match="made from other settings"):
        Project(shorter, home).chunks()


def test_non_finite_activations_name_sample_and_hook(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from extraction_assets.engine.models.language_model import LanguageModel

    right = LanguageModel.activations

    def broken(self: LanguageModel, *args: Any) -> dict[str, torch.Tensor]:
        captured = {hook: output.clone() for hook, output in right(self, *args).items()}
        captured["layers.1"][2, 3] = float("inf")
        return captured

    project = Project(make_settings(tiny_folder), home)
    project.corpus()
    monkeypatch.setattr(LanguageModel, "activations", broken)
    monkeypatch.setattr(LanguageModel, "hook_widths", lambda _self: {"layers.0": 16, "layers.1": 16})
    with pytest.raises(dg.Failure, match=r"hook 'layers.1', which SAE 'topk' reads.* in sample 2, position 3"):
        project.chunks()


def test_a_corrupt_sae_configuration_is_named(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    folder = make_sae(tmp_path / "bad")
    (folder / "cfg.json").write_text(json.dumps({"architecture": "tanh"}))
    message = _corpus_error(_with_sae(tiny_folder, path=str(folder)), home)
    assert "architecture 'tanh' is not supported" in message
