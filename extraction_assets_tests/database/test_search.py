"""Features by a text in their examples, on both databases."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries import search
from extraction_assets.database.queries.search import parse_search, text_found
from extraction_assets.database.tables import extractions, sample_feature_lists, samples
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.listed import make_features, store_features
from extraction_assets_tests.database.stored_rows import store_rows

TEXTS = {3: [" Hello", " wor", "ld"], 7: ["100", "% of", ' "quoted"'], 9: ["x\n", "hello", "_"]}


@pytest.fixture
def engine(results_url: str) -> Iterator[sa.Engine]:
    made = open_database(results_url)
    store_features(made, make_features(12))
    with write_transaction(made) as connection:
        store_rows(connection, samples, [_sample(number, tokens) for number, tokens in TEXTS.items()])
        lists = [(3, [[5, 2.0], [6, 1.0]]), (7, [[6, 1.0]]), (9, [[6, 3.0], [1, 0.5]])]
        rows = [{"extraction_id": 1, "sample_index": number, "features": found} for number, found in lists]
        store_rows(connection, sample_feature_lists, rows)
    yield made
    made.dispose()


def _sample(number: int, tokens: list[str]) -> dict[str, Any]:
    ids = list(range(len(tokens)))
    return {
        "corpus_id": 1,
        "sample_index": number,
        "document_id": "d",
        "first_token": 0,
        "token_ids": ids,
        "tokens": tokens,
    }


def _found(engine: sa.Engine, text: str) -> tuple[list[tuple[int, int]] | None, str | None]:
    """(neuron_index, hits) of the features that a text finds, and why it cannot be looked for."""
    with engine.connect() as connection:
        extraction = connection.execute(sa.select(extractions)).one()
        found, missing, _ = text_found(connection, extraction, parse_search(text))
        return found and sorted(tuple(row) for row in connection.execute(found.hits)), missing


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hello", [(1, 1), (5, 1), (6, 2)]),
        ("lo world", [(5, 1), (6, 1)]),
        ('"quo', [(6, 1)]),
        ("100%", [(6, 1)]),
        ("lo_", [(1, 1), (6, 1)]),
        ("nothing", []),
    ],
)
def test_features_are_found_by_the_samples_with_a_text(
    engine: sa.Engine, text: str, found: list[tuple[int, int]]
) -> None:
    assert _found(engine, text) == (found, None)


@kinds.sql
def test_a_frequent_text_finds_the_features_of_most_samples(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_FEATURES", 1)
    with write_transaction(engine) as connection:
        connection.execute(sa.update(samples).values(tokens=["the", " same"]))
    assert _found(engine, "the same") == ([(6, 3)], None)


@pytest.mark.parametrize(("most", "is_cut"), [(2, True), (3, False)])
def test_features_that_are_left_out_are_known_to_be(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, most: int, is_cut: bool
) -> None:
    monkeypatch.setattr(search, "MOST_FEATURES", most)
    with engine.connect() as connection:
        found = text_found(connection, connection.execute(sa.select(extractions)).one(), parse_search("hello"))
    assert found.is_cut == is_cut


def test_two_characters_are_too_few(engine: sa.Engine) -> None:
    assert _found(engine, "he") == (None, "a text to look for has at least 3 characters")


@pytest.mark.parametrize(
    ("typed", "text", "number", "exact"),
    [
        ("#12", "#12", 12, False),
        (" #7 ", " #7 ", 7, False),
        ("12", "12", None, False),
        ("' the'", " the", None, True),
        ("a⏎b", "a\nb", None, False),
        ("#", "#", None, False),
    ],
)
def test_what_is_typed_is_a_number_a_token_or_a_text(typed: str, text: str, number: int | None, exact: bool) -> None:
    assert parse_search(typed) == (text, number, exact)
