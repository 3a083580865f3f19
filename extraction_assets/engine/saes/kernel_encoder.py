"""Encode on a GPU by the kernels: the product a part at a time, and from each part what fires."""

import torch
from torch import Tensor

from extraction_assets.engine.saes.activation import ActivationFunction, Firings
from extraction_assets.engine.saes.products import part_columns, products, tiles_together

_CAPACITY = 64
"""Firings of a token among 2,048 features that there is room for at first; a power of two."""
_BOUND_COLUMNS = 4096
_BOUND_COLUMNS_PER_K = 16
_BOUND_SHARE = 8
"""Bounds of TopK come from so many columns, so many for each of the k, and one in so many, whichever is most: the
more, the fewer candidates they leave."""
_CANDIDATE_BYTES = 1 << 26
"""Of room for candidates of TopK: so many rows are selected from at once as fit, at least those of one product."""
_SEGMENT = 2048


class KernelEncoder:
    """An encoder's weights with room that grows where it did not do.

    The kernels leave out what does not fit, and count it: then everything is encoded again, with enough room.
    """

    def __init__(self, encoder: Tensor, activation: ActivationFunction) -> None:
        self._encoder, self._activation, self._width = encoder, activation, encoder.shape[1]
        self._capacity = _CAPACITY
        self._candidates = 0

    def positive(self, x: Tensor, tile: int, wanted: Tensor) -> Firings:
        """Everything that fires. One synchronisation, or one more where the room did not do."""
        from extraction_assets.engine.saes.kernels import PaddedRows

        columns = part_columns(tile, self._encoder)
        tiles = tiles_together(len(x), tile, columns, self._encoder)
        while True:
            padded = PaddedRows(len(x), self._width, self._capacity, x.device)
            for row, feature, values in products(x, self._encoder, tile, columns, tiles):
                padded.add(row, values, wanted[row : row + len(values)], self._activation, feature)
            total, most = padded.sizes()
            if most <= self._capacity:
                return padded.flatten(total)
            self._capacity = _power_of_two(most)

    def top_k(self, x: Tensor, tile: int, wanted: Tensor, k: int) -> Firings:
        """The k largest of what is positive, ties to the lower feature. One synchronisation, or one more where the
        room did not do."""
        from extraction_assets.engine.saes.kernels import PaddedRows
        from extraction_assets.engine.saes.top_k_kernels import bounds_of, select

        k = min(k, self._width)
        bound_columns = max(_BOUND_COLUMNS, _BOUND_COLUMNS_PER_K * k, self._width // _BOUND_SHARE)
        columns = part_columns(tile, self._encoder, bound_columns)
        tiles = tiles_together(len(x), tile, columns, self._encoder)
        bound_columns = min(bound_columns, columns)
        expected = 1.2 * k * self._width / bound_columns
        self._candidates = self._candidates or _room(expected * _SEGMENT / self._width)
        while True:
            together = tile * tiles * self._groups_together(tile * tiles)
            candidates = PaddedRows(min(together, len(x)), self._width, self._candidates, x.device)
            selected = PaddedRows(len(x), k, _power_of_two(k), x.device, segment=k)
            fullest = torch.empty(len(x), dtype=torch.int32, device=x.device)
            bounds = None
            for row, feature, values in products(x, self._encoder, tile, columns, tiles):
                wanted_rows = wanted[row : row + len(values)]
                if feature == 0:
                    bounds = bounds_of(values, wanted_rows, self._activation, k, bound_columns)
                place, end = row % together, row + len(values)
                candidates.add(place, values, wanted_rows, self._activation, feature, bounds)
                if feature + columns >= self._width and (end % together == 0 or end == len(x)):
                    select(candidates, end - row + place, k, selected, row - place, fullest, round(1.3 * expected))
            total, most = selected.sizes(fullest)
            if most <= self._candidates:
                return selected.flatten(total)
            self._candidates = _power_of_two(most)

    def _groups_together(self, rows: int) -> int:
        """How many times the candidates of so many rows have room at once."""
        segments = -(-self._width // _SEGMENT)
        return max(1, _CANDIDATE_BYTES // (8 * rows * segments * self._candidates))


def _room(expected: float) -> int:
    """For candidates among 2,048 features of which some are expected on average."""
    return min(_SEGMENT, max(32, _power_of_two(round(1.5 * expected) + 16)))


def _power_of_two(number: int) -> int:
    """The least one that is not below ``number``."""
    return 1 << max(0, number - 1).bit_length()
