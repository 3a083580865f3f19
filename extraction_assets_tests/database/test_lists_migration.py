"""Migration 0006: examples of a row each become lists and a view, on both databases, with what people made of them."""

import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.queries.words import features_of_token
from extraction_assets.database.tables import features, samples
from extraction_assets.database.views import feature_activations, sample_features
from extraction_assets.database.writing.remove import delete_results
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.earlier import before_lists
from extraction_assets_tests.database.synthetic import make_results, store_examples
from extraction_assets_tests.database.test_migrations import at_revision
from extraction_assets_tests.postgres import Server

THIRD = float(np.float32(1 / 3))
TOKENS = [' "quoted"\\\n', "ünï😀", "t"]


def _store_rows(connection: sa.Connection, extraction_id: int, _rows: pa.Table) -> None:
    """Two features, whose rows do not stand in the order of their ranks."""
    columns = {
        "extraction_id": pa.array([extraction_id] * 3),
        "neuron_index": pa.array([5, 5, 0]),
        "rank": pa.array([1, 0, 0]),
        "sample_index": pa.array([42, 7, 42]),
        "max_activation": pa.array([THIRD, 2.0, 16777216.0]),
        "max_token": pa.array(TOKENS),
        "positions": pa.array([[3], [1, 127], [0]], pa.large_list(pa.int64())),
        "activations": pa.array([[THIRD], [2.0, float(np.float32(1e-45))], [16777216.0]], pa.large_list(pa.float64())),
    }
    before_lists(connection, extraction_id, pa.table(columns))


@pytest.fixture
def before(empty_url: str) -> Iterator[sa.Engine]:
    """A database of revision 0005 with two extractions."""
    engine = at_revision(empty_url, "0005")
    with write_transaction(engine) as connection:
        store_examples(connection, _store_rows, 1, 1.0)
        store_examples(connection, before_lists, 2, 1.5, count=3)
        for neuron, maximum in ((0, 16777216.0), (5, 2.0), (6, None)):
            row = {"activation_count": 1, "activation_frequency": 0.5, "token_count": 1, "token_frequency": 0.01}
            of = {"extraction_id": 1, "neuron_index": neuron, "max_activation": maximum, "histogram": []}
            connection.execute(sa.insert(features).values(**row, **of))
    yield engine
    engine.dispose()


def _migrate(engine: sa.Engine) -> sa.Engine:
    return open_database(engine.url.render_as_string(hide_password=False).replace("+psycopg2", ""))


@kinds.empty_sql
def test_examples_keep_their_order_and_their_float32_values(before: sa.Engine) -> None:
    engine = _migrate(before)
    fa = feature_activations.c
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(
                fa.neuron_index, fa.rank, fa.sample_index, fa.max_activation, fa.max_token, fa.positions, fa.activations
            )
            .where(fa.extraction_id == 1)
            .order_by(fa.neuron_index, fa.rank)
        ).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [
        (0, 0, 42, 16777216.0, TOKENS[2], [0], [16777216.0]),
        (5, 0, 7, 2.0, TOKENS[1], [1, 127], [2.0, float(np.float32(1e-45))]),
        (5, 1, 42, THIRD, TOKENS[0], [3], [THIRD]),
    ]


@kinds.empty_sql
def test_features_of_a_sample_come_strongest_first(before: sa.Engine) -> None:
    engine = _migrate(before)
    sf = sample_features.c
    with engine.connect() as connection:
        query = sa.select(sf.neuron_index, sf.max_activation).where(sf.extraction_id == 1, sf.sample_index == 42)
        assert [tuple(row) for row in connection.execute(query)] == [(0, 16777216.0), (5, THIRD)]
    engine.dispose()


@kinds.empty_sql
def test_features_are_found_by_their_tokens(before: sa.Engine) -> None:
    engine = _migrate(before)
    with engine.connect() as connection:
        assert features_of_token(connection, 1, ' "quoted"\\\n', exact=True) == [5]
        assert features_of_token(connection, 1, '"quoted"\\') == [5]
        assert features_of_token(connection, 1, "t") == [0]
    engine.dispose()


