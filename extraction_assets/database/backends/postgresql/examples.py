"""Examples on PostgreSQL: ``feature_activations`` is partitioned by LIST (extraction_id), one partition an extraction.

A query that names an ``extraction_id`` is planned for one partition, however many there are; readers are
never blocked, and see either old or new rows:

- The first load of an extraction fills a table of its own that has no index yet, then makes key and index by sorting,
  and attaches it. Only its transaction sees it until then, and ATTACH (SHARE UPDATE EXCLUSIVE on the parent, no look at
  the rows because of the CHECK) conflicts with no reader's lock.
- A replacement deletes the old rows and inserts the new ones in the same partition, its indexes kept up row by row.
- A partition whose rows have all been deleted is dropped by a later writer, once VACUUM has taken every row out of it:
  then no snapshot can hold one. Only that takes a lock that readers conflict with, and gives up after 10 ms.

Measured by ``benchmarks.storing_layouts`` (the table is in benchmarks/RESULTS.md). Swapping partitions (DETACH the old,
ATTACH the new) replaces four times as fast, but waits for every transaction that has read examples while all new
readers wait behind it, and a transaction with an older snapshot then finds no rows at all. A table a load that
``feature_activations`` inherits, which came before, replaces three times as fast; but at 1,000 results a query of one
feature takes 200 times as long, because planning reads all tables. A partition for each load is as fast as
both, but needs one more column that numbers the loads, in every user's ``SELECT *`` or hidden by a view that is no
table any more (``COPY``, ``pg_dump -t``, keys). Readers and queries weigh more than the time of a replacement.
"""

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint

from extraction_assets.database.backends.postgresql.copy import copy_rows
from extraction_assets.database.backends.protocol import EXAMPLES_TABLE

_SORT_KB = 256 * 1024  # an upper bound, for each index in its turn; 1.6 million entries take some 100 MB
_DROP_WAIT_MS = 10  # how long a reader that comes at the wrong moment may have to wait
# Its partition stays: a reader holds it, or a view of people's reads it.
_STAYS = ("55P03", "2BP01")  # lock_not_available, dependent_objects_still_exist

# Names as SQL wants them, while no transaction holds the partition or its parent: VACUUM would wait for it to end, for
# some seconds. Those in which the server counts rows are left out: to look into each of 1,000 takes a second. So are
# tables that people have put there under other names. Before the schema is made there are none.
_PARTITIONS = f"""
    SELECT inhrelid::regclass::text, pg_stat_get_dead_tuples(inhrelid)
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid AND relname ~ '^{EXAMPLES_TABLE}_[0-9]+(_[0-9]+)?$'
    WHERE inhparent = to_regclass('{EXAMPLES_TABLE}') AND pg_stat_get_live_tuples(inhrelid) = 0
    AND NOT EXISTS (
        SELECT FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE relation IN (inhrelid, inhparent) AND datname = current_database()
    ) ORDER BY inhrelid
"""


def replace_examples(connection: sa.Connection, examples: sa.Table, extraction_id: int, rows: pa.Table) -> None:
    """Put examples in the place of an extraction's old ones, in the open transaction, under the writers' lock."""
    name = f"{EXAMPLES_TABLE}_{extraction_id}"
    if connection.scalar(sa.select(sa.func.to_regclass(name))) is not None:
        connection.execute(sa.delete(examples).where(examples.c.extraction_id == extraction_id))
        copy_rows(connection, examples.to_metadata(sa.MetaData(), name=name), [rows])
    elif len(rows):
        _attach_new(connection, examples, name, extraction_id, rows)


def is_partition(table_name: str) -> bool:
    """Whether a table holds the examples of one extraction."""
    return table_name.startswith(f"{EXAMPLES_TABLE}_")


def drop_emptied(engine: sa.Engine, lock_key: int) -> None:
    """Drop the partitions of deleted examples of which no reader can see a row any more.

    Each in a short transaction of its own. What a reader's transaction still holds is left to the next writer; so are
    all of them while another writer has the lock ``lock_key``.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(lock_key))):
            return
        try:
            for name, dead_rows in connection.exec_driver_sql(_PARTITIONS).all():
                if not connection.exec_driver_sql(f"SELECT EXISTS (SELECT FROM {name})").scalar():
                    _drop_if_emptied(engine, connection, name, dead_rows)
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(lock_key)))


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
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in _STAYS:
            raise


def _attach_new(connection: sa.Connection, examples: sa.Table, name: str, extraction_id: int, rows: pa.Table) -> None:
    check = f"CHECK (extraction_id = {extraction_id})"
    connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE {EXAMPLES_TABLE}, {check})")
    partition = examples.to_metadata(sa.MetaData(), name=name)
    copy_rows(connection, partition, [rows])
    _allow_sorting_in_memory(connection)
    connection.execute(AddConstraint(partition.primary_key))
    for index in partition.indexes:
        index.name = sa.quoted_name(str(index.name).replace(EXAMPLES_TABLE, name), quote=None)
        index.create(connection)
    connection.exec_driver_sql(f"ALTER TABLE {EXAMPLES_TABLE} ATTACH PARTITION {name} FOR VALUES IN ({extraction_id})")


def _allow_sorting_in_memory(connection: sa.Connection) -> None:
    """Until the transaction ends; a server that allows more goes on allowing it."""
    connection.exec_driver_sql(
        f"SELECT set_config('maintenance_work_mem', greatest(setting::bigint, {_SORT_KB})::text, true) "
        "FROM pg_settings WHERE name = 'maintenance_work_mem'"
    )
