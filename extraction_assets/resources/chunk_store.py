"""The chunk store as a Dagster resource."""

import dagster as dg
from pydantic import Field

from extraction_assets.host.locations import extraction_home, full_path
from extraction_assets.stores.chunk_store import ChunkStore


class ChunkStoreResource(dg.ConfigurableResource):
    """Files of corpora and chunks under one root folder."""

    root: str | None = Field(
        default=None, description="Root folder of corpora and chunk files; by default `EXTRACTION_HOME`."
    )

    def open(self) -> ChunkStore:
        """The store at the configured root."""
        return ChunkStore(full_path(self.root, "the chunk store's root") if self.root else extraction_home())
