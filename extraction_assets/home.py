"""Where things live: EXTRACTION_HOME for files, EXTRACTION_DATABASE_URL for results, DAGSTER_HOME for Dagster."""

import os
import shutil
from pathlib import Path

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


def prepare_dagster_home() -> Path:
    """``DAGSTER_HOME``, set to ``dagster`` in the extraction home unless it is set, and made with its dagster.yaml."""
    configured = os.environ.get("DAGSTER_HOME")
    home = Path(configured).expanduser().absolute() if configured else extraction_home() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["DAGSTER_HOME"] = str(home)
    if not (home / "dagster.yaml").is_file():
        shutil.copyfile(_PACKAGE / "deploy" / "local" / "dagster.yaml", home / "dagster.yaml")
    return home
