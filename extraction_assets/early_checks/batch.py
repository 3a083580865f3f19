"""The checks before a run's first chunk: whether each SAE makes sense of one batch, and whether its files fit."""

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from extraction_assets.early_checks.published_l0 import examine_l0
from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.forward import forward_pass
from extraction_assets.engine.chunk_pass.sae_pass import RECONSTRUCTION_SAMPLES
from extraction_assets.engine.findings import Finding, refuse
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.preflight.compatibility import refuse_unknown_tokens
from extraction_assets.engine.preflight.likely_cause import (
    Tried,
    better_hook,
    enough_samples,
    is_where_recorded,
    likely_cause,
    same_hook_elsewhere,
)
from extraction_assets.engine.preflight.sanity import (
    SaeSanity,
    SanityLimits,
    judge,
    measure_sae,
    reconstruction_of,
)
from extraction_assets.engine.saes.resolved import ResolvedExtraction
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.selection.outliers import outlier_positions
from extraction_assets.engine.shapes import Samples
from extraction_assets.host.disk import free_bytes, readable_size
from extraction_assets.planning.disk_estimate import Estimate, disk_findings, listed
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk, ExtractionSettings, ResolvedSae
from extraction_assets.stores.chunk_store import ChunkStore

_TOKENS = 8192
"""Tokens of the batch, at most; and of it no more samples than a chunk's check of the reconstruction has."""
FORWARD_SAMPLES = 8
"""Samples of one forward pass here."""
_EVERYWHERE = 1 << 30
"""Layers."""
_BEYOND_DOUBT = 0.95
"""At this variance explained, neighbouring layers are not tried: their residual streams are much alike."""


class Batch(NamedTuple):
    """The samples that SAEs are tried on."""

    samples: Samples
    first_or_special: Tensor
    """bool [n, T]"""

    def take(self, count: int) -> "Batch":
        """The first samples alone."""
        return Batch(self.samples.part(0, count), self.first_or_special[:count])


class Examined(NamedTuple):
    """What a batch showed."""

    saes: dict[str, SaeSanity]
    findings: list[Finding]


