"""Damaged chunk files are set aside and made again; nothing is built on them, and it is said."""

import os
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from extraction_assets.assets.chunks import run as chunk_run
from extraction_assets.execution import damage
from extraction_assets.execution.damage import find_damaged
from extraction_assets.execution.keys import REUSE_TAG, Target, activations_key, sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_files import read_table, write_table
from extraction_assets.stores.chunk_record import read_record
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

FIRST = "000000000000"

Damage = Callable[[bytes], bytes]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    middle = len(data) * 2 // 3
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = pytest.mark.parametrize("harm", [_cut, _flip])


@pytest.fixture
def project(tokenized: Project) -> Project:
    return tokenized


def _damage(path: Path, harm: Damage) -> None:
    path.write_bytes(harm(path.read_bytes()))


def _warnings(project: Project, result: dg.ExecuteInProcessResult) -> list[str]:
    logs = project.instance.all_logs(result.run_id)
    return [entry.user_message for entry in logs if entry.level >= 30 and "damaged" in entry.user_message]


def _aside(project: Project) -> list[str]:
    return [path.name for path in project.home.rglob(".*.damaged")]


@DAMAGES
def test_damaged_activations_are_computed_instead_and_said(project: Project, merged_once: Path, harm: Damage) -> None:
    project.chunks(assets=[activations_key(project.settings)])
    victim = project.plan.chunk_path("model_activations", project.settings.chunk(FIRST))
    _damage(victim, harm)
    result = project.chunks(assets=[sae_key(project.settings, "relu", "top_k_table")])
    (warning,) = _warnings(project, result)
    assert warning.startswith(f"model activations of chunk {FIRST} are computed, not read: {victim} is damaged")
    assert not victim.exists()
    assert len(_aside(project)) == 1
    _assert_tables_are_right(project, merged_once)


@DAMAGES
def test_damaged_features_are_computed_instead_and_said(project: Project, merged_once: Path, harm: Damage) -> None:
    project.chunks(assets=[sae_key(project.settings, "relu", "sae_features")])
    victim = project.plan.chunk_path("sae_features", project.settings.chunk(FIRST), "relu")
    _damage(victim, harm)
    result = project.chunks(assets=[sae_key(project.settings, "relu", "top_k_table")])
    (warning,) = _warnings(project, result)
    assert warning.startswith(f"SAE features of chunk {FIRST} are computed, not read: {victim} is damaged")
    assert not victim.exists()
    _assert_tables_are_right(project, merged_once)


def _assert_tables_are_right(project: Project, merged_once: Path) -> None:
    right = ExtractionPlan(project.settings, ChunkStore(merged_once))
    for key in project.settings.chunk_keys:
        chunk = project.settings.chunk(key)
        ours, theirs = (
            read_table(plan.chunk_path("top_k_table", chunk, "relu"), plan.table_fingerprint(chunk, "relu"))
            for plan in (project.plan, right)
        )
        assert all(a.equal(b) for a, b in zip(ours.table, theirs.table, strict=True))


def test_features_of_another_chunk_under_a_right_seal_are_not_believed(project: Project, merged_once: Path) -> None:
    project.chunks(assets=[sae_key(project.settings, "relu", "sae_features")])
    short = project.plan.chunk_path("sae_features", project.settings.chunk("000000000016"), "relu")
    project.plan.chunk_path("sae_features", project.settings.chunk(FIRST), "relu").write_bytes(short.read_bytes())
    result = project.chunks(assets=[sae_key(project.settings, "relu", "top_k_table")])
    assert "was made from other inputs" in str(
        [entry.user_message for entry in project.instance.all_logs(result.run_id)]
    )
    _assert_tables_are_right(project, merged_once)


@DAMAGES
@pytest.mark.parametrize("pattern", ["*.parquet", "*.statistics.safetensors", "*.draws.pq", "*.sampled.safetensors"])
def test_a_run_of_the_missing_computes_a_damaged_table_again_instead_of_recording_it(
    recorded: Project, monkeypatch: pytest.MonkeyPatch, harm: Damage, pattern: str
) -> None:
    before = recorded.files("tiny/**/[!.]*-*")
    _damage(sorted((recorded.home / "tiny" / "relu" / "top_k_table").glob(pattern))[1], harm)
    computed, compute = [], chunk_run.compute_chunk

    def note(plan: object, loaded: object, usage: object, chunk: Chunk, targets: list[Target], *more: object) -> object:
        computed.append((chunk.key, [target.key.path[1:] for target in targets]))
        return compute(plan, loaded, usage, chunk, targets, *more)

    monkeypatch.setattr(chunk_run, "compute_chunk", note)
    result = recorded.chunks(tags={REUSE_TAG: "true"})
    assert computed == [("000000000008", [["relu", "top_k_table"]])]
    assert len(_warnings(recorded, result)) == 1
    assert recorded.files("tiny/**/[!.]*-*") == before


