"""The results database as a Dagster resource."""

import contextlib
from collections.abc import Iterator

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

    @contextlib.contextmanager
    def open(self) -> Iterator[sa.Engine]:
        """An engine, the schema brought up to date; its connections are closed at the end of the block."""
        engine = open_database(self.url or database_url())
        try:
            yield engine
        finally:
            engine.dispose()
