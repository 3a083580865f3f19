"""Where things live: EXTRACTION_HOME for files, of which EXTRACTION_STORE may hold corpora and chunks,
EXTRACTION_DATABASE_URL for results, DAGSTER_HOME for Dagster."""

import os
import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from extraction_assets.host.project_home import default_home

BROWSER_URL_VARIABLE = "EXTRACTION_BROWSER_URL"
BROWSER_HOST, BROWSER_PORT = "127.0.0.1", 3080
"""Where ``browse`` listens if nothing else is said."""

_RELATIVE_DATABASE = re.compile(r"(sqlite|parquet)(\+\w+)?:///(?!/|:memory:|file:|$)")


class HistoryUnavailableError(ValueError):
    """Dagster's history cannot be read, because its disk is full."""


def extraction_home() -> Path:
    """``EXTRACTION_HOME``; by default ``.extraction`` in the Dagster project whose extractions this process loads, see
    ``project_home``. Never depends on the working directory."""
    configured = os.environ.get("EXTRACTION_HOME")
    if configured:
        return full_path(configured, "EXTRACTION_HOME")
    return default_home()


def chunk_store_place(configured: str | None = None) -> "str | Path":
    """Where corpora and chunk files are: ``configured``, else ``EXTRACTION_STORE``, a folder or a URL such as
    ``s3://bucket/folder``; by default the extraction home. ValueError for a folder that depends on the working
    directory."""
    what = "the chunk store's root" if configured else "EXTRACTION_STORE"
    place = configured or os.environ.get("EXTRACTION_STORE")
    if place is None or not place:
        return extraction_home()
    return place if "://" in place else full_path(place, what)


_PARQUET, _IN_STORE = "parquet", ".results"


def database_url() -> str:
    """``EXTRACTION_DATABASE_URL``, see ``full_database_url``; by default the SQLite file ``results.sqlite`` in the
    extraction home."""
    configured = os.environ.get("EXTRACTION_DATABASE_URL")
    if configured and _RELATIVE_DATABASE.match(configured):
        raise ValueError(
            f"EXTRACTION_DATABASE_URL is {configured!r}, another file in every working directory: give its full path, "
            f"{configured.partition(':')[0]}:////… with four slashes"
        )
    return full_database_url(configured) if configured else f"sqlite:///{extraction_home() / 'results.sqlite'}"


def full_database_url(configured: str) -> str:
    """The URL of a results database as it was given; of ``parquet`` alone that of a folder in ``chunk_store_place``, be
    that a folder or a URL."""
    if configured != _PARQUET:
        return configured
    place = str(chunk_store_place()).removeprefix("file://").rstrip("/")
    return f"{_PARQUET}+{place}/{_IN_STORE}" if "://" in place else f"{_PARQUET}:///{place}/{_IN_STORE}"


def dagster_home() -> Path:
    """``DAGSTER_HOME``; by default ``dagster`` in the extraction home."""
    configured = os.environ.get("DAGSTER_HOME")
    return full_path(configured, "DAGSTER_HOME") if configured else extraction_home() / "dagster"


def full_path(configured: str, what: str) -> Path:
    """A configured folder; ValueError if it depends on the working directory, which differs between a terminal, a
    daemon and a code server."""
    path = Path(configured).expanduser()
    if not path.is_absolute():
        raise ValueError(f"{what} is {configured!r}, another folder in every working directory: give its full path")
    return path


def browser_url() -> str:
    """``EXTRACTION_BROWSER_URL``, where links to features lead, without a slash at its end; by default where ``browse``
    listens. Raises ValueError if it is not an address of a web page."""
    configured = os.environ.get(BROWSER_URL_VARIABLE) or f"http://{BROWSER_HOST}:{BROWSER_PORT}"
    parts = urlsplit(configured)
    plain = configured.isascii() and configured.isprintable() and " " not in configured
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not plain:
        raise ValueError(
            f"{BROWSER_URL_VARIABLE} is {configured!r}, not an address such as http://{BROWSER_HOST}:{BROWSER_PORT}"
        )
    return configured.rstrip("/")


def gpu_lease_folder() -> Path:
    """Where every user of this host locks the GPUs that runs compute on, one file a GPU."""
    return Path(tempfile.gettempdir()) / "extraction-assets-gpus"
