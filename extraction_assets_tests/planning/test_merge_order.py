"""Which tables are merged with which."""

import pytest

from extraction_assets.planning.merge_order import FAN_IN, TableToMerge, joined, joined_tables
from extraction_assets.settings import Chunk


def of_chunks(count: int) -> list[TableToMerge]:
    return [TableToMerge((Chunk(8 * one, 8 * one, 8),), f"{one:024x}") for one in range(count)]


def test_few_chunks_are_merged_directly() -> None:
    assert joined(of_chunks(2 * FAN_IN)) == of_chunks(2 * FAN_IN)


@pytest.mark.parametrize("count", [2 * FAN_IN + 1, 2_100, 10_000])
def test_every_chunk_is_merged_once_and_in_order(count: int) -> None:
    chunks = [chunk for table in joined(of_chunks(count)) for chunk in table.chunks]
    assert chunks == [table.chunks[0] for table in of_chunks(count)]


def test_a_merge_of_ten_thousand_chunks_reads_few_tables() -> None:
    assert len(joined(of_chunks(10_000))) == 9 + 24 + 16  # of 1,024 chunks, of 32, and of one


def test_a_new_chunk_leaves_all_tables_of_many_chunks_as_they_are() -> None:
    before, after = (list(joined_tables(joined(of_chunks(count)))) for count in (9_998, 9_999))
    assert after == before


def test_a_table_of_many_chunks_comes_after_its_parts() -> None:
    seen = set[str]()
    for table in joined_tables(joined(of_chunks(2_100))):
        assert all(part.fingerprint in seen for part in table.parts if part.parts)
        seen.add(table.fingerprint)


def test_another_chunk_changes_its_path_and_no_other() -> None:
    chunks = of_chunks(2_100)
    changed = [*chunks[:40], chunks[40]._replace(fingerprint="f" * 24), *chunks[41:]]
    before, after = ({table.fingerprint for table in joined_tables(joined(one))} for one in (chunks, changed))
    assert len(after - before) == 2  # of 32 chunks and of 1,024
