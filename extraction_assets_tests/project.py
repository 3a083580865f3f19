"""An extraction in a Dagster project of its own, run on an instance in memory."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from extraction_assets.component import build_definitions
from extraction_assets.database.connect import open_database
from extraction_assets.execution.keys import activations_key, corpus_key, sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.resources import ChunkStoreResource, GpuResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore

SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Project:
    """Materializes the assets of one extraction under ``home``.

    Results go to SQLite there unless ``results`` is given, events to an instance in memory unless ``instance`` is.
    """

    def __init__(
        self,
        settings: ExtractionSettings,
        home: Path,
        *,
        results: ResultsResource | None = None,
        instance: dg.DagsterInstance | None = None,
        chunk_store: ChunkStoreResource | None = None,
        **gpu: Any,
    ) -> None:
        self.settings, self.home = settings, home
        (home / "dagster").mkdir(parents=True, exist_ok=True)
        self._instance = instance
        self.url = f"sqlite:///{home / 'results.sqlite'}"
        self._resources = {
            "gpu": GpuResource(**{"device": "cpu", **gpu}),
            "chunk_store": chunk_store or ChunkStoreResource(root=str(home)),
            "results": results or ResultsResource(url=self.url),
        }

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """The one given, or one in memory, made as late as the job."""
        return self._instance or dg.DagsterInstance.ephemeral(tempdir=str(self.home / "dagster"))

    @cached_property
    def _job(self) -> dg.JobDefinition:
        """Made once a test runs something: most tests of commands only look at files and rows."""
        defs = dg.Definitions.merge(build_definitions(self.settings), dg.Definitions(resources=self._resources))
        return defs.resolve_implicit_global_asset_job_def()

    @property
    def plan(self) -> ExtractionPlan:
        return ExtractionPlan(self.settings, ChunkStore(self.home))

    @property
    def chunk_assets(self) -> list[dg.AssetKey]:
        saes = self.settings.saes
        own = [sae_key(self.settings, sae, asset) for sae in saes for asset in ("sae_features", "top_k_table")]
        return [activations_key(self.settings), *own]

    def corpus(self) -> dg.ExecuteInProcessResult:
        return self.execute([corpus_key(self.settings)])

    def chunks(
        self,
        first: int = 0,
        last: int = -1,
        assets: Sequence[dg.AssetKey] | None = None,
        tags: dict[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Chunks number ``first`` to ``last``, both included."""
        keys = self.settings.chunk_keys
        span = {"dagster/asset_partition_range_start": keys[first], "dagster/asset_partition_range_end": keys[last]}
        return self.execute(list(assets or self.chunk_assets), {**span, **(tags or {})})

    def merge(self, sae: str) -> dg.ExecuteInProcessResult:
        return self.execute([sae_key(self.settings, sae, "feature_examples")])

    def merged(self) -> "Project":
        """Corpus, chunks and merges, without reports: what most tests look at, in three runs."""
        self.corpus()
        self.chunks()
        self._execute_of_all_saes("feature_examples")
        return self

    def everything(self) -> "Project":
        """The same, and reports."""
        self.merged()
        self._execute_of_all_saes("feature_report")
        return self

    def _execute_of_all_saes(self, asset: str) -> dg.ExecuteInProcessResult:
        return self.execute([sae_key(self.settings, sae, asset) for sae in self.settings.saes])

    def relations_and_directions(self) -> None:
        """What ``everything`` leaves out, which few tests look at."""
        for sae in self.settings.saes:
            self.execute([sae_key(self.settings, sae, asset) for asset in ("feature_relations", "feature_directions")])

    def execute(
        self, keys: list[dg.AssetKey], tags: dict[str, str] | None = None, config: dict[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        return self._job.execute_in_process(
            asset_selection=keys,
            tags=tags,
            instance=self.instance,
            run_config={**SILENT, **(config or {})},
        )

    def checks_alone(
        self, checks: Sequence[dg.AssetCheckKey], tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """As the button "Execute all" of the Checks tab does: checks without their assets, without a partition."""
        job = self._job.get_subset(asset_selection=set(), asset_check_selection=set(checks))
        return job.execute_in_process(instance=self.instance, tags=tags, run_config=SILENT, raise_on_error=True)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        engine = open_database(self.url)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(sa.text(query))]
        finally:
            engine.dispose()

    def files(self, pattern: str = "**/*") -> dict[str, bytes]:
        """Contents of the chunk and corpus files, by relative path."""
        found = {}
        for path in sorted(self.home.glob(pattern)):
            if path.is_file() and not path.name.startswith("results.sqlite") and "dagster" not in path.parts:
                found[path.relative_to(self.home).as_posix()] = path.read_bytes()
        return found
