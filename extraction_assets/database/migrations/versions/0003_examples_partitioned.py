"""On PostgreSQL, examples stand in one partition for each extraction.

Before, every load had a table that ``feature_activations`` inherited: at 1,000 results, planning a query took 100 ms.
The tables become partitions as they are, no row is copied; only rows that stand in ``feature_activations`` itself,
where the first version put them, are. Owner, grants, comments and indexes of ``feature_activations``, and views of it,
go over to the new table; if anything else depends on it, nothing is changed and an error names it.
"""

import sqlalchemy as sa
from alembic import op

from extraction_assets.database.migrations.table_dependents import (
    refuse_what_would_be_lost,
    revoke_defaults,
    run_as_written,
    statements_for_indexes,
    statements_for_new_table,
    statements_for_views,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLE, _OLD = "feature_activations", "feature_activations_before_0003"
_KEY = "PRIMARY KEY (extraction_id, neuron_index, rank)"
_BY_SAMPLE = "(extraction_id, sample_index)"

_CHILDREN = f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{_TABLE}'::regclass ORDER BY inhrelid"
_OUR_INDEXES = """
    SELECT indexrelid::regclass::text, indisprimary FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = to_regclass('{table}') AND (indisprimary OR relname = '{by_sample}')
"""
_OF_A_LOAD = r"^feature_activations_\d+_\d+$"


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    run = connection.exec_driver_sql
    run(f"LOCK TABLE {_TABLE} IN ACCESS EXCLUSIVE MODE")
    refuse_what_would_be_lost(connection, _TABLE, _OF_A_LOAD)
    children = run(_CHILDREN).scalars().all()
    first = statements_for_new_table(connection, _TABLE)
    views = statements_for_views(connection, _TABLE)
    indexes = statements_for_indexes(connection, _TABLE, _index_name(_TABLE, False))
    _rename_indexes(connection, _TABLE, _OLD)
    run(f"ALTER TABLE {_TABLE} RENAME TO {_OLD}")
    run(f"CREATE TABLE {_TABLE} (LIKE {_OLD}, {_KEY}) PARTITION BY LIST (extraction_id)")
    run(f"CREATE INDEX {_index_name(_TABLE, False)} ON {_TABLE} {_BY_SAMPLE}")
    revoke_defaults(connection, _TABLE)
    for statement in first:
        run_as_written(connection, statement)
    for child in children:
        _attach_child(connection, child)
    for extraction_id in run(f"SELECT DISTINCT extraction_id FROM {_OLD} ORDER BY 1").scalars().all():
        _copy(connection, extraction_id)
    for statement in views:
        run_as_written(connection, statement)
    run(f"DROP TABLE {_OLD}")
    for statement in indexes:  # now, when their names are free
        run_as_written(connection, statement)


def _rename_indexes(connection: sa.Connection, table: str, name: str) -> None:
    """Give the package's two indexes of a table the names that belong to ``name``; people's stay as they are."""
    run = connection.exec_driver_sql
    for index, is_key in run(_OUR_INDEXES.format(table=table, by_sample=_index_name(table, False))).all():
        run(f"ALTER INDEX {index} RENAME TO {_index_name(name, is_key)}")


def _attach_child(connection: sa.Connection, child: str) -> None:
    """Make one load's table the partition of its extraction; drop it if it was emptied by a later load."""
    run = connection.exec_driver_sql
    extraction_id = run(f"SELECT extraction_id FROM {child} LIMIT 1").scalar()
    if extraction_id is None:
        run(f"DROP TABLE {child}")
        return
    name = f"{_TABLE}_{extraction_id}"
    _rename_indexes(connection, child, name)
    run(f"ALTER TABLE {child} NO INHERIT {_OLD}")
    run(f"ALTER TABLE {child} RENAME TO {name}")
    # Its CHECK on extraction_id saves the server from looking at every row; key and index are taken over.
    run(f"ALTER TABLE {_TABLE} ATTACH PARTITION {name} FOR VALUES IN ({extraction_id})")


def _copy(connection: sa.Connection, extraction_id: int) -> None:
    name = f"{_TABLE}_{extraction_id}"
    run = connection.exec_driver_sql
    run(f"CREATE TABLE {name} (LIKE {_OLD}, CHECK (extraction_id = {extraction_id}))")
    run(f"INSERT INTO {name} SELECT * FROM {_OLD} WHERE extraction_id = {extraction_id}")
    run(f"ALTER TABLE {name} ADD {_KEY}")
    run(f"CREATE INDEX {_index_name(name, False)} ON {name} {_BY_SAMPLE}")
    run(f"ALTER TABLE {_TABLE} ATTACH PARTITION {name} FOR VALUES IN ({extraction_id})")


def _index_name(table: str, is_key: bool) -> str:
    return f"{table}_pkey" if is_key else f"ix_{table}_sample"


def downgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    run = connection.exec_driver_sql
    run(f"CREATE TABLE {_OLD} (LIKE {_TABLE})")
    run(f"INSERT INTO {_OLD} SELECT * FROM {_TABLE}")
    run(f"DROP TABLE {_TABLE}")
    run(f"ALTER TABLE {_OLD} RENAME TO {_TABLE}")
    run(f"ALTER TABLE {_TABLE} ADD {_KEY}")
    run(f"CREATE INDEX ix_{_TABLE}_sample ON {_TABLE} {_BY_SAMPLE}")
