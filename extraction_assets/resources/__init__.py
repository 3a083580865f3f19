"""The outside systems that assets use, one a file: the GPU, the chunk store, the results database.

The names here are loaded on first use, so that what chooses a device needs no Dagster.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extraction_assets.resources.chunk_store import ChunkStoreResource
    from extraction_assets.resources.gpu import GpuResource
    from extraction_assets.resources.results import ResultsResource

__all__ = ["ChunkStoreResource", "GpuResource", "ResultsResource"]

_MODULES = {"ChunkStoreResource": "chunk_store", "GpuResource": "gpu", "ResultsResource": "results"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
