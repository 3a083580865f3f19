"""Runs the parts of an extraction as Dagster runs of this process, on the persistent instance."""

import contextlib
import datetime as dt
import gc
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import dagster as dg
import sqlalchemy as sa

from extraction_assets.assets.chunks.pending import (
    Pending,
    directions_are_recorded,
    is_recorded,
    merge_is_recorded,
    range_tags,
    ranges,
)
from extraction_assets.assets.report.run import report_damage
from extraction_assets.catalog import (
    FEATURE_DIRECTIONS,
    FEATURE_EXAMPLES,
    FEATURE_RELATIONS,
    FEATURE_REPORT,
    assets_after_chunks,
    assets_of_weights,
    export_asset,
)
from extraction_assets.cli.terminal import echo
from extraction_assets.dagster_instance.dead_runs import MAX_RETRIES_TAG, DeadRun, alive_runs, fail_dead_runs, works_on
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.queries.directions import find_directions
from extraction_assets.execution import damage
from extraction_assets.execution.keys import REUSE_TAG, chunk_targets, corpus_key, sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.planning.stored_merge import stored_merge
from extraction_assets.planning.stored_relations import missing_relations, stored_relations
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.resources.resolve import resolve_resource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.in_use import runs_of
from extraction_assets.stores.sealed import named

T = TypeVar("T")

GPU_OPTIONS = ("device", "batch_size", "vectorization_batch_size", "vectorized")


class RunFailed(ValueError):
    """A run failed; the message is its error."""


