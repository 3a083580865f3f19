"""Loads the defs folder and the shared resources; nothing else."""

from pathlib import Path

import dagster as dg

from extraction_assets import default_resources


@dg.definitions
def defs() -> dg.Definitions:
    """Every extraction under ``extraction_assets/defs``."""
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # A run has a process of its own already, so its steps need none.
    shared = dg.Definitions(resources=default_resources(), executor=dg.in_process_executor)
    return dg.Definitions.merge(loaded, shared)
