"""Triton kernels for CUDA: the examples of some samples that may still enter the table or the draws.

Their twins are ``select.select_top_k`` and ``draws.select_with_draws``, the path of other devices: once merged, the
examples are the same bits. A few kernels and one synchronisation stand in for a hundred kernels and nine. Imported only
where there is a GPU; Triton comes with torch's CUDA builds.

A pair of a feature and a sample is numbered feature * n + sample: so examples come in the order of the features, and a
feature's thresholds are read together. Atomic operations are on integers alone: scheduling changes no bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from extraction_assets.engine.ordering import VALUE_BITS, bits_for
from extraction_assets.engine.selection.draws import DrawThresholds
from extraction_assets.engine.selection.hashing import HASH_BITS, seed_state
from extraction_assets.engine.selection.intervals import FIRST_INTERVAL, INTERVALS, MANTISSA_BITS_BELOW, OF_ALL
from extraction_assets.engine.shapes import Draws, SparseFeatures, TopKTable

_BLOCK = 1024
"""Firings that one program looks at."""
_PAIRS = 2048
"""Pairs that one program looks at."""
_KEY_BITS = 63
_WARPS = 4


def pair_maxima(features: SparseFeatures) -> Tensor:
    """Maximum activation of each feature in each sample: float32 [F, n], 0 where it does not fire.

    ``select.sample_maxima`` by features instead of samples. No synchronisation.
    """
    shape = (features.num_features, features.num_samples)
    maxima = torch.zeros(shape, dtype=torch.int32, device=features.values.device)
    if len(features.values):
        _scatter_maxima[_grid(len(features.values), _BLOCK)](
            *(features.tokens, features.features, features.values, maxima),
            *(len(features.values), features.num_positions, features.num_samples),
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )
    return maxima.view(torch.float32)


class Contenders:
    """The examples of one group of samples that may still enter: found here, collected once their number is known.

    ``features`` holds counted positions only, ``maxima`` is ``pair_maxima(features)``. An example of the table has a
    maximum strictly above its feature's ``floor``, float32 [F]; a draw a hash up to its threshold. No synchronisation.
    Peak extra memory: 1 byte a pair of [F, n].
    """

    def __init__(
        self,
        features: SparseFeatures,
        maxima: Tensor,
        first_sample: int,
        floor: Tensor,
        drawn: DrawThresholds | None = None,
    ) -> None:
        self._features, self._maxima, self._first_sample, self._drawn = features, maxima, first_sample, drawn
        device, self._cells = maxima.device, maxima.numel()
        self._choice = torch.empty(self._cells, dtype=torch.uint8, device=device)
        self._counts = torch.empty(2, triton.cdiv(self._cells, _PAIRS), dtype=torch.int32, device=device)
        self._seed = 0 if drawn is None else seed_state(drawn.seed)
        self._seed -= (self._seed >> 63) << 64  # the int64 of the same bits
        self.sizes = torch.zeros(4, dtype=torch.int64, device=device)
        """int64 [4], on the device: examples for the table, draws, firings of the former, firings of the latter."""
        self._choose(floor)

    def _choose(self, floor: Tensor) -> None:
        thresholds = floor if self._drawn is None else self._drawn.hashes
        if self._cells:
            _choose[_grid(self._cells, _PAIRS)](
                *(self._maxima.view(torch.int32), floor, thresholds, self._choice, self._counts, self.sizes),
                *(self._cells, self._maxima.shape[1], self._first_sample, self._seed, self._counts.shape[1]),
                DRAWS=self._drawn is not None,
                PAIRS=_PAIRS,
                num_warps=_WARPS,
            )
        if len(self._features.values):
            _count_firings[_grid(len(self._features.values), _BLOCK)](
                *(self._features.tokens, self._features.features, self._choice, self.sizes),
                *(len(self._features.values), self._features.num_positions, self._features.num_samples),
                BLOCK=_BLOCK,
                num_warps=_WARPS,
            )

    def fits(self, sizes: list[int]) -> bool:
        """Whether example, value and position of a firing fit one key to sort by; ``sizes`` as read from the device."""
        examples, positions = max(1, sizes[0] + sizes[1]), self._features.num_positions
        return bits_for(examples) + VALUE_BITS + bits_for(positions) <= _KEY_BITS

    def collect(self, sizes: list[int]) -> tuple[TopKTable, Draws]:
        """These examples by feature, those of a feature in any order; without thresholds no draws.

        No synchronisation. Peak extra memory: 8 bytes a pair of [F, n], 36 an example and 40 a firing.
        """
        (top, drawn, top_firings, _), device = sizes, self._maxima.device
        integers = torch.empty(2, top, dtype=torch.int64, device=device)
        drawn_integers = torch.empty(3, drawn, dtype=torch.int64, device=device)
        strongest, drawn_strongest = torch.empty(top, device=device), torch.empty(drawn, device=device)
        numbers = torch.empty(2 if drawn else 1, self._cells, dtype=torch.int32, device=device)
        if self._cells:
            _write_examples[_grid(self._cells, _PAIRS)](
                *(self._maxima.view(torch.int32), self._choice, self._counts, torch.cumsum(self._counts, 1)),
                *(integers, strongest, drawn_integers, drawn_strongest, numbers),
                *(self._cells, self._maxima.shape[1], self._first_sample, self._counts.shape[1], top, drawn),
                PAIRS=_PAIRS,
                DRAWS=drawn > 0,
                num_warps=_WARPS,
            )
        offsets, positions, activations = self._firings(sizes, numbers)
        table = TopKTable(
            integers[0],
            integers[1],
            strongest,
            offsets[: top + 1],
            positions[:top_firings],
            activations[:top_firings],
        )
        draws = Draws(
            drawn_integers[0],
            drawn_integers[1],
            drawn_integers[2],
            drawn_strongest,
            offsets[top:] - top_firings,
            positions[top_firings:],
            activations[top_firings:],
        )
        return table, draws

    def _firings(self, sizes: list[int], numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets, positions and activations of the table's examples and then of the draws."""
        (top, drawn, *firings), features = sizes, self._features
        total, device = sum(firings), self._maxima.device
        keys = torch.empty(total, dtype=torch.int64, device=device)
        offsets = torch.zeros(top + drawn + 1, dtype=torch.int64, device=device)
        positions, activations = torch.empty_like(keys), torch.empty(total, device=device)
        if total:
            position_bits = bits_for(features.num_positions)
            _write_keys[_grid(len(features.values), _BLOCK)](
                *(features.tokens, features.features, features.values, self._choice, numbers, keys),
                torch.zeros(1, dtype=torch.int64, device=device),
                *(len(features.values), features.num_positions, features.num_samples, self._cells, top),
                POSITION_BITS=position_bits,
                BLOCK=_BLOCK,
                num_warps=_WARPS,
            )
            _read_keys[_grid(total, _BLOCK)](
                *(torch.sort(keys).values, offsets, positions, activations, total),
                POSITION_BITS=position_bits,
                BLOCK=_BLOCK,
                num_warps=_WARPS,
            )
        return offsets, positions, activations


