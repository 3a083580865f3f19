"""SQLAlchemy's dialect of DuckDB, as far as the statements of this package need it.

``duckdb-engine``, the dialect that others use, has no release for SQLAlchemy 2.1.
"""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGIdentifierPreparer, PGTypeCompiler
from sqlalchemy.engine import default

NAME = "parquet"


class _Compiler(PGCompiler):
    """DuckDB's SQL is PostgreSQL's but for JSON, whose paths are SQLite's."""

    def visit_json_getitem_op_binary(self, binary: Any, operator: Any, _cast_applied: bool = False, **kw: Any) -> str:
        text = binary.type._type_affinity is not sa.JSON
        found = f"{'json_extract_string' if text else 'json_extract'}({{}}, {{}})".format(
            self.process(binary.left, **kw), self.process(binary.right, **kw)
        )
        return found if binary.type._type_affinity in (sa.JSON, sa.String) else f"CAST({found} AS {self._type(binary)})"

    visit_json_path_getitem_op_binary = visit_json_getitem_op_binary

    def _type(self, binary: Any) -> str:
        return str(self.dialect.type_compiler_instance.process(binary.type))


class _UtcDateTime(sa.types.TypeDecorator[dt.datetime]):
    """A moment as DuckDB has it without a time zone, in UTC."""

    impl = sa.DateTime
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        def process(value: dt.datetime | None) -> dt.datetime | None:
            return None if value is None else value.astimezone(dt.UTC).replace(tzinfo=None)

        return process


class _ExecutionContext(default.DefaultExecutionContext):
    def get_insert_default(self, column: sa.Column[Any]) -> Any:
        """The number of a new row: the next one, as the transaction that asks is the only one that writes."""
        if column.primary_key and column is column.table._autoincrement_column:
            query = f"SELECT coalesce(max({column.name}), 0) + 1 FROM {column.table.name}"
            return self._execute_scalar(query, column.type)
        return super().get_insert_default(column)


class ParquetDialect(default.DefaultDialect):
    """See the module."""

    name = NAME
    driver = "duckdb"
    default_paramstyle = "qmark"
    statement_compiler = _Compiler
    type_compiler_cls = PGTypeCompiler
    preparer = PGIdentifierPreparer
    execution_ctx_cls = _ExecutionContext
    colspecs = {  # noqa: RUF012 - as SQLAlchemy declares it
        sa.DateTime: _UtcDateTime,
        sa.JSON.JSONIndexType: sqlite.base.JSONIndexType,
        sa.JSON.JSONPathType: sqlite.base.JSONPathType,
    }
    supports_native_boolean = True
    supports_statement_cache = True
    supports_sane_multi_rowcount = False
    preexecute_autoincrement_sequences = True
    insert_returning = update_returning = delete_returning = False
    postfetch_lastrowid = False
    _backslash_escapes = False

    @classmethod
    def import_dbapi(cls) -> Any:
        from extraction_assets.database.backends.parquet import driver

        return driver

    def initialize(self, connection: sa.Connection) -> None:
        """DuckDB is part of this process: there is no server to ask."""

    def do_begin(self, dbapi_connection: Any) -> None:
        """The engine's event begins transactions: it knows whether they write."""

    def get_table_names(self, connection: sa.Connection, schema: str | None = None, **kw: Any) -> list[str]:
        """Tables and views, which the tables of files are."""
        return list(connection.exec_driver_sql("SELECT table_name FROM information_schema.tables").scalars())

    def has_table(self, connection: sa.Connection, table_name: str, schema: str | None = None, **kw: Any) -> bool:
        return table_name in self.get_table_names(connection)
