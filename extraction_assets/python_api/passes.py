"""The pass of an extraction in memory over its samples, chunk by chunk: as a run of Dagster computes them."""

import contextlib
import logging
import re
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import torch

from extraction_assets.early_checks.batch import Batch, batch_size, examine_saes, first_or_special, model_outputs
from extraction_assets.engine.chunk_pass.batching import (
    AdaptiveBatch,
    available_memory_gb,
    calculate_optimal_vectorization_batch,
)
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import ForwardOutOfMemoryError, forward_pass
from extraction_assets.engine.chunk_pass.one_chunk import UnfinishedChunk, chunk_steps, numerics_record
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.chunk_pass.sae_result import SaeResult
from extraction_assets.engine.findings import log_and_raise
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.forward.capped_attention import keep_softcap
from extraction_assets.engine.models.forward.kernels import kernel_versions
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.models.padding_check import examine_alone
from extraction_assets.engine.preflight.compatibility import examine_combination, refuse_unknown_tokens
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.engine.saes.resolved import ResolvedExtraction, examine_recorded, resolve_extraction
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.execution.progress import progress
from extraction_assets.planning.draw_rules import draw_rules
from extraction_assets.python_api.given import GivenModel, GivenSae
from extraction_assets.resources.device import choose_device
from extraction_assets.settings import Chunk, ExtractionSettings, ResolvedSae
from extraction_assets.stores.corpus_files import StoredCorpus

_PRECISION = "high"
"""Of float32 products while the SAE encodes: the GPU resource's default."""


class ComputeDevice(NamedTuple):
    """The device that is computed on."""

    device: torch.device
    batch_size: int

    @contextlib.contextmanager
    def use_idle_device(self, logger: logging.Logger) -> Iterator[torch.device]:
        """The same device, for what is counted afterwards."""
        yield self.device

    def memory_gb(self, device: torch.device) -> float:
        """GiB of a device's memory that may be planned with now."""
        return available_memory_gb(device)


class Parts(NamedTuple):
    """Model and SAE on one device."""

    extraction: ResolvedExtraction
    name: str
    """Of the SAE."""
    model: LanguageModel
    sae: SAE


class Computed(NamedTuple):
    """A chunk's results."""

    chunk: Chunk
    result: SaeResult
    numerics: dict[str, Any]


