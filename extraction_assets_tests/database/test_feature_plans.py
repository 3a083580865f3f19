"""The queries of the pages of a feature, a sample, a document and two features find their rows by an index."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets.database.queries import compare, directions, examples, labels, one_feature, relations, samples
from extraction_assets.database.views import feature_activations, feature_draws
from extraction_assets_tests.browser.small_results import (
    HOSTILE_DOCUMENT,
    store_directions,
    store_label,
    store_relations,
    store_results,
)
from extraction_assets_tests.database.plans import assert_uses_index


@pytest.fixture(scope="module")
def stored(shared_results_url: str) -> Iterator[sa.Connection]:
    """Hand-made results in a database of each kind, with its statistics."""
    store_results(shared_results_url)
    with opened_database(shared_results_url) as engine, write_transaction(engine) as connection:
        store_relations(connection)
        store_directions(connection)
        store_label(connection, "cats", None, None)
        connection.exec_driver_sql("ANALYZE")
        yield connection


QUERIES = [
    (examples.feature_query(1, 0), "features"),
    (examples.examples_query(1, 0, 20), "feature_example_lists"),
    (examples.examples_query(1, 0, 20), "samples"),
    (examples.draws_query(1, 0), "feature_draw_lists"),
    (examples.draws_query(1, 0), "samples"),
    (examples.messages_query(1, [7, 8]), "sample_messages"),
    (relations.relations_query(1), "relations"),
    (relations.tokens_query(1, 0), "feature_tokens"),
    (one_feature.first_tokens_query(1, [0, 1], 2), "feature_tokens"),
    (relations.neighbours_query(1, 0), "feature_neighbours"),
    (relations.flags_query(1, 0), "feature_flags"),
    (directions.logits_query(1, 0), "feature_logits"),
    (directions.nearest_query(1, 0), "feature_logits"),
    (labels.labels_select("small", "one", [0]), "feature_labels"),
    (one_feature.firing_query(1, [0, 3, 5]), "features"),
    (one_feature.first_firing_query(1), "features"),
    (samples.sample_query(1, 7), "samples"),
    (samples.sample_features_query(1, 7), "sample_feature_lists"),
    (samples.firings_query(feature_activations, 1, 7, [0, 2]), "feature_example_lists"),
    (samples.firings_query(feature_draws, 1, 7, [0, 5]), "feature_draw_lists"),
    (samples.maxima_query(1, [0, 2]), "features"),
    (samples.document_query(1, HOSTILE_DOCUMENT, None, 50), "ix_samples_document"),
    (samples.document_query(1, "a.txt", samples.DocumentPosition(0, 7), 50), "ix_samples_document"),
    (compare.places_query(1, 0), "feature_example_lists"),
]


@pytest.mark.parametrize(("select", "index"), QUERIES)
def test_a_page_finds_its_rows_by_an_index(stored: sa.Connection, select: sa.Select[Any], index: str) -> None:
    assert_uses_index(stored, select, index)


def test_firings_in_a_sample_are_those_of_examples_and_draws(stored: sa.Connection) -> None:
    found = samples.firings_in_sample(stored, 1, 7, [0, 2, 5, 1])
    assert found == {
        0: (0, [2, 9], [8.0, 2.0]),
        2: (2, [2, 3], [1.0, 0.5]),
        5: (5, [6], [1.25]),
    }


def test_the_features_of_a_sample_come_strongest_first(stored: sa.Connection) -> None:
    assert samples.features_of_sample(stored, 1, 7) == [(0, 8.0), (5, 1.25), (2, 1.0)]
    assert samples.features_of_sample(stored, 1, 99) == []


def test_stored_examples_are_counted(stored: sa.Connection) -> None:
    assert [one_feature.stored_examples(stored, 1, index) for index in (0, 3)] == [4, 0]
