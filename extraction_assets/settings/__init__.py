"""The validated settings of an extraction: the ground floor, which loads neither torch nor Dagster.

The docstrings under the fields are what the UI and the documentation show.
"""

from extraction_assets.settings.checkpoint_reference import CheckpointReference, SaeReference
from extraction_assets.settings.chunk import Chunk
from extraction_assets.settings.corpus import CorpusSettings
from extraction_assets.settings.extraction import MOST_CHUNKS, ExtractionSettings, KeepSettings
from extraction_assets.settings.language_model import LanguageModelSettings
from extraction_assets.settings.paths_and_hub_ids import STANDARD_LIBRARY, is_hub_id, is_url
from extraction_assets.settings.sae import ResolvedSae, SaeSettings
from extraction_assets.settings.validation import Settings, check_name

__all__ = [
    "MOST_CHUNKS",
    "STANDARD_LIBRARY",
    "CheckpointReference",
    "Chunk",
    "CorpusSettings",
    "ExtractionSettings",
    "KeepSettings",
    "LanguageModelSettings",
    "ResolvedSae",
    "SaeReference",
    "SaeSettings",
    "Settings",
    "check_name",
    "is_hub_id",
    "is_url",
]
