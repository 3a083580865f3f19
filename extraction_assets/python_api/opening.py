"""Opening a results database for a notebook or a program."""

from pathlib import Path
from typing import NamedTuple

from extraction_assets.database.backends import backend_of_url, parse_url
from extraction_assets.database.errors import DatabaseError
from extraction_assets.host.locations import chunk_store_place, database_url
from extraction_assets.python_api.results import Results
from extraction_assets.stores.opening import open_store_to_read


class _Place(NamedTuple):
    """Where results are."""

    url: str
    file: Path | None
    """Of SQLite, or the one that marks a folder of Parquet."""
    is_beside_chunks: bool


def open_results(url_or_path: "str | Path | None" = None, *, store: "str | Path | None" = None) -> Results:
    """The merged results of a database, to read; a context manager, which closes its connections.

    ``url_or_path`` is a SQLite file or a database's URL, ``parquet:////folder`` too; by default the database of this
    installation, as the command line finds it: ``EXTRACTION_DATABASE_URL``, or ``results.sqlite`` in
    ``EXTRACTION_HOME``. ``store`` is the folder of the chunk files, which only ``activations`` reads: by default the
    folder of a SQLite file, else that of this installation, ``EXTRACTION_STORE`` or ``EXTRACTION_HOME``. It may be a
    URL of object storage, such as ``s3://bucket/folder``: files are copied to this machine's temporary folder as they
    are needed, and removed on ``close``.

    A database that an earlier version of this package wrote is migrated first, as every command does; nothing else is
    written.

    Raises DatabaseError if the database cannot be used, or if a file that was named is not there or empty;
    StorageError if the storage cannot.
    """
    place = _place(url_or_path)
    if url_or_path is not None and place.file is not None and not (place.file.is_file() and place.file.stat().st_size):
        raise DatabaseError(
            f"there is no results database {place.file}: name the results.sqlite of an extraction, or a URL"
        )
    if store is not None:
        return Results(place.url, open_store_to_read(store))
    beside = (
        place.file.parent if url_or_path is not None and place.file is not None and place.is_beside_chunks else None
    )
    return Results(place.url, open_store_to_read(beside or chunk_store_place()))


def _place(given: "str | Path | None") -> _Place:
    if given is None:
        url = database_url()
    elif isinstance(given, Path) or "://" not in given:
        url = f"sqlite:///{Path(given).expanduser().absolute()}"
    else:
        url = given
    parsed = parse_url(url, "the results database")
    backend = backend_of_url(parsed)
    return _Place(url, backend.file(parsed), backend.is_beside_chunks)
