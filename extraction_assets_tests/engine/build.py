"""The engine's steps from dense features to tables in one call each, and exact comparison of their results."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.selection.select import sample_maxima, select_top_k
from extraction_assets.engine.selection.sequential_loop import LegacyHeaps
from extraction_assets.engine.selection.sparse import dense_to_sparse, keep_counted
from extraction_assets.engine.shapes import Draws, SparseFeatures, TopKTable
from extraction_assets.engine.statistics.accumulate import feature_statistics
from extraction_assets.engine.statistics.registry import FeatureStatistics
from extraction_assets.engine.statistics.rows_and_sentences import feature_rows
from extraction_assets_tests import draws_oracle
from extraction_assets_tests.engine.oracle import Example
from extraction_assets_tests.engine.strategies import Drawn
from extraction_assets_tests.statistics_oracle import Firings, differences


def counted_features(drawn: Drawn) -> SparseFeatures:
    """The positive entries at counted positions."""
    return keep_counted(dense_to_sparse(torch.from_numpy(drawn.dense)), torch.from_numpy(drawn.counted))


def select(drawn: Drawn, k: int, *, first_sample: int = 0, floor: Tensor | float = 0.0) -> TopKTable:
    """The vectorized selection in one pass."""
    features = counted_features(drawn)
    return select_top_k(features, sample_maxima(features), first_sample, k, floor)


def legacy(drawn: Drawn, k: int, *, first_sample: int = 0, min_activation: float = 0.0) -> TopKTable:
    """The sequential loop."""
    heaps = LegacyHeaps(drawn.dense.shape[2], k, min_activation)
    for row in range(len(drawn.dense)):
        heaps.add_sample(torch.from_numpy(drawn.dense[row]), torch.from_numpy(drawn.counted[row]), first_sample + row)
    return heaps.build_heaps()


def rows_of(drawn: Drawn, start: int, stop: int) -> Drawn:
    """Samples ``start:stop`` alone."""
    return Drawn(drawn.dense[start:stop], drawn.counted[start:stop])


def chunk_tables(drawn: Drawn, bounds: list[int], k: int) -> list[TopKTable]:
    """One table for each chunk of samples between neighbouring bounds."""
    return [
        select(rows_of(drawn, start, stop), k, first_sample=start) for start, stop in pairwise(bounds) if start < stop
    ]


def statistics_of(drawn: Drawn) -> FeatureStatistics:
    features = counted_features(drawn)
    return feature_statistics(features, sample_maxima(features), torch.from_numpy(drawn.counted))


def statistics_differences(found: FeatureStatistics, right: list[Firings]) -> list[str]:
    """What statistics say otherwise than the firings of each feature."""
    rows = feature_rows(found)
    return [f"feature {f}: {d}" for f, row in enumerate(rows) for d in differences(row, right[f])]


def heap_of(tables: list[TopKTable], num_features: int, k: int, **options: Any) -> TopKTable:
    """A deferred heap's table after adding ``tables`` in the given order."""
    heap = DeferredTopKHeap(num_features, k, **options)
    for table in tables:
        heap.add_batch(table)
    return heap.build_heaps()


def plain(table: TopKTable) -> dict[int, list[Example]]:
    """A table as the oracle writes it, with its own reading of the columns; the rows must be grouped by feature."""
    offsets, found = table.firing_offsets.tolist(), dict[int, list[Example]]()
    assert offsets[0] == 0
    assert offsets[-1] == len(table.positions) == len(table.activations)
    neurons = table.neuron_index.tolist()
    assert neurons == sorted(neurons)
    for row, neuron in enumerate(neurons):
        span = slice(offsets[row], offsets[row + 1])
        firings = list(zip(table.positions[span].tolist(), table.activations[span].tolist(), strict=True))
        example = (float(table.max_activation[row]), int(table.sample_index[row]), firings)
        found.setdefault(neuron, []).append(example)
    return found


def plain_draws(draws: Draws) -> dict[tuple[int, int], list[draws_oracle.Draw]]:
    """Draws as the oracle writes them."""
    offsets, found = draws.firing_offsets.tolist(), dict[tuple[int, int], list[draws_oracle.Draw]]()
    assert offsets[-1] == len(draws.positions) == len(draws.activations)
    for row, key in enumerate(zip(draws.neuron_index.tolist(), draws.interval.tolist(), strict=True)):
        span = slice(offsets[row], offsets[row + 1])
        firings = list(zip(draws.positions[span].tolist(), draws.activations[span].tolist(), strict=True))
        found.setdefault(key, []).append((int(draws.sample_index[row]), float(draws.max_activation[row]), firings))
    assert list(found) == sorted(found)
    return found


def assert_same(one: NamedTuple, other: NamedTuple) -> None:
    """Equal in every field, bit for bit and in type."""
    assert type(one) is type(other)
    for name, left, right in zip(one._fields, one, other, strict=True):
        if isinstance(left, Tensor):
            assert left.dtype == right.dtype, name
            assert left.shape == right.shape, name
            assert np.array_equal(_bits(left), _bits(right)), name
        else:
            assert left == right, name


def _bits(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().contiguous().view(torch.uint8).numpy() if tensor.numel() else np.zeros(0)
