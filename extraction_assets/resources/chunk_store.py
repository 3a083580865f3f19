"""The chunk store as a Dagster resource."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from extraction_assets.home import extraction_home
from extraction_assets.stores.chunk_store import ChunkStore


class ChunkStoreResource(dg.ConfigurableResource):
    """Files of corpora and chunks under one root folder."""

    root: str | None = Field(
        default=None, description="Root folder of corpora and chunk files; by default `EXTRACTION_HOME`."
    )

    def open(self) -> ChunkStore:
        """The store at the configured root."""
        return ChunkStore(Path(self.root).expanduser().absolute() if self.root else extraction_home())
