"""The results database as a Dagster resource."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from extraction_assets.database.connect import open_database
from extraction_assets.home import database_url


class ResultsResource(dg.ConfigurableResource):
    """The database that merged examples are stored in."""

    url: str | None = Field(
        default=None,
        description="SQLAlchemy URL; by default `EXTRACTION_DATABASE_URL`, or `results.sqlite` in `EXTRACTION_HOME`.",
    )

    def exists(self) -> bool:
        """False only for a SQLite file that nothing was merged into yet; opening would make it."""
        url = sa.make_url(self.url or database_url())
        return url.get_backend_name() != "sqlite" or Path(str(url.database)).is_file()

    @contextlib.contextmanager
    def open(self) -> Iterator[sa.Engine]:
        """An engine, the schema brought up to date; its connections are closed at the end of the block."""
        engine = open_database(self.url or database_url())
        try:
            yield engine
        finally:
            engine.dispose()
