"""Runs migrations on the connection that ``open_database`` hands over, inside its transaction."""

from alembic import context

from extraction_assets.database.backends import backend_of
from extraction_assets.database.tables import metadata

connection = context.config.attributes["connection"]


def belongs_to_the_schema(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:
    """For ``include_object``: tables in which a backend stores parts of examples are not compared."""
    return kind != "table" or name is None or not backend_of(connection).is_storage_detail(name)


context.configure(
    connection=connection,
    target_metadata=metadata,
    include_object=belongs_to_the_schema,
    render_as_batch=True,
)
context.run_migrations()
