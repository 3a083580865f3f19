"""The results database as a Dagster resource."""

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

    def open(self) -> sa.Engine:
        """An engine, the schema brought up to date."""
        return open_database(self.url or database_url())
