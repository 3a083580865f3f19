"""Bulk load: what goes in comes out, bit for bit, whatever the database and wherever batches end."""

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.backends.arrow_lists import json_numbers
from extraction_assets.database.backends.postgresql import bulk as postgresql_bulk
from extraction_assets.database.backends.prefetch import made_ahead, prefetch
from extraction_assets.database.backends.sqlite import bulk as sqlite_bulk
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.storable import storable
from extraction_assets.database.tables import features, samples
from extraction_assets_tests.database import earlier, kinds

# A table with every kind of column that the package has stored examples in.
feature_activations = earlier.feature_activations.to_metadata(sa.MetaData(), name="of_every_kind")
feature_activations.indexes.clear()

FLOATS = [1.401298464324817e-45, 3.4028234663852886e38, 0.10000000149011612, 1.0, 16777216.0, 5e-324, 1e22, 1 / 3]
TEXTS = ["", "plain", "\\N", "a\tb\nc\r", '"{},\\\\', "naïve 😀", "\\x00", "ünï" * 400, "NULL"]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (postgresql_bulk, sqlite_bulk):
        monkeypatch.setattr(module, "_BATCH_ROWS", 3)
    monkeypatch.setattr(sqlite_bulk, "_STATEMENT_ROWS", 2)


def _stored(url: str, table: sa.Table, columns: dict[str, pa.Array]) -> list[tuple[object, ...]]:
    engine = open_database(url)
    with write_transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            for name in ("features", "samples"):
                connection.exec_driver_sql(f"ALTER TABLE {name} DROP CONSTRAINT {name}_{_PARENT[name]}_fkey")
        if table is feature_activations:
            table.create(connection)
        backend_of(engine).insert(connection, table, [pa.table(columns)])
    with engine.connect() as connection:
        chosen = [table.c[name] for name in columns]
        rows = [tuple(row) for row in connection.execute(sa.select(*chosen).order_by(*list(table.primary_key)))]
    engine.dispose()
    return rows


_PARENT = {"features": "extraction_id", "samples": "corpus_id"}


@kinds.sql
def test_examples_come_back_bit_for_bit(results_url: str) -> None:
    lists = [FLOATS[: index % 8 + 1] for index in range(10)]
    columns: dict[str, pa.Array] = {
        "extraction_id": pa.array([7] * 10),
        "neuron_index": pa.array([2**40] * 10),
        "rank": pa.array(range(10)),
        "sample_index": pa.array([2**62 - index for index in range(10)]),
        "max_activation": pa.array((FLOATS * 2)[:10]),
        "max_token": pa.array((TEXTS * 2)[:10]),
        "positions": pa.array([[2**31 - 1] * len(row) for row in lists], pa.large_list(pa.int64())),
        "activations": pa.array(lists, pa.large_list(pa.float64())),
    }
    expected = list(zip(*(column.to_pylist() for column in columns.values()), strict=True))
    assert _stored(results_url, feature_activations, columns) == expected


def test_missing_maxima_stay_null_and_histograms_are_json(results_url: str) -> None:
    columns: dict[str, pa.Array] = {
        "extraction_id": pa.array([1] * 5),
        "neuron_index": pa.array(range(5)),
        "activation_count": pa.array([0, 1, 2, 2**50, 0]),
        "activation_frequency": pa.array([0.0, 0.25, 1 / 3, 1.0, 0.0]),
        "token_count": pa.array([0, 1, 2, 3, 0]),
        "token_frequency": pa.array([0.0, 0.25, 1 / 3, 1.0, 0.0]),
        "max_activation": pa.array([None, 1.5, 2.5, 1 / 3, None]),
        "mean_activation": pa.array([None, 1.5, None, 1e-300, None]),
        "histogram": pa.array([[0, 0], [1, 0], [2**50, 2], [3, 4], [0, 0]], pa.large_list(pa.int64())),
    }
    expected = list(zip(*(column.to_pylist() for column in columns.values()), strict=True))
    assert _stored(results_url, features, columns) == expected


