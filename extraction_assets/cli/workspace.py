"""What a command works on: the extractions, the store, the results and the GPU resource of a module of definitions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import explain
from extraction_assets.cli.declared_extractions import declared_extractions, import_definitions
from extraction_assets.cli.terminal import echo
from extraction_assets.dagster_instance.home import prepare_dagster_home

if TYPE_CHECKING:
    import dagster as dg
    import sqlalchemy as sa

    from extraction_assets.database.queries.extractions import Merge
    from extraction_assets.defs_yaml.folder import NotLoaded
    from extraction_assets.resources import ChunkStoreResource, GpuResource, ResultsResource
    from extraction_assets.resources.resolve import Resource
    from extraction_assets.settings import ExtractionSettings
    from extraction_assets.stores.chunk_store import ChunkStore


class Workspace:
    """A module of definitions with everything that its own resources name, each resolved once.

    Loading it touches nothing on disk.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.definitions: dg.Definitions = import_definitions(module)

    @cached_property
    def extractions(self) -> "dict[str, ExtractionSettings]":
        """The extractions that loaded, by name."""
        return declared_extractions(self.definitions)

    @cached_property
    def not_loaded(self) -> "list[NotLoaded]":
        """The extractions that did not."""
        from extraction_assets.defs_yaml.folder import not_loaded

        return not_loaded(self.definitions)

    def find(self, name: str) -> "ExtractionSettings":
        """Settings of an extraction; Raises ClickException, which says what is wrong, if there are none."""
        if name in self.extractions:
            return self.extractions[name]
        raise self.no_extraction(name, self.names())

    def no_extraction(self, name: str, known: str) -> click.ClickException:
        """Why there is no extraction of this name; ``known`` says which there are."""
        for one in self.not_loaded:
            if one.name == name:
                return click.ClickException(f"{one.file} does not load: {one.why}")
        return click.ClickException(f"no extraction {name!r}; {known}")

    def names(self) -> str:
        """``declared are: a, b (c does not load)``."""
        others = "".join(f" ({one.name} does not load)" for one in self.not_loaded)
        return f"declared are: {', '.join(self.extractions) or 'none'}{others}"

    def warn_of_not_loaded(self, *without: str) -> None:
        """Names what did not load, on standard error, but not the extractions ``without``, whose error is to come."""
        for one in self.not_loaded:
            if one.name in without:
                continue
            echo(f"left out: {one.file} does not load: {one.why}", err=True)

    @cached_property
    def chunk_store(self) -> "ChunkStoreResource":
        """The chunk store's resource. Raises ResourceError if it cannot be known."""
        from extraction_assets.resources import ChunkStoreResource

        return self._resource(ChunkStoreResource)

    @cached_property
    def store(self) -> "ChunkStore":
        """The chunk store. ResourceError or ValueError if it cannot be known."""
        return self.chunk_store.open()

    @cached_property
    def results(self) -> "ResultsResource":
        """The results database. Raises ResourceError if it cannot be known."""
        from extraction_assets.resources import ResultsResource

        return self._resource(ResultsResource)

    @cached_property
    def gpu(self) -> "GpuResource":
        """The GPU resource. Raises ResourceError if it cannot be known."""
        from extraction_assets.resources import GpuResource

        return self._resource(GpuResource)

    @contextmanager
    def read_results(self) -> "Iterator[sa.Connection]":
        """A connection that reads the results, on a full disk too. Raises DatabaseError if that cannot be."""
        with self.results.read() as engine, engine.connect() as connection:
            yield connection

    def merges(self) -> "Mapping[tuple[str, str], Merge]":
        """The last merge of each (extraction, SAE). Reports an unreachable database on standard error, because what is
        declared can still be listed."""
        from extraction_assets.database.queries.extractions import merges

        try:
            with self.read_results() as connection:
                return merges(connection)
        except Exception as error:
            echo(f"results database: {explain(error)}", err=True)
            return {}

    def _resource(self, kind: "type[Resource]") -> "Resource":
        from extraction_assets.resources.resolve import resolve_resource

        return resolve_resource(self.definitions.resources, kind)


def open_workspace(module: str, *names: str) -> Workspace:
    """The workspace of a module, on a prepared Dagster home; what does not load of it is named on standard error, but
    not the extractions ``names``, which the command is about."""
    workspace = Workspace(module)
    prepare_dagster_home()
    workspace.warn_of_not_loaded(*names)
    return workspace
