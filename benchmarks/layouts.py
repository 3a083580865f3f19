"""Minimal versions of the ways to store examples on PostgreSQL that ``benchmarks.storing_layouts`` compares.

Each makes its tables in an empty schema, the first of the ``search_path``, and replaces the examples of one result
inside an open transaction.
"""

from typing import Protocol

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable

from extraction_assets.database.backends.postgresql.copy import copy_rows
from extraction_assets.database.tables import feature_activations

PARENT = "feature_activations"
_KEY = "PRIMARY KEY (extraction_id, neuron_index, rank)"
_SORT = "SET LOCAL maintenance_work_mem = '256MB'"


class Layout(Protocol):
    """One way to store examples."""

    @property
    def name(self) -> str: ...

    def create(self, connection: sa.Connection) -> None:
        """Make ``feature_activations`` without rows."""

    def replace(self, connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
        """Put rows in the place of those of an extraction."""


class OneTable:
    """Delete and insert, with indexes updated row by row."""

    name = "one table"

    def create(self, connection: sa.Connection) -> None:
        connection.execute(CreateTable(feature_activations))
        for index in feature_activations.indexes:
            connection.execute(CreateIndex(index))

    def replace(self, connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
        _delete(connection, extraction_id)
        copy_rows(connection, feature_activations, [rows])


class Inherited:
    """A table for every load, which ``feature_activations`` inherits; old rows are deleted."""

    name = "a table a load, inherited"

    def create(self, connection: sa.Connection) -> None:
        OneTable().create(connection)

    def replace(self, connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
        _delete(connection, extraction_id)
        table = _loaded(connection, _free_name(connection, extraction_id), rows, extraction_id)
        connection.exec_driver_sql(f"ALTER TABLE {table.name} INHERIT {PARENT}")


class InPlace:
    """A partition for every extraction; old rows are deleted and new ones inserted in the same partition."""

    name = "a partition an extraction, rows replaced"

    def create(self, connection: sa.Connection) -> None:
        _create_partitioned(connection, "LIST (extraction_id)")

    def replace(self, connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
        if _exists(connection, f"{PARENT}_{extraction_id}"):
            _delete(connection, extraction_id)
            copy_rows(connection, feature_activations, [rows])
        else:
            _attach(connection, _loaded(connection, f"{PARENT}_{extraction_id}", rows, extraction_id), extraction_id)


class Swapped:
    """A partition for every extraction; the old one is detached and dropped, a new one attached."""

    name = "a partition an extraction, swapped"

    def create(self, connection: sa.Connection) -> None:
        _create_partitioned(connection, "LIST (extraction_id)")

    def replace(self, connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
        query = sa.text(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass('feature_activations') "
            "AND inhrelid::regclass::text LIKE :name"
        )
        old = connection.scalars(query, {"name": rf"{PARENT}\_{extraction_id}\_%"}).all()
        table = _loaded(connection, _free_name(connection, extraction_id), rows, extraction_id)
        for name in old:  # as late as possible: readers wait from here to the commit
            connection.exec_driver_sql(f"ALTER TABLE {PARENT} DETACH PARTITION {name}")
            connection.exec_driver_sql(f"DROP TABLE {name}")
        _attach(connection, table, extraction_id)


class Generations:
    """A partition for every load, by one more column that numbers the loads of an extraction; old rows are deleted."""

    name = "a partition a load, one more column"

    def create(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"{_columns()}, load integer NOT NULL) PARTITION BY RANGE (extraction_id, load)")

    def replace(self, connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
        _delete(connection, extraction_id)
        name = _free_name(connection, extraction_id)
        load = int(name.rpartition("_")[2])
        connection.exec_driver_sql(
            f"CREATE TABLE {name} (LIKE {PARENT}, CHECK (extraction_id = {extraction_id} AND load = {load}))"
        )
        connection.exec_driver_sql(f"ALTER TABLE {name} ALTER load SET DEFAULT {load}")
        _fill(connection, _named(name), rows)
        connection.exec_driver_sql(
            f"ALTER TABLE {PARENT} ATTACH PARTITION {name} "
            f"FOR VALUES FROM ({extraction_id}, {load}) TO ({extraction_id}, {load + 1})"
        )


LAYOUTS: tuple[Layout, ...] = (OneTable(), Inherited(), InPlace(), Swapped(), Generations())


def _columns() -> str:
    types = (f"{column.name} {column.type.compile(dialect=_DIALECT)} NOT NULL" for column in feature_activations.c)
    return f"CREATE TABLE {PARENT} ({', '.join(types)}"


_DIALECT = sa.dialects.postgresql.dialect()


def _create_partitioned(connection: sa.Connection, by: str) -> None:
    connection.exec_driver_sql(f"{_columns()}, {_KEY}) PARTITION BY {by}")
    connection.exec_driver_sql(f"CREATE INDEX ix_{PARENT}_sample ON {PARENT} (extraction_id, sample_index)")


def _attach(connection: sa.Connection, table: sa.Table, extraction_id: int) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {PARENT} ATTACH PARTITION {table.name} FOR VALUES IN ({extraction_id})")


def _delete(connection: sa.Connection, extraction_id: int) -> None:
    connection.execute(sa.delete(feature_activations).where(feature_activations.c.extraction_id == extraction_id))


def _loaded(connection: sa.Connection, name: str, rows: pa.Table, extraction_id: int) -> sa.Table:
    """A new table of its own, filled, then indexed; the CHECK saves ATTACH from looking at the rows."""
    connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE {PARENT}, CHECK (extraction_id = {extraction_id}))")
    table = _named(name)
    _fill(connection, table, rows)
    return table


def _fill(connection: sa.Connection, table: sa.Table, rows: pa.Table) -> None:
    copy_rows(connection, table, [rows])
    connection.exec_driver_sql(_SORT)
    connection.execute(AddConstraint(table.primary_key))
    for index in table.indexes:
        index.create(connection)


def _named(name: str) -> sa.Table:
    table = feature_activations.to_metadata(sa.MetaData(), name=name)
    for index in table.indexes:
        index.name = sa.quoted_name(f"ix_{name}_sample", quote=None)
    return table


def _free_name(connection: sa.Connection, extraction_id: int) -> str:
    load = 1
    while _exists(connection, f"{PARENT}_{extraction_id}_{load}"):
        load += 1
    return f"{PARENT}_{extraction_id}_{load}"


def _exists(connection: sa.Connection, name: str) -> bool:
    return connection.scalar(sa.select(sa.func.to_regclass(name))) is not None
