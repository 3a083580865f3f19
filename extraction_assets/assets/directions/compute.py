"""The directions of an SAE's features on one device: logit lens, and nearest decoder rows of all SAEs."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.directions.logit_lens import LogitLens, logit_lens
from extraction_assets.engine.directions.nearest import NearestRows, merge_nearest, nearest_rows, unit_rows
from extraction_assets.engine.directions.stream import NotDefined
from extraction_assets.engine.directions.unembedding import read_unembedding
from extraction_assets.engine.memory import is_out_of_memory
from extraction_assets.engine.saes.located_checkpoint import read_sae
from extraction_assets.engine.saes.resolved import ResolvedExtraction
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.execution.progress import Progress, progress

_NO_DECODER = "the SAE encodes only: it has no decoder of its own"
_RESTORED = "the size of each token's activations, by which the SAE multiplies what its decoder gives"


class Directions(NamedTuple):
    """What the features of an SAE write."""

    lens: LogitLens | None
    """None where it is not defined."""
    norm: str
    """How the final norm enters, and what is left out; "" without a logit lens."""
    undefined: str | None
    """Why there is no logit lens."""
    nearest: list[NearestRows]
    """Of the SAE itself, then of all others of the same width together, where there are some; nothing of an SAE that
    encodes only."""
    latent_dim: int


def compute_directions(
    extraction: ResolvedExtraction, sae: str, device: torch.device, logger: logging.Logger
) -> Directions:
    """The directions of an SAE on ``device``, or on the CPU if that has too little memory.

    Reads the SAEs of the extraction and, of the model, the unembedding and the final norm. Peak memory beside these:
    the matrices of two SAEs, and a block of features.
    """
    try:
        return _compute(extraction, sae, device, logger)
    except Exception as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
        logger.warning("the GPU's memory does not hold the unembedding and two SAEs: computing on the CPU")
    torch.cuda.empty_cache()
    return _compute(extraction, sae, torch.device("cpu"), logger)


def _compute(extraction: ResolvedExtraction, sae: str, device: torch.device, logger: logging.Logger) -> Directions:
    found = _read(extraction, sae, device)
    decoder = found.decoder
    if decoder is None:
        return Directions(None, "", _NO_DECODER, [], found.latent_dim)
    count, steps = len(decoder), len(extraction.saes) + 1
    with progress(f"directions of {sae}", count * steps, "rows", logger) as update:
        try:
            lens, norm, undefined = *_lens(extraction, sae, found, decoder, update), None
        except NotDefined as error:
            lens, norm, undefined = None, "", str(error)
            update.skip(count)
        rows = unit_rows(decoder)
        del decoder
        within = nearest_rows(rows, rows, list(extraction.saes).index(sae), is_itself=True, update=update)
        across = _across(extraction, sae, rows, update)
    return Directions(lens, norm, undefined, [within, *across], found.latent_dim)


def _across(extraction: ResolvedExtraction, sae: str, rows: Tensor, update: Progress) -> list[NearestRows]:
    """The nearest rows of the other SAEs that have rows of the same width, together; nothing if there are none."""
    found: list[NearestRows] = []
    for number, name in enumerate(extraction.saes):
        if name == sae:
            continue
        others = _read(extraction, name, rows.device).decoder
        if others is None or others.shape[1] != rows.shape[1]:
            update.skip(len(rows))
            continue
        nearest = nearest_rows(rows, unit_rows(others), number, update=update)
        found = [merge_nearest(found[0], nearest) if found else nearest]
    return found


class _Read(NamedTuple):
    """What is kept of an SAE."""

    decoder: Tensor | None
    latent_dim: int
    is_restored: bool


def _read(extraction: ResolvedExtraction, sae: str, device: torch.device) -> _Read:
    loaded = SAE(read_sae(extraction.saes[sae], device), device)
    return _Read(loaded.decoder, loaded.latent_dim, loaded.restores_input)


def _lens(
    extraction: ResolvedExtraction, sae: str, found: _Read, decoder: Tensor, update: Callable[[int], object]
) -> tuple[LogitLens, str]:
    """Raises NotDefined."""
    hook = extraction.saes[sae].written_hook
    unembedding = read_unembedding(extraction.checkpoint, hook, decoder.device)
    if decoder.shape[1] != unembedding.width:
        raise NotDefined(
            f"the SAE's decoder rows have {decoder.shape[1]} numbers, and the unembedding reads {unembedding.width}"
        )
    norm = unembedding.description + (f", {_RESTORED}" if found.is_restored else "")
    return logit_lens(decoder, unembedding, update), norm