def _grid(count: int, block: int) -> tuple[int]:
    return (triton.cdiv(count, block),)


_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = tl.constexpr(0xBF58476D1CE4E5B9), tl.constexpr(0x94D049BB133111EB)
_HASH_SHIFT = tl.constexpr(64 - HASH_BITS)
_INTERVALS, _FIRST_INTERVAL, _OF_ALL = tl.constexpr(INTERVALS), tl.constexpr(FIRST_INTERVAL), tl.constexpr(OF_ALL)
_BELOW, _VALUE_BITS = tl.constexpr(MANTISSA_BITS_BELOW), tl.constexpr(VALUE_BITS)
_LARGEST_VALUE = tl.constexpr(2**VALUE_BITS - 1)


@triton.jit(do_not_specialize=["total", "num_positions", "num_samples"])  # one compiled kernel for all sizes
def _scatter_maxima(  # type: ignore[no-untyped-def]
    tokens, features, values, maxima, total, num_positions, num_samples, BLOCK: tl.constexpr
):
    """The bits of positive floats order like integers, of which a GPU has atomic maxima."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < total
    cell = _cell(tokens, features, entry, inside, num_positions, num_samples)
    bits = tl.load(values + entry, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    tl.atomic_max(maxima + cell, bits, mask=inside, sem="relaxed")


@triton.jit
def _cell(tokens, features, entry, inside, num_positions, num_samples):  # type: ignore[no-untyped-def]
    """Number of the pair of some entries."""
    token = tl.load(tokens + entry, mask=inside, other=0)
    return tl.load(features + entry, mask=inside, other=0) * num_samples + token // num_positions


@triton.jit
def _mixed(number):  # type: ignore[no-untyped-def]
    """As ``hashing._mix``."""
    number = (number ^ (number >> 30)) * _FIRST_MULTIPLIER
    number = (number ^ (number >> 27)) * _SECOND_MULTIPLIER
    return number ^ (number >> 31)


@triton.jit
def _interval(bits):  # type: ignore[no-untyped-def]
    """As ``pairs.intervals_of``, of the bits of a maximum."""
    return tl.minimum(tl.maximum((bits >> _BELOW) - _FIRST_INTERVAL, 0), _INTERVALS - 1)


@triton.jit(do_not_specialize=["cells", "num_samples", "first_sample", "seed", "blocks"])
def _choose(  # type: ignore[no-untyped-def]
    maxima,
    floor,
    thresholds,
    choice,
    counts,
    sizes,
    cells,
    num_samples,
    first_sample,
    seed,
    blocks,
    DRAWS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """One byte a pair: 1 if it may enter the table, 2 the draws from all samples, 4 those from its interval; and how
    many examples of the table and draws that makes in each block."""
    block = tl.program_id(0)
    begin = block.to(tl.int64) * PAIRS
    cell = begin + tl.arange(0, PAIRS)
    inside = cell < cells
    first_feature = begin // num_samples
    within = (begin - first_feature * num_samples).to(tl.int32) + tl.arange(0, PAIRS)
    feature = first_feature + within // num_samples
    bits = tl.load(maxima + cell, mask=inside, other=0)
    fires = bits > 0
    top = fires & (bits.to(tl.float32, bitcast=True) > tl.load(floor + feature, mask=inside, other=0.0))
    chosen = top.to(tl.int32)
    if DRAWS:
        sample = (within % num_samples).to(tl.int64) + first_sample
        key = _mixed(sample.to(tl.uint64) * _GOLDEN + (tl.zeros([PAIRS], tl.int64) + seed).to(tl.uint64))
        hashed = (_mixed(feature.to(tl.uint64) * _GOLDEN + key) >> _HASH_SHIFT).to(tl.int32)
        place = thresholds + feature * (_INTERVALS + 1)
        of_all = fires & (hashed <= tl.load(place, mask=fires, other=-1))
        of_interval = fires & (hashed <= tl.load(place + 1 + _interval(bits), mask=fires, other=-1))
        chosen += of_all.to(tl.int32) * 2 + of_interval.to(tl.int32) * 4
        drawn = tl.sum(of_all.to(tl.int32) + of_interval.to(tl.int32), axis=0)
        tl.store(counts + blocks + block, drawn)
        tl.atomic_add(sizes + 1, drawn.to(tl.int64), sem="relaxed")
    else:
        tl.store(counts + blocks + block, 0)
    tl.store(choice + cell, chosen.to(tl.uint8), mask=inside)
    examples = tl.sum(top.to(tl.int32), axis=0)
    tl.store(counts + block, examples)
    tl.atomic_add(sizes, examples.to(tl.int64), sem="relaxed")


@triton.jit
def _chosen(tokens, features, choice, entry, inside, num_positions, num_samples):  # type: ignore[no-untyped-def]
    """Pair of some entries, and how many examples of the table (0 or 1) and draws (0, 1, 2) that is."""
    cell = _cell(tokens, features, entry, inside, num_positions, num_samples)
    chosen = tl.load(choice + cell, mask=inside, other=0).to(tl.int32)
    return cell, chosen & 1, ((chosen >> 1) & 1) + (chosen >> 2)


@triton.jit(do_not_specialize=["total", "num_positions", "num_samples"])
def _count_firings(  # type: ignore[no-untyped-def]
    tokens, features, choice, sizes, total, num_positions, num_samples, BLOCK: tl.constexpr
):
    """How many firings the examples of the table and the draws have."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    _cells, top, drawn = _chosen(tokens, features, choice, entry, entry < total, num_positions, num_samples)
    tl.atomic_add(sizes + 2, tl.sum(top, axis=0).to(tl.int64), sem="relaxed")
    tl.atomic_add(sizes + 3, tl.sum(drawn, axis=0).to(tl.int64), sem="relaxed")


