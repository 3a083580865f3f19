"""The SELECTs that a page ran, each as one statement with its values, which ``sqlite3`` and ``psql`` run as it is."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import event

ABOUT = "about"
"""Execution option of a query that says what it finds: ``query.execution_options(about="the features")``."""


class Statement(NamedTuple):
    """A statement as "view SQL" shows it."""

    about: str
    sql: str


class Statements:
    """The statements that ran on a connection, in their order, each once."""

    def __init__(self) -> None:
        self._ran: list[tuple[str, sa.ClauseElement]] = []

    def __call__(self, _connection: Any, clause: Any, many: Any, values: Any, options: Any) -> None:
        """SQLAlchemy's hook ``before_execute``."""
        if isinstance(clause, sa.sql.Select | sa.sql.CompoundSelect | sa.sql.expression.TextClause):
            self._ran.append((options.get(ABOUT, ""), clause.params(**values) if values else clause))

    def shown(self, dialect: sa.Dialect) -> list[Statement]:
        """The statements as text, as ``Backend.written_dialect`` writes them."""
        found = [Statement(about, f"{_text(clause, dialect)};") for about, clause in self._ran]
        return list(dict.fromkeys(found))


@contextlib.contextmanager
def collected(connection: sa.Connection) -> Iterator[Statements]:
    """Notes the statements that the connection runs in the block."""
    statements = Statements()
    event.listen(connection, "before_execute", statements)
    try:
        yield statements
    finally:
        event.remove(connection, "before_execute", statements)


def _text(clause: sa.ClauseElement, dialect: sa.Dialect) -> str:
    return str(clause.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