def batch_size(max_length: int) -> int:
    """Samples that SAEs are tried on."""
    return max(1, min(RECONSTRUCTION_SAMPLES, _TOKENS // max_length))


def first_or_special(special_tokens_mask: np.ndarray) -> Tensor:
    """bool [n, T]: True at special tokens and at every sample's first position, which a model without a BOS token uses
    in its place."""
    marked = torch.from_numpy(np.array(special_tokens_mask))
    marked[:, 0] = True
    return marked


def model_outputs(model: LanguageModel, samples: Samples, logger: logging.Logger) -> dict[str, Tensor]:
    """{hook: [n, T, D]} of some samples, a few at a time; CorpusError if the model does not know a token."""
    refuse_unknown_tokens(samples, model)
    batch = AdaptiveBatch(min(FORWARD_SAMPLES, len(samples.token_ids)), logger)

    def read(start: int, stop: int) -> Mapping[str, Tensor]:
        return forward_pass(model, samples, stop - start)(start, stop)

    parts = list(batch.map(len(samples.token_ids), read))
    return {hook: torch.cat([part[hook] for part in parts]) for hook in model.hooks}


def examine_saes(
    extraction: ResolvedExtraction,
    saes: Mapping[str, SAE],
    outputs: Mapping[str, Tensor],
    batch: Batch,
    model: LanguageModel | None,
    precision: str,
    logger: logging.Logger,
) -> Examined:
    """Tries SAEs on hook ``outputs`` {hook: [n, T, D]} of a batch, all on the SAEs' device.

    If one explains too little, looks for the cause; at other layers too, if there is a ``model``.
    """
    examined, findings = dict[str, SaeSanity](), list[Finding]()
    is_later_chunk = batch.samples.first_sample > extraction.declared.start_sample
    for name, sae in saes.items():
        chosen = extraction.saes[name]
        counted = _counted(extraction.declared, outputs[chosen.hook], batch)
        found = examined[name] = _measured(chosen, sae, outputs, counted, batch, precision)
        logger.info("SAE %s at %s: %s", name, chosen.hook, described(found))
        limits = SanityLimits(
            chosen.minimum_variance_explained, chosen.l0_limit(sae.latent_dim), chosen.maximum_bos_share
        )
        explains_enough, cause = reconstruction_of(found, limits).passed, ""
        distance = _distance_to_look(found, explains_enough, is_where_recorded(model, sae, chosen.hook))
        if distance is not None:
            few = batch.take(enough_samples(counted.shape[1]))
            places = _other_places(chosen.hook, outputs, few, model, logger, distance)
            tried = Tried(sae, chosen.hook, chosen.hook_out, places, counted[: len(few.samples.token_ids)])
            if explains_enough:
                findings += _belongs_elsewhere(name, tried, precision)
            else:
                cause = likely_cause(tried, limits.minimum_variance_explained, precision)
        findings += judge(name, chosen.hook, found, limits, cause, is_later_chunk=is_later_chunk)
        findings += [] if is_later_chunk else examine_l0(name, chosen, found)
    return Examined(examined, findings)


def _distance_to_look(found: SaeSanity, explains_enough: bool, is_where_recorded: bool) -> int | None:
    """How many layers away to look for the place where an SAE explains more.

    All layers if it explains too little, neighbours if that is in doubt. None if the numbers are not finite, if the
    hook is the recorded one, if it explains enough, or if it encodes only.
    """
    if found.not_finite or found.variance_explained is None or math.isnan(found.variance_explained):
        return None
    if not explains_enough:
        return _EVERYWHERE
    return None if is_where_recorded or found.variance_explained >= _BEYOND_DOUBT else 1


def _belongs_elsewhere(name: str, tried: Tried, precision: str) -> list[Finding]:
    better = better_hook(tried, precision)
    return [Finding("warning", f"SAE {name!r} at {tried.hook!r} {better}")] if better else []


def _counted(settings: ExtractionSettings, activations: Tensor, batch: Batch) -> Tensor:
    """bool [n, T]: the positions that count, on the device of the hook output [n, T, D]."""
    counted = batch.samples.counted.to(activations.device)
    limit = settings.corpus.exclude_outlier_norms
    return counted if limit is None else counted & ~outlier_positions(activations, counted, limit)


def _measured(
    chosen: ResolvedSae, sae: SAE, outputs: Mapping[str, Tensor], counted: Tensor, batch: Batch, precision: str
) -> SaeSanity:
    target = None if chosen.hook_out is None else outputs[chosen.hook_out]
    marked = batch.first_or_special.to(counted.device)
    first = batch.samples.first_sample
    activations = outputs[chosen.hook]
    return measure_sae(sae, activations, counted, marked, target=target, precision=precision, first_sample=first)


def described(found: SaeSanity) -> str:
    """The results of a batch for an SAE, in one line."""
    explained = found.variance_explained
    explains = "encodes only" if explained is None else f"explains {explained:.3f} of the variance"
    return (
        f"{explains}, mean L0 {found.mean_l0:.1f}, "
        f"{found.dead_fraction:.1%} of {found.latent_dim:,} features silent in {found.tokens:,} tokens, "
        f"{found.bos_share:.1%} of the strongest tokens first or special"
    )


def refuse_full_disk(estimates: list[Estimate], store: ChunkStore, extraction: str, logger: logging.Logger) -> None:
    """Logs what is to be written, and raises NotEnoughDiskError if it does not fit."""
    total, disk = readable_size(sum(one.size for one in estimates)), store.files.disk
    free = "" if disk is None else f", {readable_size(free_bytes(disk))} free"
    logger.info("about %s to be written to %s%s: %s", total, store.place, free, listed(estimates) or "nothing")
    refuse(disk_findings(estimates, disk, extraction))


def _other_places(
    hook: str,
    outputs: Mapping[str, Tensor],
    few: Batch,
    model: LanguageModel | None,
    logger: logging.Logger,
    distance: int,
) -> dict[str, Tensor]:
    """Outputs of ``hook``, of what else was read, and of the same place in the model's other layers, up to ``distance``
    away."""
    count = len(few.samples.token_ids)
    elsewhere = [] if model is None else same_hook_elsewhere(model, hook, distance)
    if model is None or not set(elsewhere) - set(outputs):
        return {name: output[:count] for name, output in outputs.items()}
    with model.also_reading(model.find_readable(elsewhere)):
        return model_outputs(model, few.samples, logger)


def first_batch(plan: ExtractionPlan, chunk: Chunk) -> Batch:
    """The first samples of a chunk."""
    samples = plan.samples(chunk)
    special = plan.corpus.arrays.special_tokens_mask[chunk.rows]
    return Batch(samples, first_or_special(special)).take(batch_size(samples.token_ids.shape[1]))
