"""The strongest features of a text, from the table of its samples."""

import numpy as np

from extraction_assets.browser.live import LiveFeature, LiveFiring, LivePlace
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
    """The features of a text with every token on which they fire, strongest first, ties to the lower feature."""
    features, samples = _firings(table)
    values, positions = table.activations.numpy(), table.positions.numpy()
    places: dict[int, list[LivePlace]] = {}
    for at in np.lexsort((positions, samples, -values, features)):
        place = LivePlace(int(samples[at]), int(positions[at]), float(values[at]))
        places.setdefault(int(features[at]), []).append(place)
    found = (LiveFeature(feature, places[0].activation, places) for feature, places in places.items())
    return sorted(found, key=lambda one: (-one.max_activation, one.neuron_index))