@triton.jit(do_not_specialize=["cells", "num_samples", "first_sample", "blocks", "num_top", "num_drawn"])
def _write_examples(  # type: ignore[no-untyped-def]
    maxima,
    choice,
    counts,
    ends,
    integers,
    strongest,
    drawn_integers,
    drawn_strongest,
    numbers,
    cells,
    num_samples,
    first_sample,
    blocks,
    num_top,
    num_drawn,
    PAIRS: tl.constexpr,
    DRAWS: tl.constexpr,
):
    """The columns of the chosen pairs in their order, and each pair's number among the examples and among the draws."""
    block = tl.program_id(0)
    begin = block.to(tl.int64) * PAIRS
    cell = begin + tl.arange(0, PAIRS)
    inside = cell < cells
    first_feature = begin // num_samples
    within = (begin - first_feature * num_samples).to(tl.int32) + tl.arange(0, PAIRS)
    feature = first_feature + within // num_samples
    sample = (within % num_samples).to(tl.int64) + first_sample
    bits = tl.load(maxima + cell, mask=inside, other=0)
    maximum = bits.to(tl.float32, bitcast=True)
    chosen = tl.load(choice + cell, mask=inside, other=0).to(tl.int32)
    top = chosen & 1
    start = tl.load(ends + block) - tl.load(counts + block)
    place = start + tl.cumsum(top, axis=0) - top
    tl.store(integers + place, feature, mask=top > 0)
    tl.store(integers + num_top + place, sample, mask=top > 0)
    tl.store(strongest + place, maximum, mask=top > 0)
    tl.store(numbers + cell, place.to(tl.int32), mask=top > 0)
    if DRAWS:
        of_all, of_interval = (chosen >> 1) & 1, chosen >> 2
        start = tl.load(ends + blocks + block) - tl.load(counts + blocks + block)
        place = start + tl.cumsum(of_all + of_interval, axis=0) - of_all - of_interval
        tl.store(numbers + cells + cell, place.to(tl.int32), mask=chosen > 1)
        interval = _interval(bits).to(tl.int64)
        _write_draw(
            drawn_integers, drawn_strongest, place, num_drawn, feature, interval * 0 + _OF_ALL, sample, maximum, of_all
        )
        _write_draw(
            drawn_integers,
            drawn_strongest,
            place + of_all,
            num_drawn,
            feature,
            interval,
            sample,
            maximum,
            of_interval,
        )


