"""The strongest features of a text, from the table of its samples."""

import numpy as np

from extraction_assets.browser.live import LiveFeature, LiveFiring
from extraction_assets.engine.shapes import TopKTable


def _firings(table: TopKTable) -> tuple[np.ndarray, np.ndarray]:
    """int64 [M] twice: feature and sample of every firing of a table."""
    counts = np.diff(table.firing_offsets.numpy())
    return np.repeat(table.neuron_index.numpy(), counts), np.repeat(table.sample_index.numpy(), counts)


def strongest_by_token(table: TopKTable, length: int) -> dict[int, list[LiveFiring]]:
    """Every firing by sample * T + position, strongest first, ties to the lower feature."""
    features, samples = _firings(table)
    values = table.activations.numpy()
    tokens = samples * length + table.positions.numpy()
    found: dict[int, list[LiveFiring]] = {}
    for at in np.lexsort((features, -values, tokens)):
        found.setdefault(int(tokens[at]), []).append(LiveFiring(int(features[at]), float(values[at])))
    return found


def strongest_features(table: TopKTable) -> list[LiveFeature]:
    """The features of a text, strongest first; the strongest token is the earliest of equals."""
    features, _ = _firings(table)
    tokens = dict(zip(*(part.tolist() for part in np.unique(features, return_counts=True)), strict=True))
    offsets, found = table.firing_offsets.tolist(), dict[int, LiveFeature]()
    examples = zip(table.neuron_index.tolist(), table.sample_index.tolist(), table.max_activation.tolist(), strict=True)
    for number, (feature, sample, maximum) in enumerate(examples):  # by rank: a feature's first is its strongest
        position = int(table.positions[offsets[number]])
        found.setdefault(feature, LiveFeature(feature, maximum, sample, position, tokens[feature]))
    return sorted(found.values(), key=lambda one: (-one.max_activation, one.neuron_index))
