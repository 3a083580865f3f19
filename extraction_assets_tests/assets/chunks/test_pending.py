"""What a run of the missing has to compute, and what it only has to record."""

import logging
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from extraction_assets.assets.chunks import run as chunk_run
from extraction_assets.assets.chunks.pending import Pending, range_tags, ranges
from extraction_assets.automation import requests_of_missing
from extraction_assets.execution.keys import REUSE_TAG, chunk_targets, sae_key
from extraction_assets.execution.lineage import Lineage
from extraction_assets.resources import ChunkStoreResource, GpuResource
from extraction_assets.settings import Chunk
from extraction_assets.stores.sealed import set_aside
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

KEYS = ["000000000000", "000000000008", "000000000016"]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """(chunk, assets) of everything that is computed."""
    found: list[tuple[str, list[str]]] = []
    compute = chunk_run.compute_chunk

    def note(plan: Any, loaded: Any, usage: Any, chunk: Chunk, targets: Any, *more: Any) -> Any:
        found.append((chunk.key, ["/".join(target.key.path[1:]) for target in targets]))
        return compute(plan, loaded, usage, chunk, targets, *more)

    monkeypatch.setattr(chunk_run, "compute_chunk", note)
    return found


def _run_requested(project: Project) -> None:
    """What the schedule requests, run."""
    store = ChunkStoreResource(root=str(project.home))
    for request in requests_of_missing(project.settings, store, project.instance):
        project.execute(list(request.asset_selection or ()), dict(request.tags))


def test_nothing_is_pending_after_a_run(recorded: Project) -> None:
    assert Pending(recorded.plan, recorded.instance).keys == []


def test_files_without_events_are_recorded_and_not_computed(
    recorded: Project, computed: list[tuple[str, list[str]]]
) -> None:
    forgetful = Project(recorded.settings, recorded.home)
    assert Pending(forgetful.plan, forgetful.instance).keys == KEYS
    _run_requested(forgetful)
    assert computed == []
    assert Pending(forgetful.plan, forgetful.instance).keys == []


def test_going_back_to_earlier_settings_is_recorded_and_not_computed(
    recorded: Project, tiny_folder: Path, computed: list[tuple[str, list[str]]]
) -> None:
    other = Project(make_settings(tiny_folder, top_k_examples=3), recorded.home, instance=recorded.instance)
    other.chunks()
    computed.clear()
    assert Pending(recorded.plan, recorded.instance).keys == KEYS
    _run_requested(recorded)
    assert computed == []
    assert Pending(recorded.plan, recorded.instance).keys == []


def test_chunks_last_recorded_with_other_settings_are_not_called_unknown(recorded: Project, tiny_folder: Path) -> None:
    other = Project(make_settings(tiny_folder, top_k_examples=3), recorded.home, instance=recorded.instance)
    other.chunks(0, 1)
    pending = Pending(recorded.plan, recorded.instance)
    assert pending.recorded_otherwise == pending.unrecorded == KEYS[:2]


def test_chunks_that_the_history_does_not_know_are_not_called_recorded(recorded: Project) -> None:
    forgetful = Project(recorded.settings, recorded.home)
    pending = Pending(forgetful.plan, forgetful.instance)
    assert (pending.unrecorded, pending.recorded_otherwise) == (KEYS, [])


def test_each_table_is_computed_only_where_it_is_missing(
    recorded: Project, computed: list[tuple[str, list[str]]]
) -> None:
    recorded.plan.chunk_path("top_k_table", recorded.settings.chunk(KEYS[0]), "relu").unlink()
    recorded.plan.chunk_path("top_k_table", recorded.settings.chunk(KEYS[1]), "topk").unlink()
    _run_requested(recorded)
    assert computed == [(KEYS[0], ["relu/top_k_table"]), (KEYS[1], ["topk/top_k_table"])]
    assert recorded.plan.missing_chunks() == []


