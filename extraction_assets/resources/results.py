"""The results database as a Dagster resource."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from extraction_assets.database.backends import backend_of_url, parse_url
from extraction_assets.database.connect import opened_database
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.read_only import read_database
from extraction_assets.database.url_text import URL_VARIABLE, holds_password, shown_url
from extraction_assets.host.locations import database_url, full_database_url


class ResultsResource(dg.ConfigurableResource):
    """The database that merged examples are stored in."""

    url: str | None = Field(
        default=None,
        description="`sqlite:///path`, `postgresql://user:password@host/name`, `parquet:////folder` or "
        "`parquet+s3://bucket/folder`; `parquet` alone is a folder in `EXTRACTION_STORE`; by default "
        "`EXTRACTION_DATABASE_URL`, or `results.sqlite` in `EXTRACTION_HOME`. Dagster stores and shows configuration: "
        "where the URL holds a password, name an environment variable that holds the URL, `url: {env: NAME}` or "
        '`dg.EnvVar("NAME")`.',
    )

    def exists(self) -> bool:
        """False only for a SQLite file that nothing was merged into yet; opening would make it.

        Raises DatabaseError if the URL is invalid.
        """
        file = self._file()
        return file is None or file.is_file()

    def folder(self) -> Path | None:
        """Where a SQLite file of results is or will be; None for a database on a server.

        Raises DatabaseError if the URL is invalid.
        """
        file = self._file()
        return file.parent if file else None

    def shown_url(self) -> str:
        """The database's URL without its password. Raises DatabaseError if the URL is invalid."""
        return shown_url(self.parsed_url())

    @contextlib.contextmanager
    def open(self) -> Iterator[sa.Engine]:
        """An engine, the schema brought up to date; its connections are closed at the end of the block.

        Raises DatabaseError if the database cannot be used, at once or later in the block.
        """
        with opened_database(self._url(), self._stated_in()) as engine:
            yield engine

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Engine]:
        """An engine that only reads, on a full disk too; where there is no database yet, none is made.

        Raises DatabaseError if the database cannot be used, at once or later in the block.
        """
        with read_database(self._url(), self._stated_in()) as engine:
            yield engine

    def parsed_url(self) -> sa.URL:
        """The database's URL with its driver. Raises DatabaseError if it is invalid."""
        return parse_url(database_url() if self.url is None else full_database_url(self.url), self._stated_in())

    def _file(self) -> Path | None:
        url = self.parsed_url()
        return backend_of_url(url).file(url)

    def _stated_in(self) -> str:
        """Where the URL stands, for messages: the field, and the environment variable that has its value."""
        if self.url is None:
            return URL_VARIABLE
        variable = next((name for name, value in sorted(os.environ.items()) if value and value == self.url), None)
        return "the url of the resource 'results'" + (f", from {variable}," if variable else "")

    def _url(self) -> str:
        if self.url is None:
            return database_url()
        if self.url not in os.environ.values() and holds_password(self.url):
            raise DatabaseError(
                "the results resource's url holds a password, which Dagster stores and shows with every run: change "
                "the password, and name an environment variable that holds the URL, url: {env: NAME}"
            )
        return full_database_url(self.url)
