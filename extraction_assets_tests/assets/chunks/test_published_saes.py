"""Extractions with SAEs whose checkpoints say where they read: the hook, a transcoder's output, a subfolder."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.assets.chunks.pending import Pending, merge_is_recorded
from extraction_assets.early_checks.extraction import Machine, examine_extraction
from extraction_assets.execution.keys import sae_key
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_files import read_activations, read_record
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_sae, make_settings

KEY = "000000000000"


def settings_of(tiny_folder: Path, **sae: Any) -> ExtractionSettings:
    own = {"minimum_variance_explained": -1e9, **sae}
    return make_settings(tiny_folder, saes={"own": own}, evaluation_samples=8)


@pytest.fixture
def transcoder(tmp_path: Path) -> Path:
    hooks = {"hook_name": "layers.0", "hook_name_out": "layers.2"}
    return make_sae(tmp_path / "many" / "transcoder", "skip_transcoder", metadata=hooks)


@pytest.mark.slow
def test_a_transcoder_runs_from_its_own_record(tiny_folder: Path, home: Path, transcoder: Path) -> None:
    project = Project(settings_of(tiny_folder, path=str(transcoder.parent), subfolder="transcoder"), home)
    project.merged()
    plan = project.plan
    stored, _ = read_activations(
        plan.chunk_path("model_activations", plan.settings.chunk(KEY)),
        plan.activations_fingerprint(plan.settings.chunk(KEY)),
    )
    assert list(stored) == ["layers.0", "layers.2"]
    assert project.rows("SELECT hook FROM extractions") == [("layers.0",)]
    explained = read_record(plan.chunk_path("top_k_table", plan.settings.chunk(KEY), "own"))["variance_explained"]
    project.chunks(assets=[sae_key(project.settings, "own", "sae_features")])  # from the stored activations
    again = read_record(plan.chunk_path("top_k_table", plan.settings.chunk(KEY), "own"))["variance_explained"]
    assert explained == pytest.approx(again)
    other = Project(settings_of(tiny_folder, path=str(transcoder), hook_out="layers.1"), home)
    assert other.plan.missing_chunks() == [KEY]  # its check was against another hook
    other.merged()
    assert (
        read_record(other.plan.chunk_path("top_k_table", other.settings.chunk(KEY), "own"))["variance_explained"]
        != explained
    )


@pytest.mark.slow
def test_what_a_checkpoint_records_leaves_events_current(tiny_folder: Path, home: Path, transcoder: Path) -> None:
    project = Project(settings_of(tiny_folder, path=str(transcoder)), home).merged()
    project.execute([sae_key(project.settings, "own", "feature_report")])
    assert merge_is_recorded(project.plan, "own", project.instance)
    assert list(Pending(project.plan, project.instance).keys) == []


@pytest.mark.parametrize(
    ("hook", "is_reported"), [("model.layers.2", True), ("layers.1.output", False), ("blocks.2.hook_resid_pre", False)]
)
def test_another_tensor_than_the_recorded_one_is_reported_in_any_spelling(
    hook: str, is_reported: bool, tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    folder = make_sae(tmp_path / "sae", metadata={"hook_name": "blocks.1.hook_resid_post"})
    found = examine_extraction(
        settings_of(tiny_folder, path=str(folder), hook=hook),
        Machine(torch.device("cpu"), "highest", ChunkStore(home), None),
        logging.getLogger("test"),
    )
    expected = f"SAE 'own': it was trained on hook blocks.1.hook_resid_post, but reads {hook}"
    assert (expected in [finding.message for finding in found.findings]) is is_reported
    assert not found.fails


@pytest.mark.slow
def test_what_check_measures_is_what_a_chunk_records(tiny_folder: Path, home: Path, transcoder: Path) -> None:
    normalised = make_sae(transcoder.parent / "normalised", normalize_activations="layer_norm")
    saes: list[dict[str, Any]] = [{"path": str(transcoder)}, {"path": str(normalised), "hook": "layers.1"}]
    for number, own in enumerate(saes):
        project = Project(settings_of(tiny_folder, **own), home / str(number))
        project.corpus()
        project.chunks()
        record = read_record(project.plan.chunk_path("top_k_table", project.settings.chunk(KEY), "own"))
        machine = Machine(torch.device("cpu"), "highest", ChunkStore(project.home), None)
        found = examine_extraction(project.settings, machine, logging.getLogger("test"))
        assert found.sanity["own"].variance_explained == pytest.approx(record["variance_explained"], rel=1e-5)
    assert found.hooks == {"own": "layers.1"}


def test_an_sae_without_a_hook_fails_with_what_to_set(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    project = Project(settings_of(tiny_folder, path=str(make_sae(tmp_path / "sae"))), home)
    with pytest.raises(Exception, match=r"does not say which hook it reads: set saes\.own\.hook"):
        project.corpus()


def test_a_transcoder_of_another_output_width_is_found_before_work(
    tiny_folder: Path, home: Path, transcoder: Path
) -> None:
    project = Project(settings_of(tiny_folder, path=str(transcoder), hook_out="layers.2.mlp.up_proj"), home)
    with pytest.raises(Exception, match=r"gives activations of width d_out = 16, but hook 'layers.2.mlp.up_proj'"):
        project.corpus()


@pytest.mark.slow
def test_what_differs_from_the_record_is_logged(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    recorded = {"hook_name": "layers.0", "model_name": "gpt2-small", "context_size": 8}
    project = Project(settings_of(tiny_folder, path=str(make_sae(tmp_path / "sae", metadata=recorded))), home)
    project.corpus()
    result = project.chunks()
    warnings = [
        entry.user_message for entry in project.instance.all_logs(result.run_id) if entry.level == logging.WARNING
    ]
    assert any("SAE 'own': it was trained on model gpt2-small" in message for message in warnings)
    assert any("samples of 8 positions; corpus.max_length is 16" in message for message in warnings)


def test_code_versions_know_options_and_checkpoints_without_a_hook(tiny_folder: Path, transcoder: Path) -> None:
    def versions(**sae: Any) -> tuple[str, str]:
        own = CodeVersions(settings_of(tiny_folder, **sae))
        return own.of("model_activations"), own.of("sae_features", "own")

    plain = {"path": str(transcoder), "hook": "layers.0"}
    assert versions(**plain) == versions(**plain, fold_decoder_norm=False)
    assert versions(**plain)[1] != versions(**plain, fold_decoder_norm=True)[1]
    assert versions(**plain)[0] != versions(path=str(transcoder))[0]
    inside = {"path": str(transcoder.parent), "subfolder": "transcoder"}
    assert versions(**inside, hook="layers.0") == versions(**plain)
    make_sae(transcoder.parent / "other", seed=8)
    assert versions(path=str(transcoder))[0] != versions(path=str(transcoder.parent / "other"))[0]
