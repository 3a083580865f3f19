"""What a module of Dagster definitions declares, as the commands need it."""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import dagster as dg

    from extraction_assets.settings import ExtractionSettings


def import_definitions(module: str) -> "dg.Definitions":
    """The definitions of a module; touches nothing on disk."""
    _quieten()
    see_working_directory()
    with _little_garbage():
        import dagster as dg

        loaded = import_module(module)
        for value in vars(loaded).values():
            # @dg.definitions gives an object of a private type that is called for its definitions
            made = value() if type(value).__name__ == "LazyDefinitions" else value
            if isinstance(made, dg.Definitions):
                return made
    raise click.ClickException(f"module {module} holds no Dagster definitions")


def see_working_directory() -> None:
    """Let modules of the working directory be imported, as ``dagster -m`` and ``python -m`` do."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def declared_extractions(definitions: "dg.Definitions") -> "dict[str, ExtractionSettings]":
    """The extractions among the definitions, by name, from the settings in the corpus assets' metadata."""
    from extraction_assets.execution.keys import SETTINGS_METADATA
    from extraction_assets.settings import ExtractionSettings

    found = {}
    for spec in definitions.resolve_all_asset_specs():
        value = spec.metadata.get(SETTINGS_METADATA)
        if value is not None:
            settings = ExtractionSettings.model_validate(getattr(value, "data", value))
            found[settings.name] = settings
    return dict(sorted(found.items()))


@contextlib.contextmanager
def _little_garbage() -> Iterator[None]:
    """Python looks for garbage less often in the block, which makes many objects that stay: a fifth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _quieten() -> None:
    """Keep what Dagster and transformers print out of a terminal that shows a progress bar."""
    logging.getLogger("dagster").setLevel(logging.ERROR)
    logging.getLogger("extraction_assets.defs_yaml.folder").setLevel(logging.CRITICAL)  # the commands say it themselves
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
