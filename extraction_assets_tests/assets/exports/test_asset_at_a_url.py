"""The export of an asset whose chunk store is at a URL: written in place, its manifest at the end."""

from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from extraction_assets.exports.formats import jsonl
from extraction_assets.exports.output import MANIFEST
from extraction_assets.resources import ChunkStoreResource
from extraction_assets.upkeep.delete import find_stored_files, remove_stored_files
from extraction_assets_tests.assets.exports.test_asset import folder_of, label_feature, run_export
from extraction_assets_tests.project import Project


@pytest.fixture
def at_url(project: Project, tmp_path: Path) -> Project:
    """The tiny extraction, merged, whose next files lie in fsspec's memory."""
    settings = project.settings.model_copy(update={"exports": ("jsonl",)})
    store = ChunkStoreResource(root=f"memory://{tmp_path.name}")
    return Project(settings, project.home, instance=project.instance, chunk_store=store)


def files_at(tmp_path: Path) -> dict[str, bytes]:
    """The files of the export by name."""
    memory, folder = MemoryFileSystem(), f"/{tmp_path.name}/tiny/relu/feature_exports/jsonl"
    return {path.removeprefix(f"{folder}/"): memory.cat_file(path) for path in memory.find(folder)}


def test_an_export_at_a_url_is_that_of_a_folder(at_url: Project, tmp_path: Path) -> None:
    event = run_export(at_url)
    found = files_at(tmp_path)
    assert event.metadata["path"].value == f"memory://{tmp_path.name}/tiny/relu/feature_exports/jsonl"
    assert event.metadata["bytes"].value == sum(map(len, found.values()))
    run_export(Project(at_url.settings, at_url.home, instance=at_url.instance))
    local = {path.relative_to(folder_of(at_url)).as_posix(): path for path in folder_of(at_url).rglob("*")}
    assert found.keys() == local.keys()
    assert {name: found[name] for name in found if name != MANIFEST} == {
        name: path.read_bytes() for name, path in local.items() if name != MANIFEST
    }
    assert run_export(at_url).metadata["files_written"].value == 0


def test_another_export_at_a_url_takes_the_place_of_the_one_that_is_there(
    at_url: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(jsonl, "FEATURES_IN_FILE", 10)
        run_export(at_url)
    before = files_at(tmp_path)
    label_feature(at_url, "a label")
    run_export(at_url)
    after = files_at(tmp_path)
    assert {name for name in after if "batch" in name} < {name for name in before if "batch" in name}
    assert after[MANIFEST] != before[MANIFEST]


def test_delete_removes_an_export_at_a_url(at_url: Project, tmp_path: Path) -> None:
    run_export(at_url)
    store = ChunkStoreResource(root=f"memory://{tmp_path.name}").open()
    assert {one.path.name for one in find_stored_files(store, "tiny", "relu").items} == set(files_at(tmp_path))
    remove_stored_files(store, "tiny", "relu")
    assert files_at(tmp_path) == {}
