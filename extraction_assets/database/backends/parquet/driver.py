"""DuckDB as a driver that SQLAlchemy asks for its errors: those of PEP 249, one of which DuckDB lacks."""

from duckdb import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

paramstyle = "qmark"


class InterfaceError(Error):
    """DuckDB raises none."""


__all__ = [
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "paramstyle",
]
