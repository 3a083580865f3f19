"""Staleness as Dagster's UI shows it: a changed setting marks what it affects, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions import data_version
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.execution.context import data_version_cache
from dagster._core.loader import LoadingContextForTest

from extraction_assets import default_resources
from extraction_assets.catalog import FEATURE_DIRECTIONS, FEATURE_EXPORTS, FEATURE_RELATIONS
from extraction_assets.component import build_definitions
from extraction_assets.execution import lineage as lineage_module
from extraction_assets.execution.keys import activations_key, sae_key
from extraction_assets.execution.lineage import Lineage
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.fingerprints import VERSIONS
from extraction_assets_tests.planning.test_raised_versions import shown_by_dagster
from extraction_assets_tests.project import Project
from extraction_assets_tests.statements import counted_statements
from extraction_assets_tests.tiny import make_sae, make_settings


def stale_assets(project: Project, settings: ExtractionSettings) -> dict[str, set[str | None]]:
    """Asset -> its stale partitions, once the definitions are loaded with ``settings``; nothing for fresh assets."""
    resources = dg.Definitions(resources=default_resources())
    graph = dg.Definitions.merge(build_definitions(settings), resources).resolve_asset_graph()
    context = LoadingContextForTest(project.instance)
    resolver = CachingStaleStatusResolver(project.instance, graph, context)
    found: dict[str, set[str | None]] = {}
    for key in sorted(graph.materializable_asset_keys):
        keys: list[str | None] = [*settings.chunk_keys] if graph.get(key).is_partitioned else [None]
        stale = {k for k in keys if resolver.get_status(key, k) == StaleStatus.STALE}
        if stale:
            found["/".join(key.path[1:])] = stale
    return found


def with_sae(settings: ExtractionSettings, name: str, **changes: Any) -> ExtractionSettings:
    changed = settings.saes[name].model_copy(update=changes)
    return settings.model_copy(update={"saes": {**settings.saes, name: changed}})


CHUNKS = 4
NEVER_MADE = (FEATURE_RELATIONS, FEATURE_DIRECTIONS, FEATURE_EXPORTS)
"""Of the project below."""


@pytest.fixture(scope="module", params=["few chunks", "many chunks"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A finished extraction. From 100 chunks on, here from 4, Dagster looks no further than the code version."""
    folder = tmp_path_factory.mktemp("tiny")
    small = {"source": str(folder / "texts"), "max_length": 5}
    settings = make_settings(folder, corpus=small, chunk_size=1, evaluation_samples=CHUNKS)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "many chunks":
            for module in (data_version, data_version_cache):
                patch.setattr(module, "SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD", CHUNKS)
        yield Project(settings, tmp_path_factory.mktemp("home")).everything()


def test_nothing_is_stale_after_a_run(project: Project) -> None:
    assert stale_assets(project, project.settings) == {}


def test_another_k_marks_tables_and_merges(project: Project) -> None:
    every = set(project.settings.chunk_keys)
    assert stale_assets(project, project.settings.model_copy(update={"top_k_examples": 3})) == {
        "relu/top_k_table": every,
        "topk/top_k_table": every,
        "relu/feature_examples": {None},
        "topk/feature_examples": {None},
    }


def test_another_sae_marks_its_own_assets(project: Project, tmp_path: Path) -> None:
    other = with_sae(project.settings, "relu", path=str(make_sae(tmp_path / "other", seed=9)))
    assert set(stale_assets(project, other)) == {"relu/sae_features", "relu/top_k_table", "relu/feature_examples"}


def test_weights_replaced_in_place_mark_the_saes_assets(project: Project) -> None:
    weights = Path(project.settings.saes["topk"].path) / "sae_weights.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert set(stale_assets(project, project.settings)) == {
            "topk/sae_features",
            "topk/top_k_table",
            "topk/feature_examples",
        }
    finally:
        weights.write_bytes(before)


