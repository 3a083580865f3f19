"""Loads the defs folder and the shared resources; nothing else."""

from pathlib import Path

import dagster as dg

from extraction_assets import default_resources, load_defs_folder


@dg.definitions
def defs() -> dg.Definitions:
    """Every extraction under ``extraction_assets/defs``; one whose YAML file does not load is named and left out."""
    loaded = load_defs_folder(Path(__file__).parent)
    # A run has a process of its own already, so its steps need none.
    shared = dg.Definitions(resources=default_resources(), executor=dg.in_process_executor)
    return dg.Definitions.merge(loaded, shared)
