"""Find the text that makes each feature of a sparse autoencoder fire most, as Dagster assets."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

    from extraction_assets.component import FeatureExtraction
    from extraction_assets.python_api.extracting import extract
    from extraction_assets.python_api.opening import open_results

__all__ = ["FeatureExtraction", "default_resources", "extract", "load_defs_folder", "open_results"]

_LAZY = {
    "FeatureExtraction": "extraction_assets.component",
    "extract": "extraction_assets.python_api.extracting",
    "open_results": "extraction_assets.python_api.opening",
}
"""Names that are loaded on first use, so that `import extraction_assets.engine` needs no Dagster, and their modules."""


def default_resources() -> dict[str, Any]:
    """The resources that extractions use, by key, with their defaults: bind them once in a Dagster project.

    Unless ``EXTRACTION_HOME`` is set, their files lie in ``.extraction`` of the calling module's project.
    """
    from extraction_assets.host.project_home import use_project_of_caller
    from extraction_assets.resources import ChunkStoreResource, GpuResource, ResultsResource

    use_project_of_caller(2)
    return {"gpu": GpuResource(), "chunk_store": ChunkStoreResource(), "results": ResultsResource()}


def load_defs_folder(path_within_project: "Path") -> "dg.Definitions":
    """As ``dg.load_from_defs_folder``, but a YAML file that does not load takes no other extraction with it.

    One asset, ``NAME/not_loaded``, takes its place; its description says why.
    """
    from extraction_assets.defs_yaml import folder as defs_folder

    return defs_folder.load_defs_folder(path_within_project)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
