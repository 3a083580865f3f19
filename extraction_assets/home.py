"""Where things live: EXTRACTION_HOME for files, EXTRACTION_DATABASE_URL for results, DAGSTER_HOME for Dagster."""

import os
from pathlib import Path

from extraction_assets.dagster_home import check_storage, make_dagster_home

_PACKAGE = Path(__file__).parent


def extraction_home() -> Path:
    """``EXTRACTION_HOME``; by default ``.extraction`` in the checkout that this package runs from, or in the user's
    home where it is installed without one. Never depends on the working directory."""
    configured = os.environ.get("EXTRACTION_HOME")
    if configured:
        return Path(configured).expanduser().absolute()
    checkout = _PACKAGE.parent
    return (checkout if (checkout / "workspace.yaml").is_file() else Path.home()) / ".extraction"


def database_url() -> str:
    """``EXTRACTION_DATABASE_URL``; by default the SQLite file ``results.sqlite`` in the extraction home."""
    return os.environ.get("EXTRACTION_DATABASE_URL") or f"sqlite:///{extraction_home() / 'results.sqlite'}"


def dagster_home() -> Path:
    """``DAGSTER_HOME``; by default the folder ``dagster`` in the extraction home."""
    configured = os.environ.get("DAGSTER_HOME")
    return Path(configured).expanduser().absolute() if configured else extraction_home() / "dagster"


def prepare_dagster_home() -> Path:
    """The Dagster home, made if it is not there, and named to Dagster by ``DAGSTER_HOME``.

    Raises DatabaseError where it keeps its history in a PostgreSQL database that cannot be reached.
    """
    home = dagster_home()
    make_dagster_home(home)
    check_storage(home)
    os.environ["DAGSTER_HOME"] = str(home)
    return home
