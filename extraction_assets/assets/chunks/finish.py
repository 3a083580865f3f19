"""What follows the pass over a chunk, in a writer's thread: checking its results and writing its files."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from extraction_assets.assets.chunks.compute import QueuedChunk
from extraction_assets.assets.chunks.evaluations import evaluate, mean_l0, sae_outcome
from extraction_assets.catalog import MODEL_ACTIVATIONS, SAE_FEATURES, TOP_K_TABLE
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult
from extraction_assets.engine.statistics.registry import FeatureStatistics
from extraction_assets.execution.keys import Target
from extraction_assets.host.ray_gpus import gpus_given_by_ray
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.stores.chunk_files import write_activations, write_features, write_table

_WRITERS = 4


class WrittenFile(NamedTuple):
    """A file that is durable, with the metadata of its materialization event."""

    target: Target
    metadata: dict[str, Any]


class FinishedChunk(NamedTuple):
    """A chunk whose files are durable, or that was refused."""

    written: list[WrittenFile]
    evaluations: list[dg.AssetCheckEvaluation]

    def refuse(self) -> None:
        """Fails the run where a blocking check failed; then nothing of the chunk is stored."""
        failed = [evaluation for evaluation in self.evaluations if evaluation.blocking and not evaluation.passed]
        if failed:
            first = failed[0]
            raise dg.Failure(
                f"check {first.check_name} failed for chunk {first.partition} of {first.asset_key.to_user_string()}: "
                f"{first.description or first.metadata}; nothing of this chunk is stored",
                allow_retries=False,
            )


def finish_chunk(plan: ExtractionPlan, queued: QueuedChunk) -> FinishedChunk:
    """Waits for a chunk's results, checks them and writes the requested files.

    They are written at once, and the tables get their names last: if they exist, everything does. Nothing is written if
    a blocking check fails.
    """
    results = _Results(plan, queued)
    if not all(evaluation.passed for evaluation in results.evaluations if evaluation.blocking):
        return FinishedChunk([], results.evaluations)
    tables = [target for target in queued.targets if target.asset == TOP_K_TABLE]
    others = [target for target in queued.targets if target.asset != TOP_K_TABLE]
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="chunk-file") as pool:
        first = [pool.submit(results.write, target) for target in others]  # first: a table waits for them
        last = [pool.submit(results.write, target, partial(wait_for, first)) for target in tables]
        return FinishedChunk(wait_for([*first, *last]), results.evaluations)


def wait_for(files: Sequence[Future[WrittenFile]]) -> list[WrittenFile]:
    """The files, once all are durable. Raises the error of the first that could not be written."""
    return [file.result() for file in files]


class _Results:
    """A chunk's results, their checks, and what its files and events say of them."""

    def __init__(self, plan: ExtractionPlan, queued: QueuedChunk) -> None:
        self._plan, self._queued = plan, queued
        self._chunk: ChunkResult = queued.unfinished.result()
        self._outcomes = {
            sae: sae_outcome(plan, queued, sae, result, self._chunk.seconds) for sae, result in self._chunk.saes.items()
        }
        self.evaluations = list(evaluate(plan, queued, self._outcomes))

    def write(self, target: Target, before_rename: Callable[[], object] | None = None) -> WrittenFile:
        """Writes one file; a table gets its name after ``before_rename``."""
        chunk = self._queued.chunk
        path = self._plan.path_to_write(target.asset, chunk, target.sae)
        fingerprint = self._plan.fingerprint_of(target.asset, chunk, target.sae)
        waited = 0.0

        def wait() -> None:
            nonlocal waited
            began = time.perf_counter()
            if before_rename is not None:
                before_rename()
            waited = time.perf_counter() - began

        started = time.perf_counter()
        with self._plan.store.files.storing(path) as draft:
            self._write(draft, target, self._record(fingerprint, target.sae), wait)
        seconds = time.perf_counter() - started - waited
        return WrittenFile(target, self._metadata(path, fingerprint, target.sae, seconds))

    def _write(self, path: Path, target: Target, record: dict[str, Any], wait: Callable[[], object]) -> None:
        if target.asset == MODEL_ACTIVATIONS:
            write_activations(path, self._chunk.activations, record)
            return
        result = self._chunk.saes[str(target.sae)]
        if target.asset == SAE_FEATURES:
            assert result.feature_parts is not None, "features are kept where their asset is selected"
            write_features(path, result.feature_parts, record)
        else:
            write_table(path, result.table, result.statistics, record, result.draws, result.sampled, wait)

    def _record(self, fingerprint: str, sae: str | None) -> dict[str, Any]:
        """The record in a chunk's files: no times or sizes, which differ from run to run."""
        record: dict[str, Any] = {"fingerprint": fingerprint, "numerics": self._numerics(sae)}
        if sae is not None:
            record["variance_explained"] = self._outcomes[sae].variance_explained
            record["all_finite"] = self._chunk.saes[sae].all_finite
            record["checks"] = {
                evaluation.check_name: evaluation.passed
                for evaluation in self.evaluations
                if evaluation.asset_key.path[1] == sae
            }
        return record

    def _numerics(self, sae: str | None) -> dict[str, Any]:
        return self._queued.numerics if sae is None else self._outcomes[sae].numerics

    def _metadata(self, path: Path, fingerprint: str, sae: str | None, seconds_write: float) -> dict[str, Any]:
        """Metadata of a materialization event; docs/operating.md says what each is."""
        samples, seconds = self._queued.samples, self._chunk.seconds
        tokens = int(samples.attention_mask.sum())
        metadata: dict[str, Any] = {
            "samples": len(samples.token_ids),
            "tokens": tokens,
            "seconds": seconds,
            "samples_per_second": len(samples.token_ids) / seconds,
            "tokens_per_second": tokens / seconds,
            **{f"seconds_{stage}": spent for stage, spent in self._chunk.stage_seconds.items()},
            "seconds_write": seconds_write,
            **self._queued.usage.metadata(),
            **({"gpus_given_by_ray": given} if (given := gpus_given_by_ray()) else {}),
            "bytes": self._plan.store.files.length(path),
            "path": dg.MetadataValue.path(self._plan.store.files.address(path)),
            "fingerprint": fingerprint,
            "numerics": dg.MetadataValue.json(self._numerics(sae)),
        }
        if sae is not None:
            result = self._chunk.saes[sae]
            explained = self._outcomes[sae].variance_explained
            metadata |= {} if explained is None else {"variance_explained": explained}
            metadata |= statistics_metadata(result.statistics)
            metadata["examples"] = len(result.table.neuron_index)
        return metadata


def statistics_metadata(statistics: FeatureStatistics) -> dict[str, Any]:
    """The part of a chunk's metadata that comes from its statistics."""
    return {"mean_l0": mean_l0(statistics), "features_firing": int((statistics.sample_count > 0).sum())}
