"""How a database means to find the rows of a query: for a test of the plan of every query that a page uses."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from extraction_assets.database.tables import metadata

_LIMITED = 401
_WAYS_OF_SMALL_TABLES = ("enable_seqscan", "enable_sort")


def plan_of(connection: sa.Connection, select: sa.Select[Any]) -> str:
    """What the database says of a query if its tables are large: both prefer scans for the few rows of a test.

    SQLite gets the statistics of a thousand times the rows; PostgreSQL may scan or sort only where it has to.
    """
    text = str(select.compile(connection, compile_kwargs={"literal_binds": True}))
    explained = {"no_parameters": True}
    if connection.dialect.name == "sqlite":
        with _many_rows(connection):
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", execution_options=explained)
            return "\n".join(str(row[3]) for row in rows)
    for way in _WAYS_OF_SMALL_TABLES:
        connection.exec_driver_sql(f"SET LOCAL {way} = off")
    try:
        rows = connection.exec_driver_sql(f"EXPLAIN {text}", execution_options=explained)
        return "\n".join(str(row[0]) for row in rows)
    finally:
        for way in _WAYS_OF_SMALL_TABLES:
            connection.exec_driver_sql(f"SET LOCAL {way} = on")


@contextlib.contextmanager
def _many_rows(connection: sa.Connection) -> Iterator[None]:
    """ANALYZE writes "rows, rows for each value of the first column, of the first two …": 1 is a key and stays so.

    With the limit that a load sets, no value seems to have more rows than that, not even an extraction.
    """
    if not sa.inspect(connection).has_table("sqlite_stat1"):
        yield
        return
    with connection.begin_nested() as savepoint:
        for table, index, stat in connection.exec_driver_sql("SELECT tbl, idx, stat FROM sqlite_stat1").all():
            words = [word for word in stat.split() if word.isdigit()]
            numbers = [word if word == "1" else str(min(1000 * int(word), _LIMITED)) for word in words]
            numbers[0] = f"{words[0]}000"
            changed = "UPDATE sqlite_stat1 SET stat = ? WHERE tbl = ? AND idx IS ?"
            connection.exec_driver_sql(changed, (" ".join(numbers), table, index))
        connection.exec_driver_sql("ANALYZE sqlite_schema")  # reads the statistics again
        yield
        savepoint.rollback()
    connection.exec_driver_sql("ANALYZE sqlite_schema")


def assert_uses_index(connection: sa.Connection, select: sa.Select[Any], name: str) -> None:
    """``name`` is an index that the query must use, or a table whose rows it must find by its primary key or another
    index; of a table, no scan of all rows may be in the plan."""
    if connection.dialect.name == "parquet":  # files have no index: the query runs
        connection.execute(select).all()
        return
    plan = plan_of(connection, select)
    if name not in metadata.tables:
        assert re.search(rf"\b{name}\b", plan), plan
        return
    scans = rf"\bSCAN {name}\b(?! USING)|Seq Scan on {name}\b"
    assert not re.search(scans, plan), plan
    by_index = r"Index (Only )?Scan (Backward )?using \w+"
    finds = rf"\b(SEARCH|SCAN) {name} USING|({by_index}|Bitmap Heap Scan) on {name}\b"
    assert re.search(finds, plan), plan
