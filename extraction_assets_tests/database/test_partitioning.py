"""Migration 0003: tables of loads that feature_activations inherited become its partitions, on PostgreSQL."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from extraction_assets.database.connect import write_transaction
from extraction_assets.database.migrations.upgrade import upgrade
from extraction_assets_tests.database.earlier import feature_activations, in_the_table, inherited
from extraction_assets_tests.database.synthetic import store_examples
from extraction_assets_tests.database.test_migrations import at_revision
from extraction_assets_tests.postgres import Server

STRONGEST = """
    SELECT tableoid::regclass::text, extraction_id, max_activation, count(*) FROM feature_activations
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
MIGRATED = [
    ("feature_activations_1", 1, 2.0, 400),
    ("feature_activations_2", 2, 3.0, 400),
    ("feature_activations_3", 3, 4.0, 400),
]


@pytest.fixture
def before(postgres_url: str) -> Iterator[sa.Engine]:
    """A database of revision 0002: extraction 1 loaded twice, 2 once, and 3 in ``feature_activations`` itself."""
    engine = at_revision(postgres_url, "0002")
    with write_transaction(engine) as connection:
        for extraction_id, activation in ((1, 1.0), (1, 2.0), (2, 3.0)):
            store_examples(connection, inherited, extraction_id, activation)
        store_examples(connection, in_the_table, 3, 4.0)
    yield engine
    engine.dispose()


def _rows(engine: sa.Engine, statement: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def test_all_rows_stand_in_a_partition_of_their_extraction(before: sa.Engine, postgres_url: str) -> None:
    at_revision(postgres_url, "0003").dispose()
    assert _rows(before, STRONGEST) == MIGRATED
    of_loads = "SELECT relname FROM pg_class WHERE relname ~ '^(ix_)?feature_activations_(\\d+_\\d|before)'"
    assert _rows(before, of_loads) == [], "neither a table nor an index of the old scheme is left"


def test_tables_of_loads_become_partitions_without_a_copy(before: sa.Engine, postgres_url: str) -> None:
    file = "SELECT relfilenode FROM pg_class WHERE relname = '{}'"
    names = ("feature_activations_1_2", "feature_activations_1_2_pkey", "ix_feature_activations_1_2_sample")
    files = [_rows(before, file.format(name)) for name in names]
    at_revision(postgres_url, "0003").dispose()
    assert [_rows(before, file.format(name.replace("_1_2", "_1"))) for name in names] == files


def test_what_people_granted_and_their_views_go_over(
    before: sa.Engine, postgres_server: Server, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    for statement in (
        f"CREATE ROLE {name}_reader LOGIN PASSWORD 'reader-secret'",
        f"GRANT SELECT ON feature_activations TO {name}_reader",
        "CREATE VIEW strongest AS SELECT extraction_id, max_activation FROM feature_activations WHERE rank = 0",
        f"GRANT SELECT ON strongest TO {name}_reader",
        "CREATE VIEW of_strongest AS SELECT max_activation FROM strongest WHERE extraction_id = 1",
    ):
        postgres_server.execute(statement, name)
    at_revision(postgres_url, "0003").dispose()
    assert _rows(before, "SELECT * FROM strongest ORDER BY 1") == [(1, 2.0), (2, 3.0), (3, 4.0)]
    assert _rows(before, "SELECT * FROM of_strongest") == [(2.0,)]
    for table in ("feature_activations", "strongest"):
        assert _rows(before, f"SELECT has_table_privilege('{name}_reader', '{table}', 'SELECT')") == [(True,)]
        assert _rows(before, f"SELECT has_table_privilege('{name}_reader', '{table}', 'DELETE')") == [(False,)]


def test_the_table_keeps_its_owner_whoever_upgrades(
    before: sa.Engine, postgres_server: Server, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"CREATE ROLE {name}_owner", name)
    postgres_server.execute(f"ALTER TABLE feature_activations OWNER TO {name}_owner", name)
    at_revision(postgres_url, "0003").dispose()
    owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'feature_activations'"
    assert _rows(before, owner) == [(f"{name}_owner",)]


@pytest.mark.parametrize("at", ["ATTACH PARTITION feature_activations_2", "DROP TABLE feature_activations_before"])
def test_a_migration_that_is_cut_off_changes_nothing_and_can_be_done_again(
    before: sa.Engine, postgres_url: str, at: str
) -> None:
    rows = _rows(before, STRONGEST)

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if at in statement:
            raise RuntimeError("the machine stops here")

    event.listen(before, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError), write_transaction(before) as connection:
        upgrade(connection, "0003")
    event.remove(before, "before_cursor_execute", fail)
    assert _rows(before, STRONGEST) == rows
    at_revision(postgres_url, "0003").dispose()
    assert _rows(before, STRONGEST) == MIGRATED


def test_a_reader_that_began_before_still_sees_all_rows(before: sa.Engine, postgres_url: str) -> None:
    with before.connect() as reader:
        reader.exec_driver_sql("SELECT * FROM extractions").all()
        at_revision(postgres_url, "0003").dispose()
        assert reader.scalar(sa.select(sa.func.count()).select_from(feature_activations)) == 800
