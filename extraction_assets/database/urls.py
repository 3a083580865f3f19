"""URLs of databases: what people write, what the driver wants, and what may be shown."""

from pathlib import Path

import sqlalchemy as sa

URL_VARIABLE = "EXTRACTION_DATABASE_URL"
"""Environment variable with the URL of the results, where no resource has one."""

POSTGRES_DRIVER = "postgresql+psycopg2"
"""The one driver, which dagster-postgres needs too. SQLAlchemy 2.1 takes another one for plain ``postgresql://``."""

CONNECT_SECONDS = 10
"""How long to wait for a PostgreSQL server that does not answer."""


class DatabaseError(ValueError):
    """A database cannot be used; the message is one sentence that holds no password."""


class DatabaseUnavailableError(DatabaseError):
    """A database that may be back before long: it restarts, is busy, or the network failed."""


def parse_url(text: str, variable: str) -> sa.URL:
    """The parts of a SQLite or PostgreSQL URL, with its driver. ``variable`` is where it stands.

    Raises DatabaseError, which never repeats the text: what is wrong with it may be its password.
    """
    url = _split(text)
    if url is None:
        raise DatabaseError(
            f"{variable} is not a database's URL, sqlite:///path or postgresql://user:password@host:port/name; special "
            "characters of a password are written as %40 for @, %2F for /, and so on"
        )
    backend = url.get_backend_name()
    if backend == "sqlite":
        return url
    if backend not in ("postgresql", "postgres"):
        raise DatabaseError(f"{variable} begins with {backend}: but must name a SQLite or a PostgreSQL database")
    if url.drivername not in ("postgresql", "postgres", POSTGRES_DRIVER):
        raise DatabaseError(f"{variable} begins with {url.drivername}: but the driver is psycopg2: write postgresql://")
    return url.set(drivername=POSTGRES_DRIVER)


def _split(text: str) -> sa.URL | None:
    try:
        url = sa.make_url(text)
    except (ValueError, sa.exc.ArgumentError):
        return None
    # A bare @ in a password ends it early, and its rest would be shown as part of the host or of the name.
    misread = url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}"
    return None if misread else url


def sqlite_file(url: sa.URL) -> Path | None:
    """The file of a SQLite URL; None for a server's database and for one in memory."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def shown_url(url: sa.URL) -> str:
    """A URL without its password, be it in the usual place or among the parameters."""
    shown = url.set(query={})
    if shown.get_backend_name() == "postgresql":
        shown = shown.set(drivername="postgresql")
    return shown.render_as_string(hide_password=True)


def holds_password(text: str) -> bool:
    """Whether a URL has a password in it."""
    url = _split(text)
    if url is None:
        return "@" in text  # perhaps: the password may be what is wrong with it
    return bool(url.password) or any("password" in name for name in url.query)


def make_engine(url: sa.URL, **options: object) -> sa.Engine:
    """``create_engine``; a driver that is not installed is a DatabaseError."""
    if url.get_backend_name() == "postgresql":
        # The URL's own parameters win.
        connect = {"connect_timeout": CONNECT_SECONDS, "application_name": "extraction_assets", **url.query}
        options = {"connect_args": connect, **options}
    try:
        return sa.create_engine(url, **options)
    except ModuleNotFoundError as error:
        raise missing_package(error) from None


def missing_package(error: ModuleNotFoundError) -> DatabaseError:
    """What to say where a package of the extra ``postgres`` is not installed."""
    return DatabaseError(f"PostgreSQL needs the Python package {error.name}: pip install 'extraction-assets[postgres]'")


def error_sentence(database: str, url: sa.URL, said: str) -> str:
    """One sentence for what a driver said, on one line and without the password."""
    reason = " ".join(said.split())
    if url.password:
        reason = reason.replace(str(url.password), "***")
    return f"{database} {shown_url(url)} cannot be used: {reason}"
