"""The activations of some features on all samples, and the file in which delphi reads them."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from extraction_assets.engine.shapes import FeatureRows
from extraction_assets.stores.sealed import naming

LARGEST = float(np.finfo(np.float16).max)
"""65,504: delphi keeps activations as float16."""

_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
_FIRINGS_AT_ONCE = 2_000_000
_NAMES = {"float16": "F16", "uint16": "U16", "uint32": "U32", "int64": "I64"}


class Firings(NamedTuple):
    """Activations of the features ``start`` to ``stop - 1`` in some samples, ordered by (sample, position, feature)."""

    locations: np.ndarray
    """uint16 or uint32 [n, 3]: number of the sample, position, feature less ``start``."""
    activations: np.ndarray
    """float16 [n], all > 0."""


class TooLargeError(ValueError):
    """An activation that float16 does not hold."""

    def __init__(self, neuron_index: int, activation: float) -> None:
        super().__init__(f"feature {neuron_index} has an activation of {activation:,.9g}")


def ranges(counts: np.ndarray, most: int, longest: int) -> list[range]:
    """Consecutive features in files: ``counts`` int64 [F] are the firings of each, and a file has up to ``most`` of
    them, or one feature, and up to ``longest`` features."""
    found, start, total = list[range](), 0, 0
    for index, count in enumerate(counts.tolist()):
        if index > start and (total + count > most or index - start == longest):
            found.append(range(start, index))
            start, total = index, 0
        total += count
    return [*found, range(start, len(counts))]


def equal_ranges(features: int, files: int) -> list[range]:
    """Consecutive features in equal parts, as delphi divides them."""
    edges = torch.linspace(0, features, files + 1).long().tolist()
    return [range(start, stop) for start, stop in pairwise(edges)]


def firings_of(
    rows: FeatureRows, counted: np.ndarray, first: int, features: range, chosen: np.ndarray, dtype: np.dtype
) -> Iterator[Firings]:
    """What some features do in a chunk whose first sample has number ``first``, in parts; ``counted`` bool [n, T] are
    its positions that count, ``chosen`` bool [F] the features that are wanted, ``dtype`` that of locations.

    Peak extra memory 40 bytes for each of ``_FIRINGS_AT_ONCE`` firings. Raises TooLargeError.
    """
    ids, pointers = rows.feature_ids.numpy(), rows.row_pointers.numpy()
    wanted = np.zeros(rows.num_features, dtype=bool)
    wanted[features.start : features.stop] = chosen[features.start : features.stop]
    for start in range(0, len(ids), _FIRINGS_AT_ONCE):
        place = np.flatnonzero(wanted[ids[start : start + _FIRINGS_AT_ONCE]]) + start
        token = np.searchsorted(pointers, place, side="right") - 1
        counts = counted.reshape(-1)[token]
        place, token = place[counts], token[counts]
        locations = np.empty((len(place), 3), dtype=dtype)
        locations[:, 0] = token // rows.num_positions + first
        locations[:, 1] = token % rows.num_positions
        locations[:, 2] = ids[place] - features.start
        yield Firings(locations, _halved(rows.values.numpy()[place], ids[place]))


def _halved(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """float16 of positive float32. What would become 0 becomes the smallest number above it: 0 means silence."""
    if len(values) and (largest := int(values.argmax())) >= 0 and values[largest] > LARGEST:
        raise TooLargeError(int(ids[largest]), float(values[largest]))
    return np.maximum(values, np.float32(_SMALLEST)).astype(np.float16)


def write_cache_file(
    path: Path, parts: Sequence[Firings], dtype: np.dtype, tokens: Callable[[], Iterable[np.ndarray]], shape: list[int]
) -> None:
    """A safetensors file of ``parts``, in pieces: ``locations`` in ``dtype``, ``activations``, and ``tokens`` int64 of
    ``shape`` [samples, T], which come some samples at a time."""
    firings = sum(len(part.activations) for part in parts)
    tensors: dict[str, tuple[np.dtype, list[int], Callable[[], Iterator[np.ndarray]]]] = {
        "tokens": (np.dtype(np.int64), shape, lambda: (np.ascontiguousarray(one, np.int64) for one in tokens())),
        "locations": (dtype, [firings, 3], lambda: (part.locations for part in parts)),
        "activations": (np.dtype(np.float16), [firings], lambda: (part.activations for part in parts)),
    }
    header, start = {}, 0
    for name, (kind, size, _) in tensors.items():
        stop = start + int(np.prod(size)) * kind.itemsize
        header[name] = {"dtype": _NAMES[kind.name], "shape": size, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # what follows is aligned
    with naming(path), path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, pieces in tensors.values():
            for piece in pieces():
                file.write(piece.data)
