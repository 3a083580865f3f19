"""What a project declares of the extraction that is exported: its checkpoints and its stored files."""

from typing import NamedTuple

from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore


class Declared(NamedTuple):
    """The settings of an extraction, and where its files are."""

    settings: ExtractionSettings
    store: ChunkStore
