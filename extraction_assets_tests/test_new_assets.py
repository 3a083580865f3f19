"""A row more in the table of assets, and what follows from it: one made by chunk, and one made once with its file."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest

from extraction_assets import catalog, default_resources
from extraction_assets.catalog import FEATURE_EXAMPLES, TOP_K_TABLE, Asset, Depends
from extraction_assets.component import build_definitions
from extraction_assets.dagster_instance.dead_runs import belongs_to
from extraction_assets.execution.keys import asset_key, chunk_targets
from extraction_assets.stores import chunk_names, fingerprints
from extraction_assets.upkeep.clean import SUPERSEDED, find_garbage
from extraction_assets.upkeep.delete import find_stored_files
from extraction_assets_tests.command import declare, succeed
from extraction_assets_tests.planning.matrix import Laboratory, stale
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

NORMS = Asset(
    "feature_norms",
    scope="sae",
    partitioned=True,
    upstream=TOP_K_TABLE,
    stored_as="Parquet",
    files=(".parquet",),
    dagster_kind="parquet",
    description="Norms of the activations on which each feature fires.",
    builder="chunks.asset:build_chunk_assets",
    fingerprint_parts=(TOP_K_TABLE,),
    depends=(Depends("top_positions"),),
)
PAGE = Asset(
    "feature_page",
    scope="sae",
    partitioned=False,
    upstream=FEATURE_EXAMPLES,
    stored_as="HTML",
    files=("page.html",),
    dagster_kind="html",
    description="A page of its own.",
    builder="page.asset:build_page",
)


def build_page(settings: Any, sae: str) -> dg.AssetsDefinition:
    """What the file of a new asset gives."""

    @dg.asset(key=asset_key(settings, PAGE.name, sae), deps=[asset_key(settings, str(PAGE.upstream), sae)])
    def page() -> None: ...

    return page


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table with both rows, as if it had been imported so."""
    monkeypatch.setattr(catalog, "ASSETS", (*catalog.ASSETS, NORMS, PAGE))
    monkeypatch.setitem(chunk_names.FORMS, NORMS.name, NORMS.files)
    for row in (NORMS, PAGE):
        monkeypatch.setitem(fingerprints.VERSIONS, row.name, row.version)
    module = ModuleType("extraction_assets.assets.page.asset")
    module.build_page = build_page  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def project(tiny_folder: Path, home: Path) -> Project:
    project = Project(make_settings(tiny_folder), home)
    project.corpus()
    return project


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"content")
    return path


def test_definitions_hold_both_with_their_keys_and_a_run_selects_them(tiny_folder: Path) -> None:
    settings = make_settings(tiny_folder)
    resources = dg.Definitions(resources=default_resources())
    graph = dg.Definitions.merge(build_definitions(settings), resources).resolve_asset_graph()
    norms, page = (asset_key(settings, row.name, "relu") for row in (NORMS, PAGE))
    assert {norms, page} < set(graph.materializable_asset_keys)
    assert graph.get(norms).is_partitioned
    assert graph.get(norms).parent_keys == {asset_key(settings, TOP_K_TABLE, "relu")}
    assert norms in [target.key for target in chunk_targets(settings)]
    assert catalog.assets_after_chunks()[-1] == PAGE.name
    assert belongs_to(norms, "tiny", "relu")
    assert belongs_to(page, "tiny")
    assert not belongs_to(dg.AssetKey(["tiny", PAGE.name]), "tiny")


@pytest.mark.parametrize(("field", "norms_alone"), [("top_positions", True), ("top_k_examples", False)])
def test_fingerprint_and_code_version_cover_its_own_fields_and_those_upstream(
    tmp_path: Path, field: str, norms_alone: bool
) -> None:
    laboratory = Laboratory(tmp_path)
    before, after = laboratory.settings({}), laboratory.settings({}, {field: 3})
    norms = {f"{sae}/{NORMS.name}" for sae in before.saes}
    for versions in (laboratory.fingerprints, laboratory.code_versions):
        found = stale(versions(before), versions(after))
        assert norms <= found
        assert (found == norms) is norms_alone


def test_status_counts_its_chunks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    put(project.plan.chunk_path(NORMS.name, project.settings.chunks[1], "relu"))
    output = succeed(declare(monkeypatch, project.settings), "status", "tiny")
    (line,) = (line for line in output.splitlines() if line.startswith(f"relu/{NORMS.name} "))
    assert line.split()[1:] == ["1", "0", "2"]


def test_clean_finds_what_is_superseded_of_it_and_leaves_the_rest(project: Project) -> None:
    chunk, plan = project.settings.chunks[0], project.plan
    put(plan.chunk_path(NORMS.name, chunk, "relu"))
    put(plan.store.asset_file("tiny", PAGE.name, "relu"))
    old = put(plan.store.chunk_path("tiny", NORMS.name, "relu", chunk.key, "0" * 24))
    found = find_garbage({"tiny": project.settings}, ["tiny"], plan.store, {})
    assert [(one.kind, one.path) for one in found.items] == [(SUPERSEDED, old)]


def test_delete_removes_the_files_of_both(project: Project) -> None:
    plan = project.plan
    files = {put(plan.chunk_path(NORMS.name, chunk, "relu")) for chunk in project.settings.chunks}
    files.add(put(plan.store.asset_file("tiny", PAGE.name, "relu")))
    found = find_stored_files(plan.store, "tiny", "relu")
    assert {one.path for one in found.items} == files
    assert not found.left


def test_the_documentation_lists_both() -> None:
    assert "| `feature_norms` | `[extraction, sae, feature_norms]` | per chunk | Parquet |" in catalog.assets_table()
    assert PAGE.description in catalog.assets_table()
