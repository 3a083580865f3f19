"""Examples on PostgreSQL: a table of its own for every load, which ``feature_activations`` inherits.

It is loaded while it has no index, and its indexes are made at once afterwards: the whole merge takes a third to two
thirds of the time that it takes where they are kept up row by row. Whoever queries ``feature_activations`` finds the
rows of all its children; a CHECK on ``extraction_id`` lets the server leave out those of other extractions.

Nobody who reads is held up, or sees anything but old or new rows:

- The new table is its transaction's own until it commits, and ``INHERIT`` (SHARE UPDATE EXCLUSIVE on the parent)
  conflicts with no reader's lock.
- Old rows are deleted, not dropped with their table: a reader whose snapshot is older still finds them, even if it has
  not looked at the table before. That is why this is inheritance and not a partition for each extraction: of one
  extraction two tables, the old and the new one, must be able to stand beside each other.
- A table whose rows have all been deleted is dropped by a later writer, once VACUUM has taken every row out of it:
  then no snapshot can hold one.

Rows that an earlier version stored stand in ``feature_activations`` itself and stay there until they are replaced.
"""

from collections.abc import Iterator
from itertools import count

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint

from extraction_assets.database.backends.postgresql.copy import copy_rows
from extraction_assets.database.backends.protocol import EXAMPLES_TABLE

_SORT_KB = 256 * 1024  # an upper bound, for each index in its turn; 1.6 million entries take some 100 MB
_DROP_WAIT_MS = 10  # how long a reader that comes at the wrong moment may have to wait
_LOCK_NOT_AVAILABLE = "55P03"

# Names as SQL wants them, of tables that no transaction holds: VACUUM would wait for it to end, for some seconds.
# Where the schema has not been made yet there are none.
_CHILDREN = """
    SELECT inhrelid::regclass::text, pg_stat_get_dead_tuples(inhrelid)
    FROM pg_inherits WHERE inhparent = to_regclass('feature_activations') AND NOT EXISTS (
        SELECT FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE relation = inhrelid AND datname = current_database()
    ) ORDER BY inhrelid
"""


def replace_examples(connection: sa.Connection, examples: sa.Table, extraction_id: int, rows: pa.Table) -> None:
    """Put examples in the place of an extraction's old ones, in the open transaction, under the writers' lock."""
    connection.execute(sa.delete(examples).where(examples.c.extraction_id == extraction_id))
    if not len(rows):
        return
    table = _new_table(connection, examples, extraction_id)
    copy_rows(connection, table, [rows])
    _allow_sorting_in_memory(connection)
    connection.execute(AddConstraint(table.primary_key))
    for index in table.indexes:
        index.create(connection)
    connection.exec_driver_sql(f"ALTER TABLE {table.name} INHERIT feature_activations")


def drop_emptied(engine: sa.Engine, lock_key: int) -> None:
    """Drop the tables of replaced and deleted examples of which no reader can see a row any more.

    Each in a short transaction of its own. A table that a reader's transaction still holds is left to the next writer;
    so are all of them while another writer has the lock ``lock_key``.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(lock_key))):
            return
        try:
            for name, dead_rows in connection.exec_driver_sql(_CHILDREN).all():
                if not connection.exec_driver_sql(f"SELECT EXISTS (SELECT FROM {name})").scalar():
                    _drop_if_emptied(engine, connection, name, dead_rows)
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(lock_key)))


def is_one_load(table_name: str) -> bool:
    """Whether a table holds the examples of one load."""
    return table_name.startswith(f"{EXAMPLES_TABLE}_")


def _drop_if_emptied(engine: sa.Engine, connection: sa.Connection, name: str, dead_rows: int) -> None:
    """``connection`` commits by itself: VACUUM runs in no transaction."""
    if not dead_rows:
        # Autovacuum has been there and will not come again, but a reader may have kept it from shortening the table.
        connection.exec_driver_sql(f"VACUUM (SKIP_LOCKED) {name}")
    if connection.scalar(sa.select(sa.func.pg_relation_size(name))) == 0:
        _drop(engine, name)


def _drop(engine: sa.Engine, name: str) -> None:
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_DROP_WAIT_MS}ms'")
            connection.exec_driver_sql(f"DROP TABLE {name}")
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE:
            raise


def _new_table(connection: sa.Connection, examples: sa.Table, extraction_id: int) -> sa.Table:
    """An empty table with the columns of ``feature_activations``; its key and indexes are in the answer alone."""
    name = next(name for name in _names(extraction_id) if not _is_taken(connection, name))
    check = f"CHECK (extraction_id = {extraction_id})"
    connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE feature_activations, {check})")
    table = examples.to_metadata(sa.MetaData(), name=name)
    for index in table.indexes:
        index.name = sa.quoted_name(str(index.name).replace(EXAMPLES_TABLE, name), quote=None)
    return table


def _names(extraction_id: int) -> Iterator[str]:
    return (f"{EXAMPLES_TABLE}_{extraction_id}_{load}" for load in count(1))


def _is_taken(connection: sa.Connection, name: str) -> bool:
    return connection.scalar(sa.select(sa.func.to_regclass(name))) is not None


def _allow_sorting_in_memory(connection: sa.Connection) -> None:
    """Until the transaction ends; a server that allows more goes on allowing it."""
    connection.exec_driver_sql(
        f"SELECT set_config('maintenance_work_mem', greatest(setting::bigint, {_SORT_KB})::text, true) "
        "FROM pg_settings WHERE name = 'maintenance_work_mem'"
    )