@triton.jit
def _write_draw(  # type: ignore[no-untyped-def]
    integers, strongest, place, num_drawn, feature, interval, sample, maximum, there
):
    tl.store(integers + place, feature, mask=there > 0)
    tl.store(integers + num_drawn + place, interval, mask=there > 0)
    tl.store(integers + 2 * num_drawn + place, sample, mask=there > 0)
    tl.store(strongest + place, maximum, mask=there > 0)


@triton.jit(do_not_specialize=["total", "num_positions", "num_samples", "cells", "num_top"])
def _write_keys(  # type: ignore[no-untyped-def]
    tokens,
    features,
    values,
    choice,
    numbers,
    keys,
    cursor,
    total,
    num_positions,
    num_samples,
    cells,
    num_top,
    POSITION_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A key for each firing of each example and draw: its number, then the strongest first, then by position. They are
    sorted afterwards, so it does not matter which block writes first."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < total
    cell, top, drawn = _chosen(tokens, features, choice, entry, inside, num_positions, num_samples)
    wanted = top + drawn
    count = tl.sum(wanted, axis=0)
    if count > 0:
        place = tl.atomic_add(cursor, count.to(tl.int64), sem="relaxed") + tl.cumsum(wanted, axis=0) - wanted
        bits = tl.load(values + entry, mask=wanted > 0, other=0.0).to(tl.int32, bitcast=True).to(tl.int64)
        position = tl.load(tokens + entry, mask=wanted > 0, other=0) % num_positions
        rest = ((_LARGEST_VALUE - bits) << POSITION_BITS) | position
        number = tl.load(numbers + cell, mask=top > 0, other=0).to(tl.int64)
        tl.store(keys + place, (number << (_VALUE_BITS + POSITION_BITS)) | rest, mask=top > 0)
        number = tl.load(numbers + cells + cell, mask=drawn > 0, other=0).to(tl.int64) + num_top
        tl.store(keys + place + top, (number << (_VALUE_BITS + POSITION_BITS)) | rest, mask=drawn > 0)
        tl.store(keys + place + top + 1, ((number + 1) << (_VALUE_BITS + POSITION_BITS)) | rest, mask=drawn > 1)


@triton.jit(do_not_specialize=["total"])
def _read_keys(  # type: ignore[no-untyped-def]
    keys, offsets, positions, activations, total, POSITION_BITS: tl.constexpr, BLOCK: tl.constexpr
):
    """Sorted keys as firings, and where each example's begin; every example has one."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = row < total
    key = tl.load(keys + row, mask=inside, other=0)
    before = tl.load(keys + row - 1, mask=inside & (row > 0), other=-1)
    bits = _LARGEST_VALUE - ((key >> POSITION_BITS) & _LARGEST_VALUE)
    tl.store(positions + row, key & ((1 << POSITION_BITS) - 1), mask=inside)
    tl.store(activations + row, bits.to(tl.int32).to(tl.float32, bitcast=True), mask=inside)
    number = key >> (_VALUE_BITS + POSITION_BITS)
    is_first = number != (before >> (_VALUE_BITS + POSITION_BITS))  # -1 >> bits is -1, no number
    tl.store(offsets + number, row, mask=inside & is_first)
    tl.store(offsets + number + 1, row + 1, mask=inside & (row == total - 1))
