"""The outside systems that assets use, one a file: the GPU, the chunk store, the results database."""

from extraction_assets.resources.chunk_store import ChunkStoreResource
from extraction_assets.resources.gpu import GpuResource
from extraction_assets.resources.results import ResultsResource

__all__ = ["ChunkStoreResource", "GpuResource", "ResultsResource"]
