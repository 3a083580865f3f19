"""A new database has the schema at once that the migrations give an older one, on each kind."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import connect, open_database, write_transaction
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.migrations.revisions import known_revisions, revision_of
from extraction_assets.database.migrations.upgrade import upgrade
from extraction_assets.database.tables import metadata
from extraction_assets_tests.database import kinds

MORE = {
    "sqlite": "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite%'",
    "postgresql": "SELECT attrelid::regclass::text || '.' || attname, attstorage FROM pg_attribute JOIN pg_class c "
    "ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0",
}
"""What no inspector names: tables without a rowid, and how long values are stored."""


def described(url: str, make: Callable[[sa.Engine], object]) -> dict[str, Any]:
    """All that there is in a database that ``make`` has made; it is empty again afterwards."""
    engine = connect(url)
    make(engine)
    found = sa.inspect(engine)
    names, views = found.get_table_names(), found.get_view_names()
    parts = ("columns", "pk_constraint", "indexes", "foreign_keys", "unique_constraints")
    said = {name: {part: getattr(found, f"get_{part}")(name) for part in parts} for name in names}
    for table in said.values():
        columns = [{**column, "type": repr(column["type"])} for column in table["columns"]]
        table["columns"] = sorted(columns, key=lambda column: column["name"])  # one that was added later is the last
        table["indexes"] = sorted(table["indexes"], key=lambda index: index["name"])
    said["views"] = {view: " ".join(found.get_view_definition(view).split()) for view in views}
    with engine.begin() as connection:
        said["more"] = sorted(map(tuple, connection.exec_driver_sql(MORE[engine.dialect.name])))
        for view in views:
            connection.exec_driver_sql(f"DROP VIEW {view}")
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
    engine.dispose()
    return said


def migrate(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        upgrade(connection)


@kinds.empty_sql
def test_a_new_database_is_as_the_migrations_make_it(empty_url: str) -> None:
    migrated = described(empty_url, migrate)
    new = described(empty_url, lambda engine: open_database(empty_url).dispose())
    for name in new.keys() | migrated.keys():
        assert new.get(name) == migrated.get(name), name


def test_a_new_database_goes_through_no_migration(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extraction_assets.database.migrations.upgrade.upgrade", None)
    engine = open_database(empty_url)
    with engine.connect() as connection:
        assert revision_of(connection) == known_revisions()[0]
    engine.dispose()


@kinds.empty_sql
def test_a_database_with_a_table_of_a_name_of_ours_is_refused_and_stays(empty_url: str) -> None:
    engine = connect(empty_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE samples (mine INTEGER)")
    with pytest.raises(DatabaseError, match=r'"?samples"? already exists'):
        open_database(empty_url)
    assert sa.inspect(engine).get_table_names() == ["samples"]
    engine.dispose()
