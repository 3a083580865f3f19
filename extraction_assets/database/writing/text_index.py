"""The index over the text of samples: made and kept up outside the transaction of a merge, which it would slow down."""

from collections.abc import Callable

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.connect import write_transaction
from extraction_assets.database.queries.texts import text_is_indexed
from extraction_assets.database.tables import relations

_AT_ONCE = 20_000  # samples a transaction: other writers wait some seconds


def index_texts(engine: sa.Engine, progress: Callable[[int], object] = lambda count: None) -> None:
    """Bring the index up to date with all samples, in transactions of its own; ``progress`` gets the samples of each.

    Without the permission to use ``pg_trgm`` on PostgreSQL it does nothing: texts are then searched without an index.
    """
    text_index = backend_of(engine).text_index
    added = _AT_ONCE
    while added == _AT_ONCE:
        with write_transaction(engine) as connection:
            added = text_index.index_some(connection, _AT_ONCE)
        progress(added)


def index_texts_again(engine: sa.Engine) -> None:
    """Bring the index up to date if it had the texts of a result and has lost them: on SQLite it goes with a corpus."""
    with engine.connect() as connection:
        merged = connection.scalars(sa.select(relations.c.extraction_id)).all()
        complete = all(text_is_indexed(connection, one) for one in merged)
    if not complete:
        index_texts(engine)
