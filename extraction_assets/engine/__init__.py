"""The engine: pure PyTorch and NumPy, independent of Dagster and storage.

The names here are loaded on first use, so that importing one module of the engine loads no other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extraction_assets.engine.chunk_pass.batching import (
        batch_process_features,
        calculate_optimal_vectorization_batch,
    )
    from extraction_assets.engine.saes.sae import load_sae
    from extraction_assets.engine.selection.merge import DeferredTopKHeap
    from extraction_assets.engine.selection.select import vectorized_max_activations, vectorized_top_k_positions

__all__ = [
    "DeferredTopKHeap",
    "batch_process_features",
    "calculate_optimal_vectorization_batch",
    "load_sae",
    "vectorized_max_activations",
    "vectorized_top_k_positions",
]

_MODULES = {
    "DeferredTopKHeap": "selection.merge",
    "batch_process_features": "chunk_pass.batching",
    "calculate_optimal_vectorization_batch": "chunk_pass.batching",
    "load_sae": "saes.sae",
    "vectorized_max_activations": "selection.select",
    "vectorized_top_k_positions": "selection.select",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
