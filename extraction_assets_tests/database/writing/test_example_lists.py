"""Lists and their views: what is loaded comes back exactly, by feature and by sample, on both databases."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
import torch

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries.examples import draws_of, draws_query, examples_of, examples_query
from extraction_assets.database.tables import features, samples
from extraction_assets.database.views import sample_features
from extraction_assets.database.writing import example_lists, feature_examples
from extraction_assets.database.writing.feature_examples import replace_results
from extraction_assets.engine.shapes import Draws
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.plans import assert_uses_index
from extraction_assets_tests.database.synthetic import CORPUS, make_results

# Of a float32: the least, one with nine digits, a whole one.
VALUES = [1e-45, 1 / 3, 16777216.0]


@pytest.fixture
def loaded(results_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Connection]:
    """Three features of one example each, and three draws, one of which is feature 2's example; made in small parts."""
    monkeypatch.setattr(example_lists, "_FIRINGS_AT_ONCE", 1)
    monkeypatch.setattr(example_lists, "_PAIRS_AT_ONCE", 1)
    made = make_results("f", 1.0, num_features=3, top_k=1)
    values = torch.tensor(VALUES)
    table = made.table._replace(max_activation=values, activations=values)
    draws = Draws(
        neuron_index=torch.tensor([0, 0, 2]),
        interval=torch.tensor([-1, 40, 7]),
        sample_index=torch.tensor([5, 6, 15838]),
        max_activation=torch.tensor([0.1, 0.2, VALUES[2]]),
        firing_offsets=torch.tensor([0, 2, 3, 4]),
        positions=torch.tensor([3, 1, 0, 2]),
        activations=torch.tensor([0.1, 0.05, 0.2, VALUES[2]]),
    )
    engine = open_database(results_url)
    with write_transaction(engine) as connection:
        replace_results(connection, made.extraction, CORPUS, table, made.statistics, _display, draws)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _display(ids: list[int]) -> list[str]:
    return [f't"{number}' for number in ids]


def test_examples_come_back_bit_for_bit(loaded: sa.Connection) -> None:
    found = [examples_of(loaded, 1, feature)[0] for feature in range(3)]
    assert [one.max_activation for one in found] == [float(np.float32(value)) for value in VALUES]
    assert [one.activations for one in found] == [[float(np.float32(value))] for value in VALUES]
    assert [one.max_token for one in found] == ['t"0', 't"1', 't"2']


def test_draws_come_by_interval_with_all_their_firings(loaded: sa.Connection) -> None:
    found = [(one.interval, one.rank, one.sample_index, one.positions, one.max_token) for one in draws_of(loaded, 1, 0)]
    assert found == [(-1, 0, 5, [3, 1], 't"3'), (40, 0, 6, [0], 't"0')]
    assert draws_of(loaded, 1, 0)[0].activations == [float(np.float32(0.1)), float(np.float32(0.05))]
    assert draws_of(loaded, 1, 1) == []


def test_a_sample_has_the_features_of_examples_and_draws_each_once(loaded: sa.Connection) -> None:
    sf = sample_features.c
    query = sa.select(sf.sample_index, sf.neuron_index).order_by(sf.sample_index, sf.neuron_index)
    assert [tuple(row) for row in loaded.execute(query)] == [(0, 0), (5, 0), (6, 0), (7919, 1), (15838, 2)]
    assert list(loaded.scalars(sa.select(samples.c.sample_index).order_by(samples.c.sample_index))) == [
        0,
        5,
        6,
        7919,
        15838,
    ]


def test_lists_and_samples_are_found_by_an_index(loaded: sa.Connection) -> None:
    for query, table in ((examples_query(1, 2, 5), "feature_example_lists"), (draws_query(1, 2), "feature_draw_lists")):
        assert_uses_index(loaded, query, table)
        assert_uses_index(loaded, query, "samples")


@kinds.sql
def test_every_load_ends_with_statistics_for_the_planner(loaded: sa.Connection) -> None:
    query = "SELECT count(*) FROM sqlite_stat1 WHERE tbl = 'sample_feature_lists'"
    if loaded.dialect.name == "postgresql":
        query = "SELECT count(*) FROM pg_stats WHERE tablename = 'sample_feature_lists'"
    assert (loaded.exec_driver_sql(query).scalar() or 0) > 0


@pytest.mark.parametrize("at_once", [1, 7, 60])
@pytest.mark.parametrize("spans", [1, 3, 64])
def test_samples_sorted_in_parts_have_the_lists_of_all_at_once(
    at_once: int, spans: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(at_once)
    drawn = [(random.integers(40, 77, 50), random.integers(0, 5, 50)) for _ in range(2)]
    # What is given twice has one maximum: that of its place in this table.
    maxima = random.random((77, 5), dtype=np.float32)
    pairs = [(samples, neurons, maxima[samples, neurons]) for samples, neurons in drawn]
    whole = pa.concat_tables(example_lists.sample_lists(1, 5, pairs))
    monkeypatch.setattr(example_lists, "_SORTED_AT_ONCE", at_once)
    monkeypatch.setattr(example_lists, "_SPANS", spans)
    assert pa.concat_tables(example_lists.sample_lists(1, 5, pairs)).to_pylist() == whole.to_pylist()


def test_no_pairs_have_no_samples() -> None:
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    assert list(example_lists.sample_lists(1, 5, [nothing, nothing])) == []


def test_rows_of_features_are_made_some_at_a_time(results_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows = make_results("f", 1.0, num_features=7, top_k=2), []
    for size in (7, 3, 1):
        monkeypatch.setattr(feature_examples, "_FEATURES_AT_ONCE", size)
        engine = open_database(results_url)
        with write_transaction(engine) as connection:
            replace_results(connection, made.extraction, CORPUS, made.table, made.statistics, _display)
            query = sa.select(features).order_by(features.c.neuron_index)
            rows.append([tuple(row) for row in connection.execute(query)])
        engine.dispose()
    assert rows[0] == rows[1] == rows[2]
    assert [row[1] for row in rows[0]] == list(range(7))
