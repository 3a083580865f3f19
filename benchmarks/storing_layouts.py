"""How PostgreSQL should store examples: load, replacement, queries and waits of readers, for each of ``layouts``.

    python -m benchmarks.storing_layouts --postgres URL [--features 16384] [--results 1000] [--only NAME] [--migration]

Every layout has a schema ``benchmark_N`` of its own in the database, dropped afterwards. While the examples of one
result are replaced, a reader queries one feature after the other, and a transaction that began before is held open.
Last, migration 0003 is timed: from a table a load, inherited, to a partition an extraction, of as many results.
"""

import argparse
import contextlib
import json
import random
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import sqlalchemy as sa

from benchmarks.layouts import LAYOUTS, PARENT, Inherited, Layout
from benchmarks.storing import Sizes, conditions, display, make_corpus, make_table
from extraction_assets.database.backends import parse_url
from extraction_assets.database.connect import connect, write_transaction
from extraction_assets.database.load import example_columns
from extraction_assets.database.migrations.upgrade import upgrade

LARGE = 1
"""The extraction of which the large result is loaded; ids above are the small ones."""

BY_FEATURE = f"SELECT * FROM {PARENT} WHERE extraction_id = %s AND neuron_index = %s ORDER BY rank LIMIT 10"
_PATIENCE_S = 3  # how long a writer waits for a reader's transaction before it is called blocked
_SMALL_ROWS = 300


class Figures(NamedTuple):
    """One row of the report."""

    layout: str
    load_s: float
    replace_s: float
    reader_max_ms: float
    """Longest query of one feature during the replacement."""
    lock_wait_ms: float
    """Longest wait for a lock among them."""
    snapshot: str
    """The examples that the transaction that began before sees afterwards."""
    blocked: str
    """Whether a writer waits for a transaction that has read examples."""
    query_ms: float
    planning_ms: float
    first_query_ms: float
    """The first query of a connection, which has to read the catalogue."""


class Bench:
    """One layout in one schema."""

    def __init__(self, url: sa.URL, schema: str, layout: Layout) -> None:
        self._url, self._schema, self.layout = url, schema, layout
        _execute(url, f"CREATE SCHEMA {schema}")
        self.engine = self.new_engine()
        with self.engine.begin() as connection:
            layout.create(connection)

    def new_engine(self, level: str = "READ COMMITTED") -> sa.Engine:
        arguments = {"options": f"-csearch_path={self._schema}"}
        return sa.create_engine(self._url, connect_args=arguments, isolation_level=level)

    def replace(self, extraction_id: int, rows: pa.Table, patience: float | None = None) -> float:
        """Seconds that a replacement takes, its commit included."""
        started = time.perf_counter()
        with self.engine.begin() as connection:
            if patience is not None:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{patience}s'")
            self.layout.replace(connection, extraction_id, rows)
        return time.perf_counter() - started

    def close(self) -> None:
        self.engine.dispose()
        _drop_schema(self._url, self._schema)


class Reader(contextlib.AbstractContextManager["Reader"]):
    """Queries one feature after the other, each query in its own transaction; records the waits."""

    def __init__(self, bench: Bench, features: int) -> None:
        self._bench, self._features, self._done = bench, features, threading.Event()
        self.seconds: list[float] = []
        self.lock_wait = 0.0
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._watch)]
        self._pid: int | None = None

    def _read(self) -> None:
        engine = self._bench.new_engine("AUTOCOMMIT")
        with engine.connect() as connection:
            self._pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            while not self._done.is_set():
                started = time.perf_counter()
                connection.exec_driver_sql(BY_FEATURE, (LARGE, random.randrange(self._features))).all()
                self.seconds.append(time.perf_counter() - started)
                self._done.wait(0.005)
        engine.dispose()

    def _watch(self) -> None:
        waiting = sa.text(
            "SELECT extract(epoch FROM max(clock_timestamp() - waitstart)) FROM pg_locks "
            "WHERE pid = :pid AND NOT granted"
        )
        engine = self._bench.new_engine("AUTOCOMMIT")
        with engine.connect() as connection:
            while not self._done.wait(0.002):
                self.lock_wait = max(self.lock_wait, float(connection.scalar(waiting, {"pid": self._pid}) or 0))
        engine.dispose()

    def __enter__(self) -> "Reader":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.2)
        self._done.set()
        for thread in self._threads:
            thread.join()


def make_rows(sizes: Sizes, number: int, extraction_id: int) -> pa.Table:
    """Examples as a merge gives them."""
    table, found = make_table(sizes, number)
    corpus = make_corpus(sizes.tables * 5_000)
    return pa.table(example_columns(extraction_id, corpus, table, found, display))