@DAMAGES
def test_a_merge_sets_a_damaged_table_aside_so_that_it_is_missing(recorded: Project, harm: Damage) -> None:
    victim = recorded.plan.chunk_path("top_k_table", recorded.settings.chunk(FIRST), "relu")
    _damage(victim, harm)
    with pytest.raises(dg.Failure, match=r"is damaged.*it was set aside") as caught:
        recorded.merge("relu")
    assert victim.name in str(caught.value.description)
    assert recorded.plan.missing_chunks() == [FIRST]


def test_a_table_that_does_not_say_its_checks_passed_is_not_taken_for_damaged(recorded: Project) -> None:
    path, fingerprint = (
        recorded.plan.chunk_path("top_k_table", recorded.settings.chunk(FIRST), "relu"),
        recorded.plan.table_fingerprint(recorded.settings.chunk(FIRST), "relu"),
    )
    stored = read_table(path, fingerprint)
    record = {name: one for name, one in read_record(path).items() if name in ("fingerprint", "numerics")}
    write_table(path, stored.table, stored.statistics, record)
    with pytest.raises(dg.Failure, match="check vectorized_matches_legacy is absent"):
        recorded.merge("relu")
    assert path.is_file()


def test_a_quick_look_finds_every_file_that_is_cut(recorded: Project) -> None:
    victims = [path for path in recorded.home.glob("tiny/**/*-*") if path.is_file()]
    for victim in victims:
        _damage(victim, _cut)
    found = find_damaged(recorded.plan, whole=False)
    assert {one.path for one in found} == {path for path in victims if path.name.count(".") == 1}


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_damage_is_found_in_the_order_of_chunks_however_files_are_handed_to_threads(
    recorded: Project, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(damage, "_MOST_AT_ONCE", at_once)
    monkeypatch.setattr(type(recorded.plan.store.files), "readers", 1)
    victims = sorted(recorded.home.glob("tiny/relu/top_k_table/*.parquet"))
    for victim in victims[::2]:
        _damage(victim, _cut)
    assert [one.path for one in find_damaged(recorded.plan, whole=False)] == victims[::2]


def test_a_whole_look_finds_every_altered_byte_of_what_changed_after_its_table(recorded: Project) -> None:
    assert find_damaged(recorded.plan, whole=True) == []
    victims = [path for path in recorded.home.glob("tiny/**/*-*") if path.is_file()]
    for victim in victims:
        _damage(victim, _flip)
        os.utime(victim, (2e9, 2e9 + ("top_k_table" not in str(victim))))
    found = find_damaged(recorded.plan, whole=True)
    assert {one.path for one in found} == {path for path in victims if path.name.count(".") == 1}


def test_inputs_that_are_older_than_their_tables_are_not_read(
    recorded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations can be hundreds of gigabytes; they are checked whenever they are read."""

    read: list[str] = []
    monkeypatch.setattr(damage, "_check_whole", lambda _store, path, _: read.append(path.parent.name))
    find_damaged(recorded.plan, whole=True)
    assert set(read) == {"top_k_table"}


def test_a_chunk_recorded_again_carries_the_numbers_of_its_computation(project: Project) -> None:
    project.chunks()
    first = _metadata(project)
    project.chunks(tags={REUSE_TAG: "true"})
    again = _metadata(project)
    assert again == {name: {**values, "recorded_again": True} for name, values in first.items()}


def test_going_back_to_earlier_settings_keeps_the_plots(project: Project, tiny_folder: Path) -> None:
    """Another K and back, which stores nothing new."""
    project.chunks()
    first = _metadata(project)["tiny/relu/top_k_table"]
    Project(make_settings(tiny_folder, top_k_examples=3), project.home, instance=project.instance).chunks()
    assert _metadata(project)["tiny/relu/top_k_table"]["examples"] != first["examples"]
    project.chunks(assets=[sae_key(project.settings, "relu", "top_k_table")], tags={REUSE_TAG: "true"})
    assert _metadata(project)["tiny/relu/top_k_table"] == {**first, "recorded_again": True}


def test_without_its_history_a_chunk_recorded_again_has_the_numbers_of_its_file(project: Project) -> None:
    project.chunks()
    first = _metadata(project)
    forgetful = Project(project.settings, project.home)
    forgetful.chunks(tags={REUSE_TAG: "true"})
    for name, values in _metadata(forgetful).items():
        assert {**first[name], **values, "recorded_again": True} == {**first[name], "recorded_again": True}
        expected = {"samples", "tokens", "bytes", "numerics"} | ({"variance_explained"} if "relu" in name else set())
        assert expected <= set(values)
    assert {"mean_l0", "features_firing", "examples"} <= set(_metadata(forgetful)["tiny/relu/top_k_table"])


def _metadata(project: Project) -> dict[str, dict[str, object]]:
    """Asset -> metadata of its first chunk's latest event."""
    found = {}
    for asset in project.chunk_assets:
        filters = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[FIRST])
        (record,) = project.instance.fetch_materializations(filters, limit=1).records
        assert record.asset_materialization is not None
        values = {name: one.value for name, one in record.asset_materialization.metadata.items()}
        found[asset.to_user_string()] = values
    return found
