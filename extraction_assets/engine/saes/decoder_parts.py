"""The decoder rows of an SAE, some at a time, with no more of its checkpoint in memory than they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from extraction_assets.engine.file_boundary import CheckpointFile, DecoderPart, read_header
from extraction_assets.engine.saes.formats import SaePlace, checkpoint_files, read_checkpoint
from extraction_assets.engine.saes.located_checkpoint import encode_options, sae_place
from extraction_assets.engine.saes.sae import decoder_rows
from extraction_assets.engine.saes.stored_width import stored_width
from extraction_assets.settings import ResolvedSae

if TYPE_CHECKING:
    from torch import Tensor

ROWS_AT_ONCE = 1024
"""Of width 4,096 these are 16 MiB, and three times as much while they are read."""


def decoder_parts(sae: ResolvedSae) -> Iterator[Tensor]:
    """The rows of ``SAE.decoder``, up to ``ROWS_AT_ONCE`` float32 [n, d_out] at a time, in their order; nothing of an
    SAE that encodes only.

    Of a safetensors file each part reads its own features; other files can only be read whole, and then all rows come
    at once. Raises CheckpointError or FileNotFoundError.
    """
    place = sae_place(sae.checkpoint)
    for part in _parts(place):
        rows, _ = decoder_rows(read_checkpoint(replace(place, part=part), **encode_options(sae)))
        if rows is None:
            return
        yield rows
        del rows  # before the next ones are read


def _parts(place: SaePlace) -> Sequence[DecoderPart | None]:
    """The parts in which the features can be read; None for all of them at once."""
    latent_dim = stored_width(place)
    files = [path for path in checkpoint_files(place) if path.suffix == ".safetensors"]
    if latent_dim is None or not files:
        return [None]
    for path in files:
        header = read_header(CheckpointFile("SAE", path.parent, path.name))
        if any(stored.shape.count(latent_dim) > 1 for stored in header.values()):
            return [None]  # which axis is that of the features is not known
    starts = range(0, latent_dim, ROWS_AT_ONCE)
    return [DecoderPart(start, min(start + ROWS_AT_ONCE, latent_dim), latent_dim) for start in starts]
