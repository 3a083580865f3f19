"""The schema of a new database: today's tables and views at once. Migrations are for databases that are older."""

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.migrations.revisions import versions
from extraction_assets.database.tables import metadata
from extraction_assets.database.views import create_views


def is_new(connection: sa.Connection) -> bool:
    """Whether a database holds none of the tables yet."""
    return not set(metadata.tables) & set(sa.inspect(connection).get_table_names())


def create_schema(connection: sa.Connection) -> None:
    """Make all tables and views in a database that is new, inside the open transaction."""
    backend_of(connection).create_tables(connection, [*metadata.sorted_tables, versions])
    create_views(connection)
