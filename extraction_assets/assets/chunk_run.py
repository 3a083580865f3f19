"""A run over some chunks: the model is loaded once, files are written while the next chunk computes."""

import logging
import random
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import dagster as dg
import torch

from extraction_assets.assets.keys import activations_key, sae_key
from extraction_assets.assets.lineage import Lineage
from extraction_assets.assets.progress import Progress, progress
from extraction_assets.engine.batching import AdaptiveBatch
from extraction_assets.engine.gpu_pass import (
    PROBE_SAMPLES,
    ChunkResult,
    ForwardOutOfMemoryError,
    HookReader,
    PassSettings,
    SaeResult,
    SaeTask,
    chunk_steps,
    forward_pass,
    numerics_record,
    stored_activations,
)
from extraction_assets.engine.language_model import LanguageModel, load_language_model, resolve_checkpoint
from extraction_assets.engine.legacy import LegacyComparison, compare_with_legacy
from extraction_assets.engine.preflight import check_combination
from extraction_assets.engine.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.plan import ExtractionPlan
from extraction_assets.resources import GpuResource
from extraction_assets.resources.utilization import Utilization, UtilizationSampler
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_files import (
    Record,
    read_activations,
    read_features,
    read_record,
    write_activations,
    write_features,
    write_table,
)
from extraction_assets.stores.chunk_store import ChunkAsset, chunk_assets

MATCHES_LEGACY = "vectorized_matches_legacy"
RECONSTRUCTS = "sae_reconstructs_activations"
CHUNK_CHECKS = {
    MATCHES_LEGACY: "The sequential legacy loop, run again on a seeded part of the chunk, finds the same examples.",
    RECONSTRUCTS: "The SAE explains enough of the activations' variance: it is read at the right layer and hook.",
}

PROBE_FEATURES = 512
PROBE_SHARE_OF_TIME = 0.02

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


class Target(NamedTuple):
    """One chunk asset that a run was asked for."""

    key: dg.AssetKey
    asset: ChunkAsset
    sae: str | None


class Written(NamedTuple):
    """A file that has become durable."""

    target: Target
    metadata: dict[str, Any]


