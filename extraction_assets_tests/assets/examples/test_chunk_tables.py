"""Tables of many chunks that a merge leaves, and what the next one reads of them."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.assets.examples import chunk_tables, expected, merging, spilled
from extraction_assets.assets.examples.checks import MergeRefused
from extraction_assets.assets.examples.chunk_tables import merge_chunks
from extraction_assets.assets.examples.merging import Merged
from extraction_assets.planning import merge_order
from extraction_assets.stores.chunk_files import read_table, write_table
from extraction_assets.upkeep.clean import SUPERSEDED, find_garbage
from extraction_assets.upkeep.delete import find_stored_files
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_sae, make_settings

SAE = "relu"
ONE_EACH = 20
FEATURES = 12
"""Few: a merge by ranges of one feature takes as many merges."""


@pytest.fixture(scope="module")
def computed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Twenty chunks of one sample are there and no merge. Not to be changed."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("narrow"), dirs_exist_ok=True)
    shutil.rmtree(folder / SAE)
    make_sae(folder / SAE, d_sae=FEATURES)
    settings = make_settings(folder, chunk_size=1, evaluation_samples=ONE_EACH)
    narrow = settings.saes[SAE].model_copy(update={"maximum_l0": FEATURES})
    settings = settings.model_copy(update={"saes": {**settings.saes, SAE: narrow}})
    project = Project(settings, tmp_path_factory.mktemp("computed") / "home")
    project.corpus()
    project.chunks(0, ONE_EACH - 1)
    return project


@pytest.fixture
def chunked(computed: Project, home: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same in this test's own home; three tables are merged into one."""
    shutil.copytree(computed.home, home, ignore=shutil.ignore_patterns("dagster"))
    monkeypatch.setattr(merge_order, "FAN_IN", 3)
    return Project(computed.settings, home)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folder and chunk of the tables that are read, in their order."""
    seen, original = list[str](), chunk_tables.read_tables

    def noting(files: Any, *others: Any) -> Any:
        named = list(files)
        seen.extend(f"{path.parent.name} {int(path.name.split('-')[0])}" for path, _ in named)
        return original(named, *others)

    monkeypatch.setattr(chunk_tables, "read_tables", noting)
    return seen


def merge(project: Project) -> Merged:
    return merge_chunks(project.plan, SAE, logging.getLogger(__name__))


def merged_files(project: Project) -> list[Path]:
    return sorted((project.home / "tiny" / SAE / "merged_tables").glob("*.parquet"))


def same(one: Merged, other: Merged) -> bool:
    for part in ("table", "statistics", "draws"):
        for ours, theirs in zip(getattr(one, part), getattr(other, part), strict=True):
            assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))
    return (one.expected, one.numerics) == (other.expected, other.numerics)


def test_a_merge_by_tables_of_many_chunks_is_the_same_to_the_bit(computed: Project, chunked: Project) -> None:
    directly = merging.merge_tables(
        (read_table(path, name) for path, name in _tables(computed)),
        5,
        rules=chunk_tables.draw_rules(computed.settings),
    )
    assert same(merge(chunked), directly)
    assert len(merged_files(chunked)) == ONE_EACH // 3


def _tables(project: Project) -> list[tuple[Path, str]]:
    plan = project.plan
    return [
        (plan.chunk_path("top_k_table", chunk, SAE), plan.table_fingerprint(chunk, SAE))
        for chunk in project.settings.chunks
    ]


def test_the_next_merge_reads_few_tables(chunked: Project, read: list[str]) -> None:
    first = merge(chunked)
    read.clear()
    assert same(merge(chunked), first)
    assert read == [*(f"merged_tables {one}" for one in range(0, 18, 3)), "top_k_table 18", "top_k_table 19"]


def test_a_chunk_that_was_computed_again_with_other_bytes_is_merged_again(chunked: Project, read: list[str]) -> None:
    merge(chunked)
    path, name = _tables(chunked)[4]
    table, statistics, record, draws = read_table(path, name)
    write_table(path, table, statistics, {**record, "numerics": {"another": "GPU"}}, draws)
    read.clear()
    assert {"another": "GPU"} in merge(chunked).numerics
    assert read[:4] == ["top_k_table 3", "top_k_table 4", "top_k_table 5", "merged_tables 0"]


def test_a_damaged_table_of_many_chunks_is_merged_again(chunked: Project, caplog: pytest.LogCaptureFixture) -> None:
    first, path = merge(chunked), merged_files(chunked)[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    assert same(merge(chunked), first)
    assert "its chunks are merged again" in caplog.text
    assert path.read_bytes() == whole


def test_a_wrong_table_of_many_chunks_is_not_stored(chunked: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    merge_all = merging.merge_tables

    def without_best(*args: Any) -> Merged:
        merged = merge_all(*args)
        return merged._replace(table=merged.table._replace(sample_index=merged.table.sample_index.flip(0)))

    monkeypatch.setattr(chunk_tables, "merge_tables", without_best)
    with pytest.raises(MergeRefused, match="chunks 000000000000 to 000000000002 merged are not what their tables hold"):
        merge(chunked)
    assert merged_files(chunked) == []


def test_clean_removes_tables_of_many_chunks_that_no_merge_would_read(chunked: Project) -> None:
    merge(chunked)
    store = chunked.plan.store
    assert find_garbage({"tiny": chunked.settings}, ["tiny"], store, {}).items == []
    other = chunked.settings.model_copy(update={"top_k_examples": 2})
    found = find_garbage({"tiny": other}, ["tiny"], store, {}).items
    assert {one.path for one in found if one.kind == SUPERSEDED} >= set(merged_files(chunked))


def test_delete_removes_tables_of_many_chunks(chunked: Project) -> None:
    merge(chunked)
    found = find_stored_files(chunked.plan.store, "tiny")
    assert {one.path for one in found.items} >= set(merged_files(chunked))
    assert found.left == []


@pytest.mark.parametrize("most_bytes", [10_000_000, 100_000, 30_000, 0])
def test_a_merge_by_ranges_of_features_is_the_same_to_the_bit(
    most_bytes: int, computed: Project, chunked: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(expected, "CHECKED_FEATURES", 3)  # of many ranges some have none of these
    whole = merge(chunked)
    files = {path.name: path.read_bytes() for path in merged_files(chunked)}
    shutil.rmtree(chunked.home / "tiny" / SAE / "merged_tables")
    monkeypatch.setattr(spilled, "MERGE_BYTES", most_bytes)
    assert same(merge(chunked), whole)
    assert {path.name: path.read_bytes() for path in merged_files(chunked)} == files
    assert list((chunked.plan.store.root / ".scratch").glob("*")) == []


def test_a_merge_that_will_not_fit_begins_by_ranges(chunked: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the first table says so: no table is read in vain."""
    monkeypatch.setattr(spilled, "_LOOKED_AT", 4)
    parts, read_all = list[Any](), chunk_tables.read_tables

    def noting(files: Any, store: Any, part: Any, verified: Any) -> Any:
        named = list(files)
        parts.append((len(named), part and len(part.features)))
        return read_all(named, store, part, verified)

    monkeypatch.setattr(chunk_tables, "read_tables", noting)
    table = read_table(*_tables(chunked)[0])
    latent_dim = len(table.statistics.sample_count)
    monkeypatch.setattr(spilled, "MERGE_BYTES", merging.expected_bytes(table, 5, 3) // 2)
    whole = merge(chunked)
    assert parts[0] == (1, latent_dim // 4)
    assert None not in {size for _, size in parts}
    monkeypatch.undo()
    assert same(merge(Project(chunked.settings, chunked.home)), whole)


@pytest.fixture
def by_ranges(chunked: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Merged by ranges of features."""
    monkeypatch.setattr(merge_order, "FAN_IN", ONE_EACH)
    monkeypatch.setattr(spilled, "MERGE_BYTES", 100_000)
    return chunked


def _replace_after_ranges(project: Project, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After each of the first ranges of features that are merged, replaces a table as a run on another device does: the
    same examples, and another value of the last one. Returns the ranges as they are merged."""
    add, ranges = spilled.SpilledParts.add, list[int]()

    def adding(parts: spilled.SpilledParts, merged: Merged) -> None:
        add(parts, merged)
        ranges.append(len(ranges))
        if len(ranges) <= most:
            path, name = _tables(project)[4]
            table, statistics, record, draws = read_table(path, name)
            values, activations = table.max_activation.clone(), table.activations.clone()
            values[-1] += 1.0
            activations[int(table.firing_offsets[-2])] += 1.0
            changed = table._replace(max_activation=values, activations=activations)
            write_table(path, changed, statistics, {**record, "numerics": {"range": len(ranges)}}, draws)

    monkeypatch.setattr(spilled.SpilledParts, "add", adding)
    return ranges


def test_a_table_that_is_replaced_between_two_ranges_has_all_features_merged_again(
    by_ranges: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of one version and half of the other would be no chunk's examples."""
    with monkeypatch.context() as patch:
        ranges = _replace_after_ranges(by_ranges, 1, patch)
        merged = merge(by_ranges)
    assert "the table of chunk 000000000004 was replaced while it was merged" in caplog.text
    assert {"range": 1} in merged.numerics
    again = _replace_after_ranges(by_ranges, 0, monkeypatch)
    assert same(merge(by_ranges), merged)
    assert len(ranges) == len(again) + 1


def test_a_table_that_is_replaced_again_and_again_is_refused(
    by_ranges: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = _replace_after_ranges(by_ranges, 100, monkeypatch)
    with pytest.raises(MergeRefused, match="was replaced while it was merged, 3 times: merge when no run computes"):
        merge(by_ranges)
    assert len(ranges) == 3


def test_a_table_of_many_chunks_names_the_tables_that_were_read_for_it(
    chunked: Project, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    """A table is replaced after the merge has looked at all records, and before it is read."""
    path, name = _tables(chunked)[4]
    looked = chunk_tables.records_of_chunks

    def replacing(*args: Any) -> Any:
        records = looked(*args)
        table, statistics, record, draws = read_table(path, name)
        write_table(path, table, statistics, {**record, "numerics": {"another": "GPU"}}, draws)
        return records

    monkeypatch.setattr(chunk_tables, "records_of_chunks", replacing)
    first = merge(chunked)
    monkeypatch.setattr(chunk_tables, "records_of_chunks", looked)
    read.clear()
    assert same(merge(chunked), first)
    assert [one for one in read if one.startswith("top_k_table")] == ["top_k_table 18", "top_k_table 19"]
