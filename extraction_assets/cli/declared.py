"""What a module of Dagster definitions declares, as the commands need it."""

import datetime as dt
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extraction_assets.home import prepare_dagster_home
from extraction_assets.terminal import echo

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import dagster as dg
    import sqlalchemy as sa

    from extraction_assets.settings import ExtractionSettings


def load_definitions(module: str) -> "dg.Definitions":
    """The definitions of a module, on a prepared Dagster home."""
    prepare_dagster_home()
    return import_definitions(module)


def import_definitions(module: str) -> "dg.Definitions":
    """The definitions of a module; touches nothing on disk."""
    _quieten()
    see_working_directory()
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
    """The extractions among the definitions, by name: their settings stand in the corpus assets' metadata."""
    from extraction_assets.assets.keys import SETTINGS_METADATA
    from extraction_assets.settings import ExtractionSettings

    found = {}
    for spec in definitions.resolve_all_asset_specs():
        value = spec.metadata.get(SETTINGS_METADATA)
        if value is not None:
            settings = ExtractionSettings.model_validate(getattr(value, "data", value))
            found[settings.name] = settings
    return dict(sorted(found.items()))


def find_extraction(definitions: "dg.Definitions", name: str) -> "ExtractionSettings":
    extractions = declared_extractions(definitions)
    if name not in extractions:
        raise click.ClickException(f"no extraction {name!r}; declared are: {', '.join(extractions) or 'none'}")
    return extractions[name]


def open_results(definitions: "dg.Definitions") -> "AbstractContextManager[sa.Engine]":
    """The results database that the definitions' own resource names."""
    opened: AbstractContextManager[sa.Engine] = (definitions.resources or {})["results"].open()
    return opened


def merged_times(definitions: "dg.Definitions") -> dict[tuple[str, str], dt.datetime]:
    """When each (extraction, SAE) was merged. Makes no database where there is none, and an unreachable one is said on
    standard error: what is declared can be listed all the same."""
    from extraction_assets.database.queries import merge_times

    results = (definitions.resources or {})["results"]
    try:
        if not results.exists():
            return {}
        with results.open() as engine, engine.connect() as connection:
            return merge_times(connection)
    except Exception as error:
        echo(f"results database: {str(error).splitlines()[0]}", err=True)
        return {}


def _quieten() -> None:
    """Keep what Dagster and transformers print out of a terminal that shows a progress bar."""
    logging.getLogger("dagster").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