def test_more_samples_compute_only_new_chunks_though_features_are_not_kept(
    recorded: Project, tiny_folder: Path, computed: list[tuple[str, list[str]]]
) -> None:
    for path in [*recorded.home.glob("tiny/*/sae_features/*"), *recorded.home.glob("tiny/model_activations/*")]:
        path.unlink()
    keep = {"model_activations": False, "sae_features": False}
    more = make_settings(tiny_folder, evaluation_samples=39, keep=keep)
    _run_requested(Project(more, recorded.home, instance=recorded.instance))
    assert [key for key, _ in computed] == ["000000000016", "000000000024", "000000000032"]
    assert not list(recorded.home.glob("tiny/model_activations/*"))


def test_a_chunk_whose_checks_were_not_recorded_is_pending(recorded: Project) -> None:
    """As where the process is killed between the table's event and those of its checks."""
    table = sae_key(recorded.settings, "relu", "top_k_table")
    filters = dg.AssetRecordsFilter(asset_key=table, asset_partitions=[KEYS[1]])
    (record,) = recorded.instance.fetch_materializations(filters, limit=1).records
    assert record.asset_materialization is not None
    recorded.instance.report_runless_asset_event(record.asset_materialization)
    assert Pending(recorded.plan, recorded.instance).keys == [KEYS[1]]


def test_what_was_set_aside_is_written_again_and_nothing_else_that_nobody_asked_for(
    recorded: Project, computed: list[tuple[str, list[str]]]
) -> None:
    features = recorded.plan.chunk_path("sae_features", recorded.settings.chunk(KEYS[1]), "relu")
    set_aside(features)
    recorded.plan.chunk_path("model_activations", recorded.settings.chunk(KEYS[1])).unlink()
    pending = Pending(recorded.plan, recorded.instance)
    assert (pending.keys, pending.set_aside) == ([], [KEYS[1]])
    recorded.chunks(1, 1, pending.assets([KEYS[1]]), {REUSE_TAG: "true"})
    assert computed == [(KEYS[1], ["relu/sae_features"])]
    assert Pending(recorded.plan, recorded.instance).set_aside == []


def test_what_is_not_to_be_kept_is_not_written_again(recorded: Project, tiny_folder: Path) -> None:
    set_aside(recorded.plan.chunk_path("model_activations", recorded.settings.chunk(KEYS[1])))
    settings = make_settings(tiny_folder, keep={"model_activations": False})
    careless = Project(settings, recorded.home, instance=recorded.instance)
    assert Pending(careless.plan, careless.instance).set_aside == []


def test_a_run_of_the_missing_says_that_it_may_reuse(recorded: Project) -> None:
    recorded.plan.chunk_path("top_k_table", recorded.settings.chunk(KEYS[2]), "relu").unlink()
    store = ChunkStoreResource(root=str(recorded.home))
    (request,) = requests_of_missing(recorded.settings, store, recorded.instance)
    assert request.tags == {REUSE_TAG: "true", **range_tags(KEYS[2:])}


def test_chunks_that_are_being_written_are_recorded_though_nobody_asks_for_their_events(
    project: Project,
) -> None:
    """A run is canceled while Dagster stores an event: then it closes the generator and takes no more of it."""
    plan, keys = project.plan, [target.key for target in chunk_targets(project.settings)]
    lineage, logger = Lineage(project.instance, plan), logging.getLogger()
    with chunk_run.ChunkRun(plan, GpuResource(), torch.device("cpu"), keys, lineage, logger) as run:
        events = run.events(plan.settings.chunks)
        next(events)  # of the first chunk; by then the second one is being computed, or being written too
        events.close()
    missing = plan.missing_chunks()
    assert missing in (KEYS[1:], KEYS[2:])
    assert Pending(plan, project.instance).keys == missing


def test_ranges_are_contiguous_and_bounded() -> None:
    keys = [str(n) for n in range(9)]
    assert list(ranges(keys, ["0", "1", "2", "5", "6"], 2)) == [["0", "1"], ["2"], ["5", "6"]]
    assert list(ranges(keys, ["0", "1", "2", "5"], None)) == [["0", "1", "2"], ["5"]]
