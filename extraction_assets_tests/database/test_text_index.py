"""The index of the samples' texts: what it finds, on both databases, and that it follows the samples."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries.search import parse_search, text_found
from extraction_assets.database.tables import extractions, sample_feature_lists, samples
from extraction_assets.database.text_index import has_texts, index_texts, matches_select
from extraction_assets_tests.database.listed import make_features, store_features

TEXTS = {3: [" Hello", " wor", "ld"], 7: ["100", "% of", ' "quoted"'], 9: ["x\n", "hello", "_"]}


@pytest.fixture
def engine(results_url: str) -> Iterator[sa.Engine]:
    made = open_database(results_url)
    store_features(made, make_features(12))
    with made.begin() as connection:
        connection.execute(sa.insert(samples), [_sample(number, tokens) for number, tokens in TEXTS.items()])
        lists = [(3, [[5, 2.0], [6, 1.0]]), (7, [[6, 1.0]]), (9, [[6, 3.0], [1, 0.5]])]
        rows = [{"extraction_id": 1, "sample_index": number, "features": found} for number, found in lists]
        connection.execute(sa.insert(sample_feature_lists), rows)
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


def _index(engine: sa.Engine) -> int:
    with write_transaction(engine) as connection:
        return index_texts(connection, 1)


def _found(engine: sa.Engine, text: str, limit: int = 10) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(matches_select(connection.dialect.name, 1, text, limit)))


@pytest.mark.parametrize(
    ("text", "found"),
    [("hello", [3, 9]), ("o world", [3]), ("100%", [7]), ('"quo', [7]), ("lo_", [9]), ("nothing", []), ("AND", [])],
)
def test_a_part_of_a_text_is_found_across_tokens_whatever_its_case(
    engine: sa.Engine, text: str, found: list[int]
) -> None:
    _index(engine)
    assert _found(engine, text) == found


def test_the_first_samples_are_found_first(engine: sa.Engine) -> None:
    _index(engine)
    assert _found(engine, "hello", limit=1) == [3]


def test_only_what_is_new_or_changed_is_written_again(engine: sa.Engine) -> None:
    assert [_index(engine), _index(engine)] == [3, 0]
    with engine.begin() as connection:
        connection.execute(sa.delete(samples).where(samples.c.sample_index == 9))
        connection.execute(sa.update(samples).where(samples.c.sample_index == 3).values(tokens=["other", "text"]))
    assert _index(engine) == 1
    assert [_found(engine, "hello"), _found(engine, "rtext")] == [[], [3]]


def test_features_are_found_by_the_samples_with_a_text(engine: sa.Engine) -> None:
    _index(engine)
    with engine.connect() as connection:
        extraction = connection.execute(sa.select(extractions)).one()
        found, missing = text_found(connection, extraction, parse_search("hello"))
        assert missing is None
        assert found is not None
        assert sorted((row.neuron_index, row.hits) for row in connection.execute(found.hits)) == [
            (1, 1),
            (5, 1),
            (6, 2),
        ]


def test_without_an_index_the_search_is_not_computed(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert not has_texts(connection)
        extraction = connection.execute(sa.select(extractions)).one()
        assert text_found(connection, extraction, parse_search("hello")) == (
            None,
            "not computed: materialize listed/sae/feature_relations",
        )


def test_two_characters_are_too_few(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        extraction = connection.execute(sa.select(extractions)).one()
        assert text_found(connection, extraction, parse_search("he"))[1] == (
            "a text to look for has at least 3 characters"
        )
