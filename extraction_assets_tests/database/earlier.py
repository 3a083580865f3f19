"""Examples as earlier versions stored them, a row each: what the migrations begin with."""

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint

from extraction_assets.database.backends import backend_of, column_type
from extraction_assets.database.backends.postgresql.bulk import copy_rows

PARENT = "feature_activations"

feature_activations = sa.Table(
    PARENT,
    sa.MetaData(),
    sa.Column("extraction_id", sa.BigInteger, primary_key=True),
    sa.Column("neuron_index", sa.BigInteger, primary_key=True),
    sa.Column("rank", sa.Integer, primary_key=True),
    sa.Column("sample_index", sa.BigInteger, nullable=False),
    sa.Column("max_activation", sa.Double, nullable=False),
    sa.Column("max_token", sa.Text, nullable=False),
    sa.Column("positions", column_type("integers"), nullable=False),
    sa.Column("activations", column_type("doubles"), nullable=False),
    sa.Index("ix_feature_activations_sample", "extraction_id", "sample_index"),
)


def in_the_table(connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
    """As the first version did, and every one on SQLite: in the table itself."""
    _delete(connection, extraction_id)
    backend_of(connection).insert(connection, feature_activations, [rows])


def inherited(connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
    """As revision 0002 did on PostgreSQL: in a new table for every load, which ``feature_activations`` inherits."""
    _delete(connection, extraction_id)
    load = 1
    while _exists(connection, f"{PARENT}_{extraction_id}_{load}"):
        load += 1
    name = _loaded(connection, f"{PARENT}_{extraction_id}_{load}", rows, extraction_id)
    connection.exec_driver_sql(f"ALTER TABLE {name} INHERIT {PARENT}")


def in_a_partition(connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
    """As revisions 0003 to 0005 did on PostgreSQL: in a partition of the extraction."""
    name = _loaded(connection, f"{PARENT}_{extraction_id}", rows, extraction_id)
    connection.exec_driver_sql(f"ALTER TABLE {PARENT} ATTACH PARTITION {name} FOR VALUES IN ({extraction_id})")


def before_lists(connection: sa.Connection, extraction_id: int, rows: pa.Table) -> None:
    """As revision 0005 did on either database."""
    store = in_the_table if connection.dialect.name == "sqlite" else in_a_partition
    store(connection, extraction_id, rows)


def _delete(connection: sa.Connection, extraction_id: int) -> None:
    connection.execute(sa.delete(feature_activations).where(feature_activations.c.extraction_id == extraction_id))


def _loaded(connection: sa.Connection, name: str, rows: pa.Table, extraction_id: int) -> str:
    """The name of a new table of its own, filled, then indexed."""
    connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE {PARENT}, CHECK (extraction_id = {extraction_id}))")
    table = feature_activations.to_metadata(sa.MetaData(), name=name)
    copy_rows(connection, table, [rows])
    connection.execute(AddConstraint(table.primary_key))
    for index in table.indexes:
        index.name = sa.quoted_name(f"ix_{name}_sample", quote=None)
        index.create(connection)
    return name


def _exists(connection: sa.Connection, name: str) -> bool:
    return connection.scalar(sa.select(sa.func.to_regclass(name))) is not None