@kinds.empty_sql
def test_features_get_their_bins_and_dead_ones_none(before: sa.Engine) -> None:
    engine = _migrate(before)
    with engine.connect() as connection:
        query = sa.select(features.c.density_bin, features.c.max_bin).order_by(features.c.neuron_index)
        # 0.01 is 10^(-20 / 10), the 61st edge; 2^24 is above all 321 edges, and 2 is 2^(8 / 8), the 169th.
        assert [tuple(row) for row in connection.execute(query)] == [(61, 321), (61, 169), (None, None)]
    engine.dispose()


@kinds.empty_sql
def test_migrated_results_are_replaced_and_deleted(before: sa.Engine) -> None:
    engine = _migrate(before)
    with write_transaction(engine) as connection:
        make_results("new", 9.0, num_features=2, sae="1").load(connection)
        delete_results(connection, "made-up", "2")
    with engine.connect() as connection:
        fa = feature_activations.c
        counts = sa.select(fa.extraction_id, fa.max_activation, sa.func.count()).group_by(
            fa.extraction_id, fa.max_activation
        )
        assert [tuple(row) for row in connection.execute(counts)] == [(1, 9.0, 200)]
        assert connection.scalar(sa.select(sa.func.count()).select_from(samples)) == 200
    engine.dispose()


@kinds.empty_sql
def test_views_of_people_read_the_new_view(before: sa.Engine) -> None:
    view = "CREATE VIEW strongest AS SELECT extraction_id, max_token FROM feature_activations WHERE rank = 0"
    with before.begin() as connection:
        connection.exec_driver_sql(view)
    engine = _migrate(before)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM strongest ORDER BY 1, 2").all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [(1, "t"), (1, "ünï😀"), (2, "t")]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE INDEX by_token ON feature_activations (max_token)", "index by_token"),
        ("CREATE VIEW of_one AS SELECT * FROM feature_activations_1", "view of_one of table feature_activations_1"),
        ("CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM feature_activations", "materialized view counts"),
    ],
)
@kinds.empty_sql
def test_what_cannot_go_over_is_named_and_nothing_is_changed(before: sa.Engine, statement: str, named: str) -> None:
    if before.dialect.name == "sqlite" and "INDEX" not in statement:
        pytest.skip("SQLite has no partitions and no materialized views")
    with before.begin() as connection:
        connection.exec_driver_sql(statement)
    with pytest.raises(DatabaseError, match=rf"cannot go over to the view: {named}\. Nothing was changed"):
        _migrate(before)
    with before.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM feature_activations").scalar() == 6
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0005"


def test_whoever_may_read_examples_may_read_their_lists(postgres_server: Server, postgres_url: str) -> None:
    engine = at_revision(postgres_url, "0005")
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"CREATE ROLE {name}_reader LOGIN PASSWORD 'reader-secret'")
    for table in ("feature_activations", "features"):
        postgres_server.execute(f"GRANT SELECT ON {table} TO {name}_reader", name)
    postgres_server.execute("COMMENT ON TABLE feature_activations IS 'it''s 100 %'", name)
    open_database(postgres_url).dispose()
    with engine.connect() as connection:
        for table in ("feature_activations", "feature_example_lists", "sample_features", "feature_labels", "relations"):
            asked = f"SELECT has_table_privilege('{name}_reader', '{table}', '{{}}')"
            assert connection.exec_driver_sql(asked.format("SELECT")).scalar() is True, table
            assert connection.exec_driver_sql(asked.format("DELETE")).scalar() is False, table
        comment = connection.exec_driver_sql("SELECT obj_description('feature_activations'::regclass)").scalar()
        assert comment == "it's 100 %"
    engine.dispose()


@kinds.empty_sql
def test_a_reader_that_began_before_still_sees_all_rows(before: sa.Engine) -> None:
    """On PostgreSQL the migration waits for it."""
    with before.connect() as reader:
        reader.exec_driver_sql("SELECT * FROM extractions").all()
        migration = threading.Thread(target=lambda: _migrate(before).dispose())
        migration.start()
        if before.dialect.name == "sqlite":
            migration.join()
        assert reader.exec_driver_sql("SELECT count(*) FROM feature_activations").scalar() == 6
    migration.join()
