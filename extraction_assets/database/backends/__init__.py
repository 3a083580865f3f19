"""The databases that results can be stored in, one folder each: to add one, write its folder and name it here."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from extraction_assets.database.backends.parquet import ParquetBackend
from extraction_assets.database.backends.postgresql import PostgresqlBackend
from extraction_assets.database.backends.protocol import Backend, ColumnKind
from extraction_assets.database.backends.sqlite import SqliteBackend
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.url_text import split_url

BACKENDS: tuple[Backend, ...] = (SqliteBackend(), PostgresqlBackend(), ParquetBackend())
"""The one list of databases."""

EMPTY_DATABASE_URL = "sqlite://"
"""A database in memory, which stands for one that does not exist yet."""

PORTABLE_TYPES: dict[ColumnKind, TypeEngine[Any]] = {
    "row_id": sa.BigInteger(),
    "integers": sa.JSON(),
    "doubles": sa.JSON(),
    "texts": sa.JSON(),
    "json": sa.JSON(none_as_null=True),
}
"""Column types of a backend that does not override them in ``column_types``."""


def backend_of(bind: sa.Engine | sa.Connection) -> Backend:
    """The backend of an open database."""
    return next(backend for backend in BACKENDS if backend.name == bind.dialect.name)


def backend_of_url(url: sa.URL) -> Backend:
    """The backend of a URL that ``parse_url`` gave."""
    return next(backend for backend in BACKENDS if url.get_backend_name() in backend.url_names)


def parse_url(text: str, variable: str) -> sa.URL:
    """The parts of a database's URL, with its driver. ``variable`` is where it stands.

    Raises DatabaseError, which never repeats the text: what is wrong with it may be its password.
    """
    url = split_url(text)
    if url is None:
        raise DatabaseError(
            f"{variable} is not a database's URL, {' or '.join(backend.example_url for backend in BACKENDS)}; special "
            "characters of a password are written as %40 for @, %2F for /, and so on"
        )
    name = url.get_backend_name()
    if not any(name in backend.url_names for backend in BACKENDS):
        *titles, last = (backend.title for backend in BACKENDS)
        raise DatabaseError(f"{variable} begins with {name}: but must name a {', '.join(titles)} or {last} database")
    return backend_of_url(url).with_driver(url, variable)


def column_type(kind: ColumnKind) -> TypeEngine[Any]:
    """The type of a kind of column, which each database chooses."""
    chosen = PORTABLE_TYPES[kind]
    for backend in BACKENDS:
        if kind in backend.column_types:
            chosen = chosen.with_variant(backend.column_types[kind], backend.name)
    return chosen
