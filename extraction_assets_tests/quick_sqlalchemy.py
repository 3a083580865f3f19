"""SQLAlchemy compiles each statement once a process, not once an engine: tests make thousands of engines, each with a
dialect of its own, which a compiled statement belongs to."""

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.util import LRUCache

_SHARED = (SQLiteDialect_pysqlite, PGDialect_psycopg2)
"""Those whose text depends on nothing but ``_options``."""

_STATEMENTS = 4000

_SIMPLE = (str, int, float, type(None), tuple, frozenset)

_compile = ClauseElement._compile_w_cache

_firsts: dict[object, tuple[sa.Dialect, LRUCache[Any, Any]]] = {}
"""By options, the dialect that statements are compiled for, and what was compiled."""


def _first(dialect: sa.Dialect) -> tuple[sa.Dialect, LRUCache[Any, Any]]:
    """The first dialect with the same options, once the dialect has seen its server and so has all of them."""
    found = dialect.__dict__.get("_first_of_its_kind")
    if found is None:
        found = _firsts.setdefault(_options(dialect), (dialect, LRUCache(_STATEMENTS)))
        dialect.__dict__["_first_of_its_kind"] = found
    return found


def _options(dialect: sa.Dialect) -> object:
    """What a dialect was made with and has read of its server."""
    simple = {name: value for name, value in vars(dialect).items() if isinstance(value, _SIMPLE)}
    return type(dialect), tuple(sorted((name, repr(value)) for name, value in simple.items()))


def _compile_once(statement: Any, dialect: sa.Dialect, *, compiled_cache: Any, **options: Any) -> Any:
    if compiled_cache is not None and type(dialect) in _SHARED:
        dialect, compiled_cache = _first(dialect)
    return _compile(statement, dialect, compiled_cache=compiled_cache, **options)


@functools.cache
def hurry() -> None:
    """All engines of this process share what they compile."""
    ClauseElement._compile_w_cache = _compile_once  # type: ignore[method-assign]