def measure(bench: Bench, sizes: Sizes, results: int) -> Figures:
    old, new = make_rows(sizes, 0, LARGE), make_rows(sizes, 1, LARGE)
    load = bench.replace(LARGE, old)
    snapshots = bench.new_engine("REPEATABLE READ")
    count = f"SELECT count(*) FROM {PARENT} WHERE extraction_id = {LARGE}"
    with snapshots.connect() as early:
        early.exec_driver_sql("SELECT 1 FROM pg_class LIMIT 1").all()  # takes its snapshot, but not of examples
        with Reader(bench, sizes.features) as reader:
            replace = bench.replace(LARGE, new)
        seen = early.exec_driver_sql(count).scalar()
    snapshot = "the old rows" if seen == len(old) else f"{seen} rows"
    small = _small(old)
    for number in range(2, results + 1):
        bench.replace(number, _of(small, number))
    with snapshots.connect() as holding:
        holding.exec_driver_sql(BY_FEATURE, (LARGE, 1)).all()
        blocked = _blocked(bench, _of(small, 2))
    snapshots.dispose()
    return Figures(
        bench.layout.name,
        load,
        replace,
        max(reader.seconds) * 1000,
        reader.lock_wait * 1000,
        snapshot,
        blocked,
        *_query_times(bench, results),
    )


def _small(rows: pa.Table) -> pa.Table:
    return rows.slice(0, _SMALL_ROWS)


def _of(rows: pa.Table, extraction_id: int) -> pa.Table:
    return rows.set_column(0, "extraction_id", pa.array([extraction_id] * len(rows), pa.int64()))


def _blocked(bench: Bench, rows: pa.Table) -> str:
    try:
        return f"no ({bench.replace(2, rows, _PATIENCE_S):.2f} s)"
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "pgcode", None) != "55P03":
            raise
        return "until it ends"


def _query_times(bench: Bench, results: int) -> tuple[float, float, float]:
    """Milliseconds: median of a query of one feature, of its planning, and of a connection's first query."""
    first = []
    for _ in range(5):
        engine = bench.new_engine("AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1").all()
            first.append(_seconds(connection, results))
        engine.dispose()
    with bench.engine.connect() as connection:
        _seconds(connection, results)
        warm = [_seconds(connection, results) for _ in range(200)]
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {BY_FEATURE}"
        plans = [connection.exec_driver_sql(explain, (LARGE, number)).scalar() for number in range(50)]
    parsed: list[Any] = [json.loads(plan) if isinstance(plan, str) else plan for plan in plans]
    planning = statistics.median(plan[0]["Planning Time"] for plan in parsed)
    return statistics.median(warm) * 1000, planning, statistics.median(first) * 1000


def _seconds(connection: sa.Connection, results: int) -> float:
    wanted = random.randrange(2, results + 1) if results > 1 else LARGE
    started = time.perf_counter()
    connection.exec_driver_sql(BY_FEATURE, (wanted, 1)).all()
    return time.perf_counter() - started


def rows_of_report(url: sa.URL, sizes: Sizes, results: int, chosen: list[str]) -> Iterator[Figures]:
    for number, layout in enumerate(LAYOUTS):
        if chosen and layout.name not in chosen:
            continue
        bench = Bench(url, f"benchmark_{number}", layout)
        try:
            yield measure(bench, sizes, results)
        finally:
            bench.close()


def migration_seconds(url: sa.URL, sizes: Sizes, results: int) -> float:
    """How long migration 0003 takes on a database of one large result and many small ones."""
    schema = "benchmark_migration"
    _execute(url, f"CREATE SCHEMA {schema}")
    in_schema = url.update_query_dict({"options": f"-csearch_path={schema}"})
    engine = connect(in_schema.render_as_string(hide_password=False))
    try:
        _upgrade(engine, "0002")
        rows = make_rows(sizes, 0, LARGE)
        for number in range(1, results + 1):
            with engine.begin() as connection:  # a write_transaction would look for emptied tables each time
                Inherited().replace(connection, number, rows if number == LARGE else _of(_small(rows), number))
        started = time.perf_counter()
        _upgrade(engine, "0003")
        return time.perf_counter() - started
    finally:
        engine.dispose()
        _drop_schema(url, schema)


def _upgrade(engine: sa.Engine, revision: str) -> None:
    with write_transaction(engine) as connection:
        upgrade(connection, revision)


def _execute(url: sa.URL, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def _drop_schema(url: sa.URL, schema: str) -> None:
    engine = sa.create_engine(url)
    names = [name for name in sa.inspect(engine).get_table_names(schema) if name.startswith(f"{PARENT}_")]
    engine.dispose()
    for first in range(0, len(names), 50):  # a server allows only so many locks in one transaction
        _execute(url, f"DROP TABLE {', '.join(f'{schema}.{name}' for name in names[first : first + 50])} CASCADE")
    _execute(url, f"DROP SCHEMA {schema} CASCADE")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.storing_layouts", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--postgres", metavar="URL", required=True, help="a database to work in, postgresql://…")
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--results", type=int, default=1_000, help="results in the database when queries are timed")
    parser.add_argument("--migration", action="store_true", help="time the migration alone")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this layout; may come repeatedly")
    options = parser.parse_args()
    sizes = Sizes(2, options.features, options.top_k)
    print(", ".join(f"{name} {value}" for name, value in conditions(sizes).items()), "\n")
    print("| " + " | ".join(Figures._fields) + " |\n|" + " --- |" * len(Figures._fields))
    url = parse_url(options.postgres, "--postgres")
    for figures in () if options.migration else rows_of_report(url, sizes, options.results, options.only):
        cells = [f"{value:.2f}" if isinstance(value, float) else value for value in figures]
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nmigration 0003 of {options.results} results: {migration_seconds(url, sizes, options.results):.2f} s")


if __name__ == "__main__":
    main()
