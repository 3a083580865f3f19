"""An SAE that encodes only, a layer of a cross-layer transcoder, runs, and nothing is said of its reconstruction."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from extraction_assets.assets.chunks.checks import RECONSTRUCTS
from extraction_assets.cli.check import _numbers
from extraction_assets.early_checks.extraction import Examination, Machine, examine_extraction
from extraction_assets.execution.keys import sae_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_files import read_record
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.engine.saes.formats.published_layouts import write_mntss
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


def settings_of(tiny_folder: Path, root: Path, **sae: Any) -> ExtractionSettings:
    layer = {"path": str(write_mntss(root, layer=1)), "subfolder": "W_enc_1.safetensors", "maximum_bos_share": 1, **sae}
    return make_settings(tiny_folder, saes={"clt": layer}, evaluation_samples=8)


@pytest.fixture
def project(tiny_folder: Path, home: Path, tmp_path: Path) -> Project:
    return Project(settings_of(tiny_folder, tmp_path / "clt"), home)


def evaluations(project: Project) -> list[dg.AssetCheckEvaluation]:
    check = dg.AssetCheckKey(sae_key(project.settings, "clt", "top_k_table"), RECONSTRUCTS)
    return [
        evaluation
        for result in (project.chunks(), project.checks_alone([check]))
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == RECONSTRUCTS
    ]


def test_its_reconstruction_is_not_applicable_when_it_is_computed_and_later(project: Project) -> None:
    project.corpus()
    found = evaluations(project)
    assert [evaluation.passed for evaluation in found] == [True, True]
    assert ["not applicable: this SAE encodes only" in str(one.description) for one in found] == [True, True]
    assert [name for one in found for name in one.metadata if "variance" in name or name == "minimum"] == []


def test_no_file_event_or_row_holds_a_number_for_its_reconstruction(project: Project) -> None:
    project.merged()
    (chunk,) = project.settings.chunks
    for asset in ("sae_features", "top_k_table"):
        record = read_record(project.plan.chunk_path(asset, chunk, "clt"))
        assert record["variance_explained"] is None
        json.dumps(record, allow_nan=False)
        key = sae_key(project.settings, "clt", asset)
        event = project.instance.get_latest_materialization_event(key)
        assert event is not None
        assert event.asset_materialization is not None
        assert "variance_explained" not in event.asset_materialization.metadata
        assert event.asset_materialization.metadata["mean_l0"].value > 0
    assert project.rows("SELECT count(*) FROM features WHERE activation_count > 0")[0][0] > 0


def test_stored_features_of_it_are_read_again(project: Project) -> None:
    project.corpus()
    project.chunks(assets=[sae_key(project.settings, "clt", "sae_features")])
    project.chunks(assets=[sae_key(project.settings, "clt", "top_k_table")])
    (chunk,) = project.settings.chunks
    assert read_record(project.plan.chunk_path("top_k_table", chunk, "clt"))["variance_explained"] is None


def examined(settings: ExtractionSettings, home: Path) -> Examination:
    machine = Machine(torch.device("cpu"), "highest", ChunkStore(home), None)
    return examine_extraction(settings, machine, logging.getLogger("test"))


def test_check_says_how_sparse_it_is_and_of_its_reconstruction_that_it_has_none(
    tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    found = examined(settings_of(tiny_folder, tmp_path / "clt"), home)
    assert not found.fails
    assert (found.hooks["clt"], found.sanity["clt"].variance_explained) == ("blocks.1.hook_resid_mid", None)
    assert found.sanity["clt"].mean_l0 > 0
    line = _numbers("clt", found.sanity["clt"], "of 8 samples")
    assert line.split()[:2] == ["clt", "n/a"]
    assert str(math.nan) not in line


def test_a_hook_out_for_it_is_refused_with_what_to_do(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    project = Project(settings_of(tiny_folder, tmp_path / "clt", hook_out="layers.1"), home)
    with pytest.raises(Exception, match=r"encodes only, and gives the activations of no hook: leave out saes.clt.hook"):
        project.corpus()
