"""The benchmark's extraction as Dagster loads it: without torch, which a daemon's code server and queue do not need."""

from typing import Any

import dagster as dg

from extraction_assets import default_resources
from extraction_assets.component import build_definitions
from extraction_assets.resources import GpuResource
from extraction_assets.settings import ExtractionSettings


def definitions(settings: ExtractionSettings, gpu: dict[str, Any]) -> dg.Definitions:
    """The benchmark's extraction with its resources."""
    bound = {**default_resources(), "gpu": GpuResource(**gpu)}
    shared = dg.Definitions(resources=bound, executor=dg.in_process_executor)
    return dg.Definitions.merge(build_definitions(settings), shared)
