"""The chunk store as a Dagster resource."""

import dagster as dg
from pydantic import Field

from extraction_assets.host.locations import chunk_store_place, extraction_home
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.opening import PATIENCE_SECONDS, open_store


class ChunkStoreResource(dg.ConfigurableResource):
    """Files of corpora and chunks under one root."""

    root: str | None = Field(
        default=None,
        description="Root of corpora and chunk files: a folder, or the URL of object storage such as "
        "`s3://bucket/folder`, without credentials; by default `EXTRACTION_STORE`, else `EXTRACTION_HOME`.",
    )
    patience_seconds: float = Field(
        default=PATIENCE_SECONDS,
        ge=0,
        description="How long object storage that does not answer is asked again, before the run fails.",
    )

    def open(self) -> ChunkStore:
        """The store at the configured root. Raises ValueError, StorageError if there can be none."""
        return open_store(chunk_store_place(self.root), extraction_home(), self.patience_seconds)
