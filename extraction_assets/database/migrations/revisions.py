"""The schemas of the database: which one it has, and which this version knows. Loads no Alembic: reading needs none."""

from pathlib import Path

import sqlalchemy as sa

MIGRATIONS = Path(__file__).parent

versions = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Where Alembic notes the schema of a database."""


def known_revisions() -> list[str]:
    """The schemas that this version knows, newest first: ``0004_std_activation.py`` makes schema ``0004``."""
    files = (MIGRATIONS / "versions").glob("*.py")
    return sorted((path.stem.partition("_")[0] for path in files if path.stem != "__init__"), reverse=True)


def revision_of(connection: sa.Connection) -> str | None:
    """Revision of a database's schema; None if it has none."""
    if not sa.inspect(connection).has_table(versions.name):
        return None
    found = connection.scalars(sa.select(versions.c.version_num)).all()
    return " and ".join(sorted(found)) or None  # more than one: no version of this package writes that, none knows it


def mark_current(connection: sa.Connection) -> None:
    """Note that a new database has the newest schema, inside the open transaction."""
    connection.execute(sa.insert(versions).values(version_num=known_revisions()[0]))