class ChunkRun:
    """Computes chunks one after the other on one device; a context manager, which joins the writer and the sampler."""

    def __init__(
        self,
        plan: ExtractionPlan,
        gpu: GpuResource,
        device: torch.device,
        selected: Collection[dg.AssetKey],
        lineage: Lineage,
        logger: logging.Logger,
    ) -> None:
        self.plan, self.gpu, self.device, self._lineage, self._logger = plan, gpu, device, lineage, logger
        self._targets = [target for target in chunk_targets(plan.settings) if target.key in selected]
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chunk-writer")
        self._pending: _Pending | None = None
        self._usage = UtilizationSampler(device, logger)

    def __enter__(self) -> Self:
        self._usage.__enter__()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._usage.__exit__(error_type, error, traceback)
        self._writer.shutdown(wait=True)

    def events(self, keys: Sequence[str], *, reuse: bool = False) -> Iterator[Event]:
        """Computes ``keys`` and yields each chunk's events once its files are durable.

        With ``reuse`` (a retry, a run of the missing), what of a chunk is on disk is not computed again: its events are
        recorded anew, because a partition without one counts as failed.
        """
        with progress("chunks", sum(map(self._num_samples, keys)), "samples", self._logger) as update:
            try:
                lacking = yield from self._lacking(keys, update, reuse=reuse)
                for key, targets in lacking.items():
                    yield from self._events_of(key, targets, update)
                yield from self._durable()
            except (Exception, dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
                yield from self._durable()  # what was computed before is recorded, whatever has happened since
                raise
            except GeneratorExit:  # canceled while Dagster was storing an event: it asks for no more of them
                for event in self._durable():
                    self._lineage.report(event)
                raise

    def _lacking(
        self, keys: Sequence[str], update: Progress, *, reuse: bool
    ) -> Generator[Event, None, dict[str, list[Target]]]:
        """What of each chunk is to be computed. With ``reuse``, all that is there is recorded first: then what is left
        of the run is work alone, and so is the time left."""
        lacking = {}
        for key in keys:
            done = [t for t in self._targets if reuse and self.plan.chunk_state(t.asset, key, t.sae) == "done"]
            yield from self._recorded_again(key, done)
            lacking[key] = [target for target in self._targets if target not in done]
            if not lacking[key]:
                del lacking[key]
                update.skip(self._num_samples(key))
        return lacking

    def _events_of(self, key: str, targets: list[Target], update: Progress) -> Iterator[Event]:
        """Computes what a chunk lacks and hands it to the writer."""
        outcome = yield from self._computed(key, targets, update)
        yield from self._durable()
        yield from outcome.refusals()
        written = self._writer.submit(self._write, key, targets, outcome)
        self._pending = _Pending(key, written, outcome.evaluations)

    def _computed(self, key: str, targets: list[Target], update: Progress) -> Generator[Event, None, "_Outcome"]:
        """Computes a chunk; between its batches, yields the events of the chunk before as soon as it is durable."""
        steps = self._compute(key, targets, update.begin)
        try:
            while True:
                update(next(steps), self._note(key))
                if self._pending is not None and self._pending.written.done():
                    yield from self._durable()
        except StopIteration as finished:
            outcome: _Outcome = finished.value
            return outcome

    def _num_samples(self, key: str) -> int:
        settings = self.plan.settings
        return len(range(*settings.chunk_rows(key).indices(settings.evaluation_samples)))

    def _note(self, key: str) -> str:
        """What progress shows beside the rate."""
        busy = self._usage.gpu_percent
        return f"chunk {key}, batch {self.batch.size}" + ("" if busy is None else f", GPU {busy:.0f}%")

    def _durable(self) -> Iterator[Event]:
        """Waits for the files of the chunk that is being written, if there is one, and gives its events."""
        pending = self._pending
        if pending is not None:
            for one in pending.written.result():
                yield self._materialization(pending.key, one)
            yield from map(self._lineage.targeted, pending.evaluations)
            self._pending = None  # only now: an interrupt on the way must not lose the record

    @cached_property
    def saes(self) -> dict[str, SAE]:
        """The SAEs that are asked for, on the device, after checking that they fit the model's hooks."""
        wanted = {target.sae for target in self._targets}
        folders = {
            name: (resolve_checkpoint(sae.path, revision=sae.revision), sae.hook)
            for name, sae in self.plan.settings.saes.items()
            if name in wanted
        }
        weights = check_combination(self._model_path, folders, self.plan.settings.corpus.max_length)
        return {name: SAE(own, self.device) for name, own in weights.items()}

    @cached_property
    def model(self) -> LanguageModel:
        """The language model on the device."""
        settings = self.plan.settings
        self._logger.info("loading %s on %s", settings.language_model.path, self.device)
        return load_language_model(
            self._model_path, self._hooks, device=self.device, dtype=settings.language_model.dtype
        )

    @property
    def _hooks(self) -> list[str]:
        """Hooks to run to: all where activations are stored, else those that the SAEs asked for read."""
        if any(target.asset == "model_activations" for target in self._targets):
            return self.plan.settings.hooks
        return list(dict.fromkeys(self.plan.settings.saes[name].hook for name in self.saes))

    @cached_property
    def batch(self) -> AdaptiveBatch:
        """Samples to reduce at once; asked for once models are on the device."""
        settings = self.plan.settings
        latent_dim = max((sae.latent_dim for sae in self.saes.values()), default=1)
        return self.gpu.vectorization_batch(self.device, latent_dim, settings.corpus.max_length, self._logger)

    @cached_property
    def _model_path(self) -> str:
        model = self.plan.settings.language_model
        return str(resolve_checkpoint(model.path, revision=model.revision))

    @cached_property
    def forward_batch(self) -> AdaptiveBatch:
        """Samples of one forward pass."""
        return AdaptiveBatch(self.gpu.batch_size, self._logger)

    def _compute(self, key: str, targets: list[Target], begin: Callable[[], None]) -> Generator[int, None, "_Outcome"]:
        """Yields the number of samples of each group that is done; calls ``begin`` once model and SAEs are loaded.

        A chunk is computed anew with half the batch where the forward pass runs out of memory: the batch is part of the
        numerics record, so that a chunk is computed with one size from its first sample to its last.
        """
        while True:
            try:
                return (yield from self._attempt(key, targets, begin))
            except ForwardOutOfMemoryError as error:
                if self.forward_batch.size == 1:
                    raise MemoryError(f"{error}: not even one sample fits; use a device with more memory") from error
                done = error.done
            yield -done  # outside the handler, where the traceback still holds tensors
            self.forward_batch.halve(self.forward_batch.size)

    def _attempt(self, key: str, targets: list[Target], begin: Callable[[], None]) -> Generator[int, None, "_Outcome"]:
        samples, pass_settings = self.plan.samples(key), self._pass_settings(targets)
        tasks, feature_records = self._tasks(key, targets)
        needs_hooks = pass_settings.keep_activations or any(task.stored_features is None for task in tasks)
        reader, dtype, source = self._reader(key, samples, pass_settings) if needs_hooks else (None, "", None)
        rng = random.Random(int(key))
        rows = sorted(rng.sample(range(len(samples.token_ids)), min(PROBE_SAMPLES, len(samples.token_ids))))
        batch, halvings = self.batch, len(self.batch.halvings)
        begin()
        self._usage.restart()
        result = yield from chunk_steps(samples, reader, tasks, pass_settings, batch, self.device, rows)
        usage = self._usage.read()
        numerics = numerics_record(self.device, dtype, pass_settings)
        if source is not None:
            numerics["activations"] = source["numerics"]
        used = _Used(pass_settings.batch_size, batch.size, batch.halvings[halvings:], usage)
        outcome = _Outcome(samples, result, numerics, used)
        for task in tasks:
            own, stored = result.saes[task.name], feature_records.get(task.name)
            variance = stored["variance_explained"] if stored else own.variance_explained
            legacy = self._compare(own, samples, rng, result.seconds)
            encoded = {**numerics, "encode_tile_tokens": own.encode_tile_tokens}
            outcome.saes[task.name] = _SaeOutcome(variance, legacy, stored["numerics"] if stored else encoded)
        wanted = {target.sae for target in targets if target.asset == "top_k_table"}
        outcome.evaluations.extend(self._evaluate(key, outcome, sorted(name for name in wanted if name)))
        return outcome

    def _pass_settings(self, targets: list[Target]) -> PassSettings:
        assets = {target.asset for target in targets}
        return PassSettings(
            batch_size=self.forward_batch.size,
            top_k=self.plan.settings.top_k_examples,
            min_activation=self.plan.settings.min_activation,
            vectorized=self.gpu.vectorized,
            matmul_precision=self.gpu.matmul_precision,
            keep_activations="model_activations" in assets,
            keep_features="sae_features" in assets,
        )

    def _tasks(self, key: str, targets: list[Target]) -> tuple[list[SaeTask], dict[str, Record]]:
        """The SAEs to run, with features stored by an earlier run unless they are asked for anew; their records."""
        tasks, records = [], {}
        for name, sae in self.saes.items():
            own = {target.asset for target in targets if target.sae == name}
            if not own:
                continue
            stored = None
            if own == {"top_k_table"} and self.plan.chunk_state("sae_features", key, name) == "done":
                path = self.plan.chunk_path("sae_features", key, name)
                features, record = read_features(path, self.plan.features_fingerprint(key, name))
                if record["all_finite"]:
                    stored, records[name] = features, record
            tasks.append(SaeTask(name, self.plan.settings.saes[name].hook, sae, stored))
        return tasks, records

    def _reader(self, key: str, samples: Samples, settings: PassSettings) -> tuple[HookReader, str, Record | None]:
        """Hook outputs from the store if they are there and not asked for anew, else from the model; their dtype, and
        the record of the file that they were read from."""
        if not settings.keep_activations and self.plan.chunk_state("model_activations", key) == "done":
            path = self.plan.chunk_path("model_activations", key)
            stored, record = read_activations(path, self.plan.activations_fingerprint(key))
            own = {hook: stored[hook] for hook in self._hooks}
            return stored_activations(own, self.device), str(next(iter(own.values())).dtype), record
        return forward_pass(self.model, samples, settings.batch_size), str(self.model.dtype), None

    def _compare(self, result: SaeResult, samples: Samples, rng: random.Random, seconds: float) -> LegacyComparison:
        latent_dim = len(result.statistics.sample_count)
        return compare_with_legacy(
            result.table,
            result.probe,
            samples.counted,
            rng.sample(range(latent_dim), min(PROBE_FEATURES, latent_dim)),
            first_sample=samples.first_sample,
            top_k=self.plan.settings.top_k_examples,
            min_activation=self.plan.settings.min_activation,
            seconds=PROBE_SHARE_OF_TIME * seconds,
        )

    def _evaluate(self, key: str, outcome: "_Outcome", saes: list[str]) -> Iterator[dg.AssetCheckEvaluation]:
        for name in saes:
            asset, own = sae_key(self.plan.settings, name, "top_k_table"), outcome.saes[name]
            least = self.plan.settings.saes[name].minimum_variance_explained
            yield dg.AssetCheckEvaluation(
                asset_key=asset,
                check_name=MATCHES_LEGACY,
                passed=not own.legacy.mismatches,
                metadata={"pairs_compared": own.legacy.pairs, "mismatches": own.legacy.mismatches},
                blocking=True,
                partition=key,
            )
            yield dg.AssetCheckEvaluation(
                asset_key=asset,
                check_name=RECONSTRUCTS,
                # NaN: the chunk's first samples have too few counted positions to judge by
                passed=not own.variance_explained < least,
                metadata={"variance_explained": own.variance_explained, "minimum": least},
                description=f"explains {own.variance_explained:.3f} of the variance, at least {least} is asked for",
                blocking=True,
                partition=key,
            )

    def _write(self, key: str, targets: list[Target], outcome: "_Outcome") -> list[Written]:
        """Writes the files that were asked for, upstream first. Runs in the writer's thread."""
        return [self._write_one(key, target, outcome) for target in targets]

    def _write_one(self, key: str, target: Target, outcome: "_Outcome") -> Written:
        path = self.plan.chunk_path(target.asset, key, target.sae)
        fingerprint = self.plan.chunk_fingerprint(target.asset, key, target.sae)
        record = outcome.record(fingerprint, target.sae)
        started = time.perf_counter()
        if target.asset == "model_activations":
            write_activations(path, outcome.result.activations, record)
        elif target.asset == "sae_features":
            features = outcome.result.saes[str(target.sae)].features
            assert features is not None, "features are kept where their asset is selected"
            write_features(path, features, record)
        else:
            own = outcome.result.saes[str(target.sae)]
            write_table(path, own.table, own.statistics, record)
        seconds = time.perf_counter() - started
        return Written(target, outcome.metadata(path, fingerprint, target.sae, seconds))

    def _materialization(self, key: str, written: Written) -> dg.AssetMaterialization:
        target = written.target
        tags = self._lineage.tags(target.asset, target.sae, key)
        return dg.AssetMaterialization(target.key, partition=key, metadata=written.metadata, tags=tags)

    def _recorded_again(self, key: str, targets: list[Target]) -> Iterator[Event]:
        """Events of a chunk that an earlier attempt of this run made durable."""
        for target in targets:
            path = self.plan.chunk_path(target.asset, key, target.sae)
            metadata = {
                "path": dg.MetadataValue.path(str(path)),
                "fingerprint": self.plan.chunk_fingerprint(target.asset, key, target.sae),
                "recorded_again": True,
            }
            yield self._materialization(key, Written(target, metadata))
            if target.asset == "top_k_table":
                for name, passed in read_record(path)["checks"].items():
                    evaluation = dg.AssetCheckEvaluation(target.key, name, passed, blocking=True, partition=key)
                    yield self._lineage.targeted(evaluation)


class _Pending(NamedTuple):
    """A chunk whose files are being written."""

    key: str
    written: Future[list[Written]]
    evaluations: list[dg.AssetCheckEvaluation]


class _SaeOutcome(NamedTuple):
    variance_explained: float
    legacy: LegacyComparison
    numerics: dict[str, Any]
    """Of the pass that encoded the features, be it an earlier one."""


class _Used(NamedTuple):
    """What the pass over a chunk took of the machine."""

    batch_size: int
    vectorization_batch_size: int
    """At the chunk's end."""
    halvings: list[int]
    """Batches of this chunk that did not fit."""
    utilization: Utilization

    def metadata(self) -> dict[str, Any]:
        return {
            **self.utilization.metadata(),
            "batch_size": self.batch_size,
            "vectorization_batch_size": self.vectorization_batch_size,
            "halvings": dg.MetadataValue.json(self.halvings),
        }


class _Outcome:
    """A computed chunk with what is known about it."""

    def __init__(
        self,
        samples: Samples,
        result: ChunkResult,
        numerics: dict[str, Any],
        used: "_Used",
    ) -> None:
        self.samples, self.result, self.numerics, self.used = samples, result, numerics, used
        self.saes: dict[str, _SaeOutcome] = {}
        self.evaluations: list[dg.AssetCheckEvaluation] = []

    def refusals(self) -> Iterator[dg.AssetCheckEvaluation]:
        """Where a check failed: yields the evaluations, then fails the run before anything of the chunk is stored."""
        failed = [evaluation for evaluation in self.evaluations if not evaluation.passed]
        if failed:
            yield from self.evaluations
            first = failed[0]
            raise dg.Failure(
                f"check {first.check_name} failed for chunk {first.partition} of {first.asset_key.to_user_string()}: "
                f"{first.description or first.metadata}; nothing of this chunk is stored",
                allow_retries=False,
            )

    def record(self, fingerprint: str, sae: str | None) -> dict[str, Any]:
        """What a chunk's files say of themselves: no times and no sizes that differ from run to run."""
        record: dict[str, Any] = {"fingerprint": fingerprint, "numerics": self._numerics(sae)}
        if sae is not None:
            record["variance_explained"] = self.saes[sae].variance_explained
            record["all_finite"] = self.result.saes[sae].all_finite
            record["checks"] = {
                evaluation.check_name: evaluation.passed
                for evaluation in self.evaluations
                if evaluation.asset_key.path[1] == sae
            }
        return record

    def _numerics(self, sae: str | None) -> dict[str, Any]:
        return self.numerics if sae is None else self.saes[sae].numerics

    def metadata(self, path: Path, fingerprint: str, sae: str | None, seconds_write: float) -> dict[str, Any]:
        """Metadata of a materialization event; docs/operating.md says what each is."""
        tokens = int(self.samples.attention_mask.sum())
        metadata: dict[str, Any] = {
            "samples": len(self.samples.token_ids),
            "tokens": tokens,
            "seconds": self.result.seconds,
            "samples_per_second": len(self.samples.token_ids) / self.result.seconds,
            "tokens_per_second": tokens / self.result.seconds,
            **{f"seconds_{stage}": seconds for stage, seconds in self.result.stage_seconds.items()},
            "seconds_write": seconds_write,
            **self.used.metadata(),
            "bytes": path.stat().st_size,
            "path": dg.MetadataValue.path(str(path)),
            "fingerprint": fingerprint,
            "numerics": dg.MetadataValue.json(self._numerics(sae)),
        }
        if sae is not None:
            statistics = self.result.saes[sae].statistics
            metadata["variance_explained"] = self.saes[sae].variance_explained
            metadata["mean_l0"] = float(statistics.token_count.sum()) / max(1, statistics.tokens_seen)
            metadata["features_firing"] = int((statistics.sample_count > 0).sum())
            metadata["examples"] = len(self.result.saes[sae].table.neuron_index)
        return metadata


def chunk_targets(settings: ExtractionSettings) -> list[Target]:
    """Every chunk asset of an extraction, upstream first."""
    return [
        Target(sae_key(settings, sae, asset) if sae else activations_key(settings), asset, sae)
        for asset, sae in chunk_assets(settings.saes)
    ]
