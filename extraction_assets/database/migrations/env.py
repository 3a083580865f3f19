"""Runs migrations on the connection that ``open_database`` hands over, inside its transaction."""

from alembic import context

from extraction_assets.database.tables import metadata

connection = context.config.attributes["connection"]

context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