def test_another_hook_marks_the_activations_and_its_saes_assets(project: Project) -> None:
    assert set(stale_assets(project, with_sae(project.settings, "relu", hook="layers.2"))) == {
        "model_activations",
        "relu/sae_features",
        "relu/top_k_table",
        "relu/feature_examples",
    }


def test_another_corpus_marks_everything_made_from_it(project: Project) -> None:
    corpus = project.settings.corpus.model_copy(update={"max_length": 6})
    assert set(stale_assets(project, project.settings.model_copy(update={"corpus": corpus}))) == {
        "corpus",
        "model_activations",
        *(
            f"{sae}/{asset}"
            for sae in ("relu", "topk")
            for asset in ("sae_features", "top_k_table", "feature_examples")
        ),
    }


@pytest.mark.parametrize("kind", VERSIONS)
def test_another_version_of_a_kind_marks_it_and_what_is_made_from_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(VERSIONS, kind, 99)
    made = shown_by_dagster(kind) - set(NEVER_MADE)  # Dagster calls what is missing missing, not stale
    assert {key.split("/")[-1] for key in stale_assets(project, project.settings)} == made


def test_a_checkpoint_is_the_same_wherever_its_folder_lies(project: Project, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in Path(project.settings.saes["relu"].path).iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert stale_assets(project, with_sae(project.settings, "relu", path=str(moved))) == {}


@pytest.mark.slow
def test_more_samples_leave_the_chunks_fresh_and_mark_corpus_and_merges(tiny_folder: Path, tmp_path: Path) -> None:
    project = Project(make_settings(tiny_folder, evaluation_samples=16), tmp_path).everything()
    more = make_settings(tiny_folder, evaluation_samples=23)
    assert set(stale_assets(project, more)) == {"corpus", "relu/feature_examples", "topk/feature_examples"}
    longer = Project(more, tmp_path, instance=project.instance)
    longer.corpus()
    assert set(stale_assets(longer, more)) == {"relu/feature_examples", "topk/feature_examples"}
    longer.chunks(2, 2)
    longer.merge("relu")
    longer.merge("topk")
    assert set(stale_assets(longer, more)) == {"relu/feature_report", "topk/feature_report"}


@pytest.mark.slow
def test_another_text_makes_the_activations_stale_once_it_is_tokenized(tiny_folder: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("the quick brown fox " * 200)
    corpus = {"source": str(texts), "max_length": 16}
    project = Project(make_settings(tiny_folder, corpus=corpus), tmp_path / "home").everything()
    (texts / "a.txt").write_text("the lazy dog " * 300)
    project.corpus()
    assert stale_assets(project, project.settings) == {"model_activations": set(project.settings.chunk_keys)}
    project.chunks(0, 0)
    rest = project.settings.chunk_keys[1:]
    assert stale_assets(project, project.settings) == {
        "model_activations": set(rest),
        "relu/feature_examples": {None},
        "topk/feature_examples": {None},
    }


@pytest.mark.slow
def test_computing_again_what_is_equal_leaves_everything_fresh(tiny_folder: Path, tmp_path: Path) -> None:
    project = Project(make_settings(tiny_folder), tmp_path).everything()
    project.corpus()
    project.chunks(assets=[activations_key(project.settings)])
    project.chunks(1, 2)
    assert stale_assets(project, project.settings) == {}


@pytest.mark.slow
def test_the_events_tags_say_what_a_chunk_was_made_from(tiny_folder: Path, tmp_path: Path) -> None:
    project = Project(make_settings(tiny_folder), tmp_path)
    project.corpus()
    project.chunks()
    settings, key = project.settings, project.settings.chunk_keys[1]
    filters = dg.AssetRecordsFilter(asset_key=sae_key(settings, "relu", "sae_features"), asset_partitions=[key])
    (record,) = project.instance.fetch_materializations(filters, limit=9).records
    upstream = dg.AssetRecordsFilter(asset_key=activations_key(settings), asset_partitions=[key])
    (activations,) = project.instance.fetch_materializations(upstream, limit=9).records
    tags = record.asset_materialization.tags if record.asset_materialization else {}
    assert tags["dagster/input_event_pointer/tiny/model_activations"] == str(activations.storage_id)
    assert tags["dagster/data_version"] == project.plan.features_fingerprint(project.settings.chunk(key), "relu")


@pytest.mark.slow
def test_a_chunk_made_again_points_to_what_was_made_with_it(tiny_folder: Path, tmp_path: Path) -> None:
    project = Project(make_settings(tiny_folder), tmp_path)
    project.corpus()
    for _ in range(2):
        project.chunks(0, 1)
    activations, features, table = (_latest_ids(project, project.chunk_assets[number]) for number in (0, 3, 4))
    assert len(activations) == len(features) == len(table) == 4
    assert list(features.values()) == [{str(number)} for number in activations]
    assert list(table.values()) == [{str(number)} for number in features]


def _latest_ids(project: Project, key: dg.AssetKey) -> dict[int, set[str]]:
    """Storage ids of an asset's events, the newest first, with the pointers in their tags."""
    records = project.instance.fetch_materializations(key, limit=9).records
    tags = {one.storage_id: (one.asset_materialization and one.asset_materialization.tags) or {} for one in records}
    return {number: {tag[key] for key in tag if "input_event_pointer" in key} for number, tag in tags.items()}


def test_pointers_to_what_a_run_does_not_make_are_looked_up_with_one_query(project: Project) -> None:
    lineage, features = Lineage(project.instance, project.plan), sae_key(project.settings, "relu", "sae_features")
    with counted_statements("event_logs") as queries:
        tags = [lineage.tags("top_k_table", "relu", chunk) for chunk in project.settings.chunks]
    assert len(queries) == 1
    for chunk, found in zip(project.settings.chunks, tags, strict=True):
        latest = project.instance.get_latest_data_version_record(features, partition_key=chunk.key)
        assert latest is not None
        assert found[f"dagster/input_event_pointer/{features.to_user_string()}"] == str(latest.storage_id)


def test_pointers_are_looked_up_again_after_a_while(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run may make meanwhile what this one reads: Dagster would show its tables as out of sync."""
    monkeypatch.setattr(lineage_module, "_POINTERS_SECONDS", -1.0)
    lineage = Lineage(project.instance, project.plan)
    with counted_statements("event_logs") as queries:
        tags = [lineage.tags("top_k_table", "relu", project.settings.chunks[0]) for _ in range(3)]
    assert len(queries) == 3
    assert tags[0] == tags[1] == tags[2]


def test_a_pointer_of_an_earlier_form_still_names_the_corpus(tiny_folder: Path, tmp_path: Path) -> None:
    project = Project(make_settings(tiny_folder), tmp_path)
    project.corpus()
    pointer = tmp_path / "tiny" / "corpus.json"
    content = json.loads(pointer.read_text())
    del content["version"], content["checksum"]
    pointer.write_text(json.dumps(content, indent=1, sort_keys=True))
    assert project.plan.corpus_version == project.plan.corpus.manifest.fingerprint


def test_the_checks_of_a_chunk_are_targeted_with_one_query(project: Project) -> None:
    table, chunk = sae_key(project.settings, "relu", "top_k_table"), project.settings.chunk_keys[0]
    lineage = Lineage(project.instance, project.plan)
    checks = [
        dg.AssetCheckEvaluation(check_name=name, passed=True, metadata={}, asset_key=table, partition=chunk)
        for name in ("one", "two", "three", "four")
    ]
    with counted_statements("event_logs") as queries:
        targeted = [lineage.targeted(check) for check in checks]
    assert len(queries) == 1
    assert [one.check_name for one in targeted] == ["one", "two", "three", "four"]
    latest = project.instance.get_latest_data_version_record(table, partition_key=chunk)
    assert latest is not None
    assert {one.target_materialization_data.storage_id for one in targeted} == {latest.storage_id}  # type: ignore[union-attr]
