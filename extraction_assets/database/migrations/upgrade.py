"""Alembic, which runs the migrations; it takes a tenth of a second to load, so who reads a current schema does not."""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from extraction_assets.database.migrations import revisions


def upgrade(connection: sa.Connection, revision: str = "head") -> None:
    """Run the migrations up to ``revision`` that are missing, inside the open transaction."""
    command.upgrade(_config(connection), revision)


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
