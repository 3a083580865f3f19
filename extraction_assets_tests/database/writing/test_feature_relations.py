"""Relations in the database: what is loaded is what is read, by indexes, and only with the merge it belongs to."""

import functools
from collections.abc import Iterator

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets.database.queries.relations import (
    find_relations,
    flag_counts,
    flag_counts_query,
    flags_of,
    flags_query,
    neighbours_of,
    neighbours_query,
    ranges_query,
    relations_query,
    tokens_of,
    tokens_query,
)
from extraction_assets.database.queries.words import features_firing_on
from extraction_assets.database.tables import relations
from extraction_assets.database.writing.feature_relations import RelationsRow, delete_relations, replace_relations
from extraction_assets.engine.relations.flags import Flag
from extraction_assets.engine.relations.found import Relations, join_tokens
from extraction_assets.engine.relations.neighbours import feature_neighbours
from extraction_assets.engine.relations.top_tokens import PLACES, feature_tokens
from extraction_assets.engine.relations.totals import count_totals
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.plans import assert_uses_index
from extraction_assets_tests.database.synthetic import make_results
from extraction_assets_tests.engine.relations.build import groups_of, random_corpus

FEATURES = 30
ROW = RelationsRow("counted so", "merged", "sample", 16)
HOSTILE = 'a"b\\\n\u202e☃'


def display(ids: list[int]) -> list[str]:
    return [f"{HOSTILE}{token}" for token in ids]


@functools.cache
def found_in(seed: int) -> Relations:
    groups = groups_of(random_corpus(seed, features=FEATURES))
    totals = count_totals(groups)
    found = list(feature_tokens(groups, totals))
    tokens = {place: join_tokens(one[place] for one in found) for place in PLACES}
    flags = [Flag(3, "dead", {"tokens": 5}), Flag(4, "one_token", {"token_id": 2, "count": 11, "share": 1.0})]
    return Relations(totals, tokens, feature_neighbours(groups, totals, torch.device("cpu")), flags)


def _load(engine: sa.Engine) -> None:
    """Two merged SAEs, both with relations."""
    for sae, seed in (("sae", 0), ("other", 1)):
        with write_transaction(engine) as connection:
            make_results("merged", 1.0, num_features=FEATURES, top_k=2, sae=sae).load(connection)
            replace_relations(connection, "made-up", sae, ROW, found_in(seed), display)


@pytest.fixture
def engine(results_url: str) -> Iterator[sa.Engine]:
    """Two merged SAEs, both with relations, to be changed."""
    with opened_database(results_url) as engine:
        _load(engine)
        yield engine


@pytest.fixture(scope="module")
def loaded(shared_results_url: str) -> Iterator[sa.Engine]:
    """The same, which no test changes."""
    with opened_database(shared_results_url) as engine:
        _load(engine)
        yield engine


@pytest.fixture
def connection(loaded: sa.Engine) -> Iterator[sa.Connection]:
    with loaded.connect() as connection:
        yield connection


@pytest.mark.parametrize("place", PLACES)
def test_top_tokens_are_read_as_they_were_counted(connection: sa.Connection, place: str) -> None:
    tokens = found_in(0).tokens[place]  # type: ignore[index]
    mine = tokens.neuron_index == 7
    columns = (tokens.rank, tokens.token_id, tokens.counts, tokens.mean_activation, tokens.share)
    expected = list(zip(*(column[mine].tolist() for column in columns), strict=True))
    rows = tokens_of(connection, 1, 7, place)
    assert [(row.rank, row.token_id, row.count, row.mean_activation, row.share) for row in rows] == expected
    assert [row.token for row in rows] == [f"{HOSTILE}{token}" for token in tokens.token_id[mine].tolist()]


def test_neighbours_are_read_as_they_were_counted_to_the_precision_of_a_float32(connection: sa.Connection) -> None:
    found = found_in(0)
    for feature in range(FEATURES):
        mine = found.neighbours.neuron_index == feature
        read = neighbours_of(connection, 1, feature)
        assert read is not None
        assert read.tokens == found.totals.firings[feature]
        assert [one.neuron_index for one in read.neighbours] == found.neighbours.other[mine].tolist()
        assert [one.tokens for one in read.neighbours] == found.neighbours.counts[mine].tolist()
        for name in ("jaccard", "pmi"):
            values = np.array([getattr(one, name) for one in read.neighbours], dtype=np.float32)
            assert np.array_equal(values, getattr(found.neighbours, name)[mine].astype(np.float32))


def test_flags_have_their_details_and_a_token_its_text(connection: sa.Connection) -> None:
    assert flags_of(connection, 1, 3) == {"dead": {"tokens": 5}}
    assert flags_of(connection, 1, 4)["one_token"]["token"] == f"{HOSTILE}2"
    assert flag_counts(connection, 1) == {"dead": 1, "one_token": 1}


def test_a_token_gives_the_features_that_fire_on_it_most_often_first(connection: sa.Connection) -> None:
    tokens = found_in(0).tokens["firing"]
    mine = tokens.token_id == 2
    order = np.lexsort((tokens.neuron_index[mine], -tokens.counts[mine]))
    assert features_firing_on(connection, 1, f"{HOSTILE}2") == tokens.neuron_index[mine][order].tolist()


@kinds.sql
def test_a_token_gives_nothing_of_an_earlier_result(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.execute(sa.update(relations).values(merge_fingerprint="earlier"))
        assert features_firing_on(connection, 1, f"{HOSTILE}2") == []


@pytest.mark.parametrize(
    ("select", "index"),
    [
        (relations_query(1), "relations"),
        (tokens_query(1, 7), "feature_tokens"),
        (neighbours_query(1, 7), "feature_neighbours"),
        (flags_query(1, 7), "feature_flags"),
        (ranges_query(1, 7), "feature_ranges"),
        (flag_counts_query(1), "feature_flags"),
    ],
)
def test_each_query_finds_its_rows_by_an_index(
    connection: sa.Connection, select: sa.Select[tuple[int]], index: str
) -> None:
    assert_uses_index(connection, select, index)


def test_relations_of_an_earlier_merge_are_not_shown(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        make_results("merged again", 2.0, num_features=FEATURES, top_k=2).load(connection)
    with engine.connect() as connection:
        assert find_relations(connection, 1) is None
        assert neighbours_of(connection, 1, 7) is None
        assert tokens_of(connection, 1, 7) == []
        assert flag_counts(connection, 1) == {}
        assert find_relations(connection, 2) is not None


def test_new_ones_take_the_place_of_those_of_their_sae_alone(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        before = neighbours_of(connection, 2, 7)
        replace_relations(connection, "made-up", "sae", ROW._replace(scope="corpus"), found_in(5), display)
    with engine.connect() as connection:
        row = find_relations(connection, 1)
        assert row is not None
        assert (row.scope, row.sample_count) == ("corpus", found_in(5).totals.samples)
        assert [one.rank for one in tokens_of(connection, 1, 7)] == list(range(len(tokens_of(connection, 1, 7))))
        assert neighbours_of(connection, 2, 7) == before


def test_they_are_removed_without_the_merge(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        delete_relations(connection, "made-up", "sae")
    with engine.connect() as connection:
        assert find_relations(connection, 1) is None
        assert find_relations(connection, 2) is not None
        assert connection.scalar(sa.text("SELECT count(*) FROM extractions")) == 2
