"""Runs migrations on the connection that ``open_database`` hands over, inside its transaction."""

from alembic import context

from extraction_assets.database.examples_postgres import is_not_one_load
from extraction_assets.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_object=is_not_one_load,
    render_as_batch=True,
)
context.run_migrations()