class Runner:
    """Materializes assets of one extraction; a context manager, which closes the instance."""

    def __init__(
        self,
        definitions: dg.Definitions,
        settings: ExtractionSettings,
        options: dict[str, Any],
        *,
        verbose: bool = False,
    ) -> None:
        self.settings, self.options, self.verbose = settings, options, verbose
        self._job = definitions.resolve_implicit_global_asset_job_def()
        self._store = resolve_resource(definitions.resources, ChunkStoreResource).open()
        self._results = resolve_resource(definitions.resources, ResultsResource)
        gpu = {name: options[name] for name in GPU_OPTIONS if options.get(name) is not None}
        level = "INFO" if verbose else "CRITICAL"
        self._config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": level}}}}
        self._gpu_config = {"resources": {"gpu": {"config": gpu}}} if gpu else {}
        self._instance = dg.DagsterInstance.get()
        self._shown = _OnTheTerminal()

    def __enter__(self) -> Self:
        damage.terminal.addHandler(self._shown)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        damage.terminal.removeHandler(self._shown)
        self._instance.dispose()

    def materialize_corpus(self) -> None:
        self._execute([corpus_key(self.settings)], self._gpu_config)

    def materialize_chunks(self, keys: Sequence[str], *, only_missing: bool = False) -> None:
        """The chunk assets of contiguous ``keys``, in one run. With ``only_missing`` only the assets that are missing
        for some of these chunks: stored files upstream are read, and files without an event are recorded."""
        self.make_chunks(keys, self.chunk_assets(keys, only_missing=only_missing), reuse=only_missing)

    def chunk_assets(self, keys: Sequence[str], *, only_missing: bool) -> list[dg.AssetKey]:
        """The chunk assets; with ``only_missing`` those that are missing for some of these chunks."""
        return self.pending().assets(keys) if only_missing else [t.key for t in chunk_targets(self.settings)]

    def make_chunks(self, keys: Sequence[str], assets: Sequence[dg.AssetKey], *, reuse: bool) -> None:
        """Chunk assets of contiguous ``keys``, in one run; with ``reuse`` what is stored is recorded."""
        tags = {REUSE_TAG: "true"} if reuse else {}
        self._execute(list(assets), self._gpu_config, {**tags, **range_tags(keys)})

    def merge(self, sae: str) -> None:
        """The merged examples of an SAE, and what is made from them."""
        self.materialize_after_chunks(sae, assets_after_chunks())

    def of_weights(self, saes: Sequence[str]) -> None:
        """What follows from the checkpoints alone, of some SAEs: a run of its own, so that nothing else fails with
        it."""
        keys = [sae_key(self.settings, sae, asset) for sae in saes for asset in assets_of_weights()]
        self._execute(keys, self._gpu_config)

    def export(self, saes: Sequence[str]) -> None:
        """The exports that the settings name: each writes what is not there, in one run."""
        names = [export_asset(one) for one in self.settings.exports]
        self._execute([sae_key(self.settings, sae, name) for sae in saes for name in names])

    def directions_are_current(self, sae: str) -> bool:
        """Whether the database and Dagster's history hold the directions of the current checkpoints."""
        plan = self._plan()
        if not directions_are_recorded(plan, sae, self._instance):
            return False
        try:
            with self._results.read() as engine, engine.connect() as connection:
                found = find_directions(connection, self.settings.name, sae)
                return found is not None and found.fingerprint == plan.fingerprint_of(FEATURE_DIRECTIONS, None, sae)
        except DatabaseError:
            return False  # the run will fail on it, on record

    def pending(self) -> Pending:
        """Chunks with a top-k table of the current settings missing or not recorded."""
        return Pending(self._plan(), self._instance)

    def materialize_after_chunks(self, sae: str, assets: Sequence[str]) -> None:
        """Some of the assets that are made once for an SAE when all its chunks are there."""
        self._execute([sae_key(self.settings, sae, asset) for asset in assets], self._gpu_config)

    def set_damaged_aside(self) -> list[str]:
        """One sentence for each damaged chunk file; these files now count as missing."""
        plan = self._plan()
        return [damage.put_aside(one.error, plan) for one in damage.find_damaged(plan, whole=True)]

    def missing_after_merge(self, sae: str) -> dict[str, str | None]:
        """Assets made from a current merge that are not current themselves, each with one sentence where its file or
        rows are at fault."""
        plan, found = self._plan(), dict[str, str | None]()
        for asset in assets_after_chunks():
            wrong = self._fault_after_merge(plan, asset, sae, found)
            if asset != FEATURE_EXAMPLES and (wrong or not is_recorded(plan, asset, sae, self._instance)):
                found[asset] = wrong
        return found

    def _fault_after_merge(self, plan: ExtractionPlan, asset: str, sae: str, missing: Collection[str]) -> str | None:
        """What the history does not say of an asset's file or rows; ``missing`` are the assets before it that are."""
        if asset == FEATURE_REPORT:
            path = plan.store.asset_file(plan.settings.name, asset, sae)
            if FEATURE_RELATIONS in missing or self._precedes_relations(path, plan, sae):
                report = plan.store.files.address(path)
                return f"{report} was written before the relations of {sae} were counted; it is written again"
            return report_damage(plan.store, path)
        if asset == FEATURE_RELATIONS:
            why = self._of_database(lambda connection: missing_relations(connection, plan, sae))
            return f"the relations of {sae} are counted again: {why}" if why else None
        return None

    def _precedes_relations(self, report: Path, plan: ExtractionPlan, sae: str) -> bool:
        """Whether a report that exists is older than the relations, whose flags it shows."""
        found = self._of_database(lambda connection: stored_relations(connection, plan, sae))
        written = plan.store.changed_at(report) if plan.store.files.is_file(report) else None
        return found is not None and written is not None and written < _timestamp(found.finished_at)

    def _of_database(self, look_up: Callable[[sa.Connection], T]) -> T | None:
        """None if the database does not answer: the run will fail on it, on record."""
        try:
            with self._results.read() as engine, engine.connect() as connection:
                return look_up(connection)
        except DatabaseError:
            return None

    def merge_is_current(self, sae: str) -> bool:
        """Whether the database and Dagster's history hold the merge of the current chunks."""
        plan = self._plan()
        if not merge_is_recorded(plan, sae, self._instance):
            return False
        try:
            with self._results.read() as engine, engine.connect() as connection:
                found = stored_merge(connection, plan, sae)
                return found is not None and found.stale is None
        except DatabaseError:
            return False  # the merge will fail on it, on record

    def others(self) -> list[str]:
        """Who else works on this extraction: queued or started Dagster runs of any process, and other ``run``
        commands."""
        alive = alive_runs(self._instance, works_on(self._instance, self.settings.name))
        commands = runs_of(self._store.root, self.settings.name)
        return [*(f"run {run.run_id}" for run in alive), *(f"`run` in {command}" for command in commands)]

    def ranges(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Contiguous ranges of partition keys, at most ``partitions_per_run`` long."""
        return ranges(self.settings.chunk_keys, keys, self.settings.partitions_per_run)

    def recover(self) -> list[DeadRun]:
        """Ends earlier runs of this extraction with a dead process."""
        return fail_dead_runs(self._instance, works_on(self._instance, self.settings.name), retried=False)

    def _plan(self) -> ExtractionPlan:
        return ExtractionPlan(self.settings, self._store)

    def _execute(
        self,
        keys: list[dg.AssetKey],
        config: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        result = self._executed(keys, {**self._config, **(config or {})}, tags or {})
        if result is None or _was_interrupted(result):
            gc.collect()  # ends a step that is interrupted between two events, which then records what is durable
            raise KeyboardInterrupt
        if not result.success:
            raise RunFailed(named(_first_error(result), self.settings.name))

    def _executed(
        self, keys: list[dg.AssetKey], config: dict[str, Any], tags: dict[str, str]
    ) -> dg.ExecuteInProcessResult | None:
        """A run of this process; None if it was interrupted outside a step."""
        with contextlib.suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            return self._job.execute_in_process(
                run_config=config,
                instance=self._instance,
                asset_selection=keys,
                tags={MAX_RETRIES_TAG: "0", **tags},  # the daemon cannot retry what this process ran
                raise_on_error=False,
            )
        return None


def _timestamp(utc: dt.datetime) -> float:
    """Of a time in UTC; SQLite gives it without its zone."""
    return utc.replace(tzinfo=dt.UTC).timestamp()


class _OnTheTerminal(logging.Handler):
    """Writes messages to standard error as they are, whatever it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        echo(record.getMessage(), err=True)


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    errors = (event.step_failure_data.error for event in result.all_events if event.is_step_failure)
    return any(error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__ for error in errors)


def _first_error(result: dg.ExecuteInProcessResult) -> str:
    """The message of a failed run: a failure's own description, or the error with its type."""
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data and failure.user_failure_data.description:
                return str(failure.user_failure_data.description)
            if failure.error:
                return _deepest(failure.error)
    for event in result.all_events:
        if event.is_run_failure and event.job_failure_data.error:
            return _deepest(event.job_failure_data.error)
    return f"run {result.run_id} failed; see the UI"


def _deepest(error: Any) -> str:
    while error.cause is not None:
        error = error.cause
    return str(error.message).strip()
