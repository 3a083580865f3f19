"""Histograms of equal widths, which no stored statistic can give: counted from all stored SAE features."""

from collections.abc import Iterable

import numpy as np
import sqlalchemy as sa

from extraction_assets.database.tables import features
from extraction_assets.exports.source import ExportSource
from extraction_assets.planning.stored_result import StoredFeatures

BINS = 40
_FIRINGS_AT_ONCE = 1_000_000


def even_histograms(source: ExportSource, stored: StoredFeatures) -> np.ndarray:
    """Counted firings of every feature in equal bins from 0 to its maximum, which the last one includes: int32 [F,
    BINS], int64 of 2 billion tokens or more.

    Reads all stored features once. Peak memory: the counts, 21 MB of 131,072 features, and some 40 bytes for each of
    ``_FIRINGS_AT_ONCE`` firings. Raises DamagedFileError or FileNotFoundError.
    """
    c = features.c
    query = sa.select(c.neuron_index, c.max_activation).where(c.extraction_id == source.extraction.id)
    maxima = np.full(source.extraction.latent_dim, np.inf)
    for neuron_index, maximum in source.connection.execute(query):
        maxima[neuron_index] = maximum or np.inf
    dtype = np.int32 if source.extraction.token_count < 2**31 else np.int64
    counts = np.zeros(len(maxima) * BINS, dtype=dtype)
    for ids, values in _firings(stored):
        number = np.minimum(values / maxima[ids] * BINS, BINS - 1).astype(np.int64)
        np.add.at(counts, ids * BINS + number, dtype(1))  # bincount would make an array of all counts each time
    return counts.reshape(-1, BINS)


def _firings(stored: StoredFeatures) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Features int64 [n] and activations float64 [n] at positions that count, a bounded number at a time."""
    for chunk in stored.settings.chunks:
        counted = stored.samples(chunk).counted.numpy().reshape(-1)  # [n * T]
        rows = stored.read(chunk)
        pointers, ids, values = (one.numpy() for one in rows[:3])
        for first in range(0, len(ids), _FIRINGS_AT_ONCE):
            place = np.arange(first, min(first + _FIRINGS_AT_ONCE, len(ids)))
            wanted = place[counted[np.searchsorted(pointers, place, side="right") - 1]]
            yield ids[wanted].astype(np.int64), values[wanted].astype(np.float64)