@contextlib.contextmanager
def machine_for(wanted: str, batch: int, model: GivenModel, logger: logging.Logger) -> Iterator[ComputeDevice]:
    """The device of a loaded model, else the wanted one; a GPU that ``auto`` chooses is leased until the block ends."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise ValueError(f"device is {wanted!r}: give 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if isinstance(batch, bool) or batch < 1:
        raise ValueError(f"batch_size is {batch!r}: give a whole number of at least 1")
    if model.module is None:
        with choose_device(wanted, logger) as device:
            yield ComputeDevice(device, batch)
        return
    device = next(model.module.parameters()).device
    if wanted != "auto" and torch.device(wanted).type != device.type:
        raise ValueError(f"device is {wanted!r}, but the loaded model is on {device}: leave it out, or move the model")
    yield ComputeDevice(device, batch)


@contextlib.contextmanager
def loaded_parts(
    settings: ExtractionSettings,
    name: str,
    checkpoint: LocalCheckpoint,
    given: tuple[GivenModel, GivenSae],
    device: torch.device,
    logger: logging.Logger,
) -> Iterator[Parts]:
    """Model and SAE on ``device``; a loaded model is without hooks again after the block.

    Raises CheckpointError, HookError or CorpusError if they do not belong together.
    """
    model, loaded = given[0], given[1].loaded
    if loaded is None:
        extraction = resolve_extraction(settings, checkpoint)
        found = examine_combination(checkpoint, extraction.saes, settings.corpus.max_length, device)
        log_and_raise(found.findings, logger)
        log_and_raise(examine_recorded(extraction, found.saes), logger)
        sae = found.saes[name]
    else:
        if settings.saes[name].hook is None:
            raise CheckpointError("the loaded SAE does not say which hook it reads: give it, hook='model.layers.12'")
        chosen = ResolvedSae.model_validate(settings.saes[name].model_dump())
        extraction, sae = ResolvedExtraction(settings, checkpoint, {name: chosen}), loaded
    hooks = extraction.hooks
    if model.module is None:
        read = load_language_model(checkpoint, hooks, device=device, dtype=settings.language_model.dtype)
        log_and_raise(read.weight_findings(), logger)
    else:
        keep_softcap(model.module)
        model.module.config.get_text_config().use_cache = False  # type: ignore[union-attr, operator]
        read = LanguageModel(model.module, hooks)
    try:
        if loaded is not None:
            _refuse_unfit(read, loaded, extraction.saes[name])
        yield Parts(extraction, name, read, sae)
    finally:
        read.remove_hooks()


def _refuse_unfit(model: LanguageModel, sae: SAE, chosen: ResolvedSae) -> None:
    """Raises CheckpointError if a loaded SAE has another width or device than its hook."""
    width = model.hook_widths()[chosen.hook]
    if sae.d_in != width:
        raise CheckpointError(
            f"the loaded SAE reads activations of width {sae.d_in}, but hook {chosen.hook!r} gives {width}: they do "
            "not belong together"
        )
    if sae.b_dec.device.type != model.device.type:
        raise CheckpointError(
            f"the loaded SAE is on {sae.b_dec.device}, but the model on {model.device}: load it there"
        )


def examine_first_batch(parts: Parts, corpus: StoredCorpus, logger: logging.Logger) -> None:
    """Raises HookError or SanityError if the first samples show that model, hook and SAE do not belong together."""
    settings = parts.extraction.declared
    rows = settings.chunks[0].rows
    samples = corpus.samples(rows, settings.corpus)
    whole = Batch(samples, first_or_special(corpus.arrays.special_tokens_mask[rows]))
    batch = whole.take(batch_size(samples.token_ids.shape[1]))
    outputs = model_outputs(parts.model, batch.samples, logger)
    alone = examine_alone(parts.model, batch.samples, outputs)
    saes = {parts.name: parts.sae}
    sanity, findings = examine_saes(parts.extraction, saes, outputs, batch, parts.model, _PRECISION, logger)
    broken = any(found.not_finite for found in sanity.values())  # says more than that such samples differ
    log_and_raise(findings if broken else [*alone, *findings], logger)


def computed_chunks(
    parts: Parts, corpus: StoredCorpus, machine: ComputeDevice, logger: logging.Logger
) -> Iterator[Computed]:
    """Each chunk once it is computed. Peak memory is that of one chunk. Raises NonFiniteError, CorpusError or
    MemoryError."""
    settings, forward = parts.extraction.declared, AdaptiveBatch(machine.batch_size, logger)
    memory, length = machine.memory_gb(machine.device), settings.corpus.max_length
    batch = AdaptiveBatch(calculate_optimal_vectorization_batch(memory, parts.sae.latent_dim, length), logger)
    with progress("extraction", settings.evaluation_samples, "samples", logger) as update:
        for chunk in settings.chunks:
            samples = corpus.samples(chunk.rows, settings.corpus)
            refuse_unknown_tokens(samples, parts.model)
            steps = _steps(parts, samples, forward, batch, machine.device)
            update.begin()
            unfinished = _run(steps, update)
            result = unfinished.result().saes[parts.name]
            yield Computed(chunk, result, _numerics(parts, result, forward.size, machine.device))


def _run(steps: "Generator[int, None, UnfinishedChunk]", update: Any) -> UnfinishedChunk:
    while True:
        try:
            update(next(steps))
        except StopIteration as finished:
            unfinished: UnfinishedChunk = finished.value
            return unfinished


def _steps(
    parts: Parts, samples: Samples, forward: AdaptiveBatch, batch: AdaptiveBatch, device: torch.device
) -> "Generator[int, None, UnfinishedChunk]":
    """``chunk_steps``; a chunk whose forward pass runs out of memory is computed again with half the batch, which is
    part of its numerics."""
    chosen = parts.extraction.saes[parts.name]
    tasks = [SaeTask(parts.name, chosen.hook, parts.sae, None, chosen.hook_out)]
    while True:
        try:
            read = forward_pass(parts.model, samples, forward.size)
            settings = _pass_settings(parts.extraction.declared, forward.size)
            return (yield from chunk_steps(samples, read, tasks, settings, batch, device, []))
        except ForwardOutOfMemoryError as error:
            if forward.size == 1:
                raise MemoryError(f"{error}: not even one sample fits; use a device with more memory") from error
            done = error.done
        yield -done  # outside the handler, where the traceback still holds tensors
        forward.halve(forward.size)


def _pass_settings(settings: ExtractionSettings, forward_batch: int) -> PassSettings:
    return PassSettings(
        batch_size=forward_batch,
        top_k=settings.top_k_examples,
        min_activation=settings.min_activation,
        matmul_precision=_PRECISION,
        keep_features=True,
        exclude_outlier_norms=settings.corpus.exclude_outlier_norms,
        draws=draw_rules(settings),
    )


def _numerics(parts: Parts, result: SaeResult, forward_batch: int, device: torch.device) -> dict[str, Any]:
    settings, model = _pass_settings(parts.extraction.declared, forward_batch), parts.model
    record = numerics_record(device, str(model.dtype), settings, kernels=kernel_versions(model.module))
    return {**record, "encode_tile_tokens": result.encode_tile_tokens}
