"""A PostgreSQL database with the current tables that tests use one after the other: to make one takes 0.25 CPU seconds,
to empty it a tenth of that."""

import time
from contextlib import AbstractContextManager

import sqlalchemy as sa

from extraction_assets.database.connect import open_database
from extraction_assets_tests.postgres import Server, rows_of

_FIRST_OF_USERS = 16384
"""Lower numbers are those of PostgreSQL's own objects."""

_ROWS_OF_CATALOG = {
    "pg_class": "oid",
    "pg_attribute": "attrelid",
    "pg_attrdef": "oid",
    "pg_constraint": "oid",
    "pg_index": "indexrelid",
    "pg_rewrite": "oid",
    "pg_trigger": "oid",
    "pg_policy": "oid",
    "pg_proc": "oid",
    "pg_type": "oid",
    "pg_extension": "oid",
    "pg_description": "objoid",
    "pg_default_acl": "oid",
}
"""What a schema is made of -> the number of what each row is about."""

_CATALOG = " UNION ALL ".join(
    f"SELECT '{table} ' || {number} || ' ' || xmin FROM {table} WHERE {number} >= {_FIRST_OF_USERS}"
    for table, number in _ROWS_OF_CATALOG.items()
)
_SCHEMA = f"""
    SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (
        {_CATALOG}
        UNION ALL SELECT nspname || xmin FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
        UNION ALL SELECT setconfig::text FROM pg_db_role_setting
            WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS lines (line)
"""
"""Each change of a schema writes a row, which then has another ``xmin``: the transaction that wrote it."""

_EMPTY = """
    DO $$ DECLARE used text; BEGIN
        SELECT string_agg(oid::regclass::text, ', ') INTO used FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
                AND (pg_relation_size(oid) > 0 OR reltuples <> -1);
        IF used IS NOT NULL THEN EXECUTE 'TRUNCATE ' || used || ' CASCADE'; END IF;
    END $$;
    SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence
"""
"""Of rows deleted one by one, pages would stay, by which PostgreSQL plans queries. Most tests fill a third of the
tables, and to truncate one without rows takes as long as one with many."""

_END_OTHERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class ReusedDatabase:
    """Nothing that a test leaves in it is there for the next: neither rows nor numbers given to them. Where a test has
    changed the schema, the next one gets a new database."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._url, self._schema = "", ""

    def take(self) -> str:
        """The URL of a database with the current tables and without rows."""
        if not self._url:
            self._url = self._server.new_database()
            open_database(self._url).dispose()
            with self._connection() as connection:
                self._schema = _only(connection, _SCHEMA)
        return self._url

    def give_back(self) -> None:
        """Empties the database, or drops it."""
        with self._connection() as connection:
            _end_others(connection)
            is_as_it_was = _only(connection, _SCHEMA) == self._schema
            if is_as_it_was:
                rows_of(connection, _EMPTY)
                self._schema = _only(connection, _SCHEMA)  # a table that is truncated is a new file, and so a new row
        if not is_as_it_was:
            self._server.drop_database(self._url)
            self._url = ""

    def _connection(self) -> AbstractContextManager[sa.Connection]:
        return self._server.connection(self._url.rpartition("/")[2])


def _end_others(connection: sa.Connection) -> None:
    until = time.monotonic() + 30
    while _only(connection, _END_OTHERS) != "0":
        assert time.monotonic() < until, "connections of a test do not end"
        time.sleep(0.005)


def _only(connection: sa.Connection, statement: str) -> str:
    ((value,),) = rows_of(connection, statement)
    return str(value)