def test_lists_of_any_text_and_empty_lists_come_back(results_url: str) -> None:
    token_ids = [[1, 2, 3], [], [2**31 - 1], [4] * 300, [5], [], [6]]
    tokens = [TEXTS, [], [""], ["t"] * 300, ["😀"], [], ["\\"]]
    columns: dict[str, pa.Array] = {
        "corpus_id": pa.array([1] * 7),
        "sample_index": pa.array(range(7)),
        "document_id": pa.array([*TEXTS[:7]]),
        "first_token": pa.array([2**40] * 7),
        "token_ids": pa.array(token_ids, pa.list_(pa.int64())),
        "tokens": pa.array(tokens, pa.list_(pa.string())),
    }
    expected = list(zip(*(column.to_pylist() for column in columns.values()), strict=True))
    assert _stored(results_url, samples, columns) == expected


def test_a_number_that_does_not_fit_is_an_error_and_no_other_number(postgres_url: str) -> None:
    columns: dict[str, pa.Array] = {
        "extraction_id": pa.array([1]),
        "neuron_index": pa.array([1]),
        "rank": pa.array([2**31]),
        "sample_index": pa.array([1]),
        "max_activation": pa.array([1.0]),
        "max_token": pa.array(["t"]),
        "positions": pa.array([[1]], pa.large_list(pa.int64())),
        "activations": pa.array([[1.0]], pa.large_list(pa.float64())),
    }
    with pytest.raises(pa.ArrowInvalid, match="2147483648"):
        _stored(postgres_url, feature_activations, columns)


def test_lists_in_a_piece_of_a_longer_array_are_made_into_json_alone() -> None:
    """Batches are pieces of one array: an earlier version cast the whole array again for each of them."""
    column = pa.array([[0.5], [1.0, 2.0], [], [1 / 3]], pa.large_list(pa.float64()))
    assert json_numbers(column[1:3]).to_pylist() == ["[1,2]", "[]"]
    texts = pa.array([["a"], ['"', "é"], []], pa.large_list(pa.string()))
    assert sqlite_bulk._values(texts[1:]) == ['["\\"","é"]', "[]"]


def test_one_item_is_made_ahead_and_an_error_comes_in_its_turn() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            yield number
        raise RuntimeError("the fifth")

    given = prefetch(items())
    assert next(given) == 0
    assert next(given) == 1
    given_rest = []
    with pytest.raises(RuntimeError, match="the fifth"):
        given_rest.extend(iter(lambda: next(given), None))
    assert made == [0, 1, 2, 3]


def test_items_that_nobody_wants_are_not_made() -> None:
    made: list[int] = []
    given = prefetch(made.append(number) for number in range(100))
    next(given)
    given.close()
    assert len(made) <= 2


def test_names_that_are_no_text_are_stored_escaped() -> None:
    assert storable("caf\udce9 \0 ünï 😀") == "caf\\udce9 \\x00 ünï 😀"


def test_parts_of_several_tables_are_made_ahead_in_their_order() -> None:
    made = list[str]()

    def parts(name: str) -> Iterator[str]:
        for number in range(3):
            made.append(f"{name}{number}")
            yield made[-1]

    with made_ahead({"a": parts("a"), "b": parts("b"), "none": []}, ahead=10) as taken:
        assert list(taken["a"]) == ["a0", "a1", "a2"]
        assert list(taken["b"]) == ["b0", "b1", "b2"]
        assert list(taken["none"]) == []
    assert made == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_an_error_of_what_is_made_ahead_comes_in_its_turn_and_no_thread_is_left() -> None:
    with (
        made_ahead({"a": [1], "b": (1 // zero for zero in [1, 0, 1])}) as taken,
        pytest.raises(ZeroDivisionError),
    ):
        assert list(taken["a"]) == [1]
        list(taken["b"])
    with made_ahead({"a": range(1000)}, ahead=2) as taken:
        next(taken["a"])  # and no more
    assert not [thread for thread in threading.enumerate() if thread.name == "load"]
