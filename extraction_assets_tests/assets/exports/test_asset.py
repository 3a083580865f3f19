"""``exports: [...]``: an asset for each format and SAE, whose folder is replaced once a new one is whole."""

import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from extraction_assets import default_resources
from extraction_assets.catalog import FEATURE_EXPORTS, export_asset
from extraction_assets.component import build_definitions
from extraction_assets.dagster_instance.dead_runs import belongs_to
from extraction_assets.database.connect import open_database
from extraction_assets.database.labels import label_transaction, save_label
from extraction_assets.execution.keys import asset_key, sae_key
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.formats import jsonl
from extraction_assets.exports.output import MANIFEST
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.upkeep.delete import find_stored_files, remove_stored_files
from extraction_assets_tests.command import declare, succeed
from extraction_assets_tests.exports.written import json_lines
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


@pytest.fixture
def exporting(project: Project) -> Project:
    """The tiny extraction, merged, which then gets an export."""
    settings = project.settings.model_copy(update={"exports": ("jsonl",)})
    return Project(settings, project.home, instance=project.instance)


def run_export(project: Project) -> dg.AssetMaterialization:
    """Materializes the export of ``relu``."""
    result = project.execute([sae_key(project.settings, "relu", export_asset("jsonl"))])
    (event,) = result.asset_materializations_for_node("tiny__relu__export_jsonl")
    return event


def graph_of(settings: ExtractionSettings) -> Any:
    """The asset graph of an extraction."""
    resources = dg.Definitions(resources=default_resources())
    return dg.Definitions.merge(build_definitions(settings), resources).resolve_asset_graph()


def folder_of(project: Project) -> Path:
    return project.home / "tiny" / "relu" / FEATURE_EXPORTS / "jsonl"


def label_feature(project: Project, text: str) -> None:
    """Changes what the export follows from, without a merge."""
    engine = open_database(project.url)
    with label_transaction(engine) as connection:
        save_label(connection, "tiny", "relu", 3, label=text)
    engine.dispose()


def test_each_format_is_an_asset_of_each_sae_after_what_it_holds(tiny_folder: Path) -> None:
    settings = make_settings(tiny_folder, exports=["jsonl", "neuronpedia-upload"])
    graph = graph_of(settings)
    for sae in settings.saes:
        for name in ("export_jsonl", "export_neuronpedia_upload"):
            key = dg.AssetKey(["tiny", sae, name])
            parents = ("feature_examples", "feature_relations", "feature_directions")
            assert graph.get(key).parent_keys == {asset_key(settings, parent, sae) for parent in parents}
            assert belongs_to(key, "tiny", sae)


def test_without_the_setting_there_is_none(tiny_folder: Path) -> None:
    keys = graph_of(make_settings(tiny_folder)).get_all_asset_keys()
    assert not [key for key in keys if "export" in key.path[-1]]


@pytest.mark.parametrize(("exports", "said"), [(["xml"], "no export format 'xml'"), (["jsonl", "jsonl"], "twice")])
def test_a_format_that_there_is_not_and_one_named_twice_are_refused(
    tiny_folder: Path, exports: list[str], said: str
) -> None:
    with pytest.raises((ExportError, ValidationError), match=said):
        build_definitions(make_settings(tiny_folder, exports=exports))


def test_it_writes_the_folder_and_says_what_is_in_it(exporting: Project) -> None:
    event = run_export(exporting)
    assert len(json_lines(folder_of(exporting) / "batch-0.jsonl.gz")) == 48
    assert event.metadata["path"].value == str(folder_of(exporting))
    assert (event.metadata["features"].value, event.metadata["files_written"].value) == (48, 2)


def test_a_second_run_of_the_same_result_writes_nothing(exporting: Project) -> None:
    run_export(exporting)
    assert run_export(exporting).metadata["files_written"].value == 0


def test_what_was_removed_is_written_again(exporting: Project) -> None:
    run_export(exporting)
    (folder_of(exporting) / "batch-0.jsonl.gz").unlink()
    assert run_export(exporting).metadata["files_written"].value == 1
    assert (folder_of(exporting) / "batch-0.jsonl.gz").is_file()


def test_a_new_result_takes_the_place_of_the_old_one(exporting: Project) -> None:
    run_export(exporting)
    label_feature(exporting, "foxes")
    run_export(exporting)
    assert json_lines(folder_of(exporting) / "batch-0.jsonl.gz")[3]["label"]["label"] == "foxes"
    assert [path.name for path in folder_of(exporting).parent.iterdir()] == ["jsonl"]


def test_while_the_new_one_is_not_whole_the_old_one_stays_and_it_goes_on_later(
    exporting: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_export(exporting)
    label_feature(exporting, "foxes")
    monkeypatch.setattr(jsonl, "FEATURES_IN_FILE", 16)
    line = jsonl.feature_line

    def failing(source, feature):  # type: ignore[no-untyped-def]
        if feature.neuron_index == 40:
            raise ValueError("no more")
        return line(source, feature)

    with monkeypatch.context() as context, pytest.raises(Exception, match="no more"):
        context.setattr(jsonl, "feature_line", failing)
        run_export(exporting)
    assert json_lines(folder_of(exporting) / "batch-0.jsonl.gz")[3]["label"] is None
    assert run_export(exporting).metadata["files_written"].value == 1
    assert len(list(folder_of(exporting).glob("batch-*"))) == 3


def test_delete_removes_an_export_and_leaves_other_files(exporting: Project) -> None:
    run_export(exporting)
    other = folder_of(exporting).parent / "letter.txt"
    other.write_text("dear")
    store = ChunkStore(exporting.home)
    found = find_stored_files(store, "tiny", "relu")
    assert folder_of(exporting) / MANIFEST in {one.path for one in found.items}
    assert found.left == [other]
    remove_stored_files(store, "tiny", "relu")
    assert not folder_of(exporting).exists()


@pytest.mark.slow
def test_the_command_run_makes_the_exports_last(
    exporting: Project, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    settings: ExtractionSettings = exporting.settings
    succeed(declare(monkeypatch, settings), "run", "tiny", "--missing", "--device", "cpu")
    for sae in settings.saes:
        manifest = json.loads((home / "tiny" / sae / FEATURE_EXPORTS / "jsonl" / MANIFEST).read_text())
        assert manifest["finished_at"] is not None
        assert manifest["made_from"]["directions"] is not None


def export_lines(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `status` says of exports."""
    module = declare(monkeypatch, project.settings)
    return [" ".join(line.split()) for line in succeed(module, "status", "tiny").splitlines() if "export_" in line]


def test_status_says_which_exports_are_there(exporting: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export_lines(exporting, monkeypatch) == [
        "relu/export_jsonl not exported yet",
        "topk/export_jsonl not exported yet",
    ]
    run_export(exporting)
    (said, _) = export_lines(exporting, monkeypatch)
    assert re.fullmatch(r"relu/export_jsonl exported \d{4}-\d\d-\d\d \d\d:\d\d UTC", said)
    manifest = folder_of(exporting) / MANIFEST
    manifest.write_text(manifest.read_text().replace('"examples": "', '"examples": "0'))
    assert export_lines(exporting, monkeypatch)[0].endswith("UTC, stale: of another merge")
