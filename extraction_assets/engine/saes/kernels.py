"""Triton kernels for CUDA. Each has a twin in plain PyTorch, which is its oracle and the path of other devices.

Imported only where there is a GPU; Triton comes with torch's CUDA builds.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from extraction_assets.engine.saes.activation import ActivationFunction, Firings

SEGMENT = 2048
"""Features that one program looks at: enough programs to fill a GPU from a few tokens."""
_STEP = 1024


class PaddedRows:
    """Room for at most ``capacity`` firings of each token among each ``segment`` features: 8 bytes each."""

    def __init__(
        self, num_rows: int, num_features: int, capacity: int, device: torch.device, segment: int = SEGMENT
    ) -> None:
        self.num_rows, self.capacity = num_rows, capacity
        self.segments = -(-num_features // segment)
        shape = (num_rows, self.segments)
        self.firings = torch.empty(*shape, capacity, dtype=torch.int64, device=device)  # feature << 32 | value's bits
        self.counts = torch.empty(shape, dtype=torch.int32, device=device)  # beyond capacity where it did not fit
        self.finite = torch.empty(shape, dtype=torch.bool, device=device)

    def add(
        self,
        first: int,
        product: Tensor,
        wanted: Tensor,
        activation: ActivationFunction,
        first_feature: int = 0,
        bounds: Tensor | None = None,
    ) -> None:
        """The firings of rows ``first`` on among the features from ``first_feature`` on, a multiple of 2,048: reads
        ``product`` [r, f] once, writes nothing dense, never synchronises.

        With ``bounds`` (int32 [r]) only values whose bits are not below their row's, which is positive; NaNs too.
        """
        scale, limit, magnitude = activation.scale, activation.limit, activation.magnitude
        unused, (rows, columns) = activation.bias, product.shape
        _compact[(rows, -(-columns // SEGMENT))](
            product,
            wanted,
            activation.bias,
            unused if scale is None else scale,
            unused if limit is None else limit,
            unused if magnitude is None else magnitude.scale,
            unused if magnitude is None else magnitude.bias,
            unused if bounds is None else bounds,
            self.firings,
            self.counts,
            self.finite,
            first,
            first_feature,
            columns,
            product.stride(0),
            self.capacity,
            self.segments,
            SCALED=scale is not None,
            LIMITED=limit is not None,
            GATED=magnitude is not None,
            BOUNDED=bounds is not None,
            WHOLE=columns % _STEP == 0,
            SEGMENT=SEGMENT,
            num_warps=1,
            enable_fp_fusion=False,  # the twin rounds after every operation
        )

    def sizes(self, fullest: Tensor | None = None) -> tuple[int, int]:
        """Firings in all, and the most that one place must hold, or the largest of ``fullest``. One synchronisation,
        before which all that does not depend on it is queued."""
        if not self.num_rows:
            return 0, 0
        most = (self.counts if fullest is None else fullest).max().long()
        ends, _whole_rows = self._ends, self._whole_rows
        total, largest = torch.stack([ends[-1], most]).tolist()
        return total, largest

    @functools.cached_property
    def _ends(self) -> Tensor:
        """int64 [places]: how many firings there are up to the end of each, once all rows are added."""
        return torch.cumsum(self.counts.view(-1), 0)

    @functools.cached_property
    def _whole_rows(self) -> Tensor:
        """bool [num_rows]: what ``Firings.finite`` says, once all rows are added."""
        return self.finite.all(dim=1)

    def flatten(self, total: int) -> Firings:
        """The rows one after the other, where none is longer than the capacity. No synchronisation."""
        device, places = self.counts.device, self.num_rows * self.segments
        tokens = torch.empty(total, dtype=torch.int64, device=device)
        features = torch.empty(total, dtype=torch.int64, device=device)
        values = torch.empty(total, device=device)
        together = max(1, min(_PLACES, _SLOTS // self.capacity))
        if places:
            _flatten[(-(-places // together),)](
                self.firings,
                self.counts,
                self._ends,
                *(tokens, features, values),
                places,
                SEGMENTS=self.segments,
                CAPACITY=self.capacity,
                PLACES=together,
                num_warps=4,
            )
        return Firings(tokens, features, values, self._whole_rows)


_PLACES = 8
"""Segments that one program flattens, of a small capacity."""
_SLOTS = 8192
"""Places for firings that one program looks at, at most."""


@triton.jit
def _compact(  # type: ignore[no-untyped-def]
    product,
    wanted,
    bias,
    scale,
    limit,
    magnitude_scale,
    magnitude_bias,
    bounds,
    firings,
    counts,
    finite,
    first,
    first_feature,
    columns,
    stride,
    capacity,
    segments,
    SCALED: tl.constexpr,
    LIMITED: tl.constexpr,
    GATED: tl.constexpr,
    BOUNDED: tl.constexpr,
    WHOLE: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """One warp a row and segment: bias, activation function and the stable compaction of what fires.

    It goes over 1,024 columns at a time in 8 groups of 128 (indices are [32, 8, 4]): a thread looks at 4 neighbouring
    columns of each group and keeps a bit for each of its 32 that fires. Few fire, so that only words are counted and
    taken apart. Counts within a group, up to 128, are bytes, so that two prefix sums serve 8 groups.
    """
    # what was written last is read first, while the cache holds it
    row = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    segment = tl.num_programs(1) - 1 - tl.program_id(1)
    place = (first + row) * segments + first_feature // SEGMENT + segment
    if tl.load(wanted + row):
        lane = tl.arange(0, 32)
        group = tl.arange(0, 8)[None, :, None]
        single = tl.arange(0, 4)[None, None, :]
        bit = tl.full([1, 8, 4], 1, tl.int32) << (group * 4 + single)
        bound = 0.0
        if BOUNDED:
            bound = tl.load(bounds + row).to(tl.float32, bitcast=True)
        product += row * stride
        firings += place * capacity
        total = tl.full([], 0, tl.int32)
        broken = tl.full([], 0, tl.int32)
        for start in range(segment * SEGMENT, tl.minimum(columns, segment * SEGMENT + SEGMENT), 1024):
            column = start + group * 128 + (lane[:, None, None] * 4 + single)
            inside = column < columns
            raw = _take(product + column, inside, WHOLE)
            value, fires, other = _activate(
                raw,
                first_feature + column,
                inside,
                bias,
                scale,
                limit,
                magnitude_scale,
                magnitude_bias,
                SCALED,
                LIMITED,
                GATED,
                WHOLE,
            )
            if BOUNDED:
                fires = (value < bound) == 0  # of a NaN true
            words = tl.sum(tl.sum(tl.where(fires, bit, 0), axis=2), axis=1).to(tl.uint32, bitcast=True)  # [32]
            even, odd = _group_counts(words)
            evens, odds = tl.sum(even, axis=0), tl.sum(odd, axis=0)
            before_even = tl.cumsum(even, axis=0) - even
            before_odd = tl.cumsum(odd, axis=0) - odd + evens  # at most 252
            two = (evens & 255) + (odds & 255)
            four = two + ((evens >> 8) & 255) + ((odds >> 8) & 255)
            six = four + ((evens >> 16) & 255) + ((odds >> 16) & 255)
            low, high = two << 16, four | (six << 16)  # before which pair of groups how many fire
            rest = words
            for _number in range(tl.max(_bits(words), axis=0)):
                lowest = rest & (0 - rest).to(tl.uint32)
                live = lowest != 0
                which = _bits((lowest - 1).to(tl.uint32))  # 32 of none
                pair, which_single = ((which >> 3) & 3).to(tl.uint32), (which & 3).to(tl.uint32)
                ahead = (tl.where((which & 4) != 0, before_odd, before_even) >> (pair * 8)) & 255
                ahead += (tl.where(pair >= 2, high, low) >> ((pair & 1) * 16)) & 0xFFFF
                lower = (words >> (which & 28).to(tl.uint32)) & ((1 << which_single) - 1)
                slot = total + (ahead + lower - (lower >> 1) - (lower >> 2)).to(tl.int32)
                index = start + lane * 4 + (which >> 2) * 128 + (which & 3)
                again = tl.load(product + index, mask=live, other=0.0)
                strength, _fires, _other = _activate(
                    again,
                    first_feature + index,
                    live,
                    bias,
                    scale,
                    limit,
                    magnitude_scale,
                    magnitude_bias,
                    SCALED,
                    LIMITED,
                    GATED,
                    False,
                )
                bits = strength.to(tl.int32, bitcast=True)
                firing = ((first_feature + index).to(tl.int64) << 32) | (bits.to(tl.int64) & 0xFFFFFFFF)
                tl.store(firings + slot, firing, mask=live & (slot < capacity))
                rest = rest ^ lowest
            total += (six + (evens >> 24) + (odds >> 24)).to(tl.int32)
            whole = _sum_all(value)
            if GATED:
                whole += _sum_all(other)
            if whole * 0.0 != 0.0:  # a sum of finite numbers may overflow
                largest = _largest(value)
                if GATED:
                    largest = tl.maximum(largest, _largest(other))
                broken = tl.maximum(broken, largest)
        tl.store(counts + place, total)
        tl.store(finite + place, broken < 0x7F800000)
    else:
        tl.store(counts + place, 0)
        tl.store(finite + place, True)


@triton.jit
def _group_counts(words):  # type: ignore[no-untyped-def]
    """How many bits of each 4 are set, as bytes: of groups 0, 2, 4, 6 and of groups 1, 3, 5, 7."""
    pairs = words - ((words >> 1) & 0x55555555)
    fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    return fours & 0x0F0F0F0F, (fours >> 4) & 0x0F0F0F0F


@triton.jit
def _sum_all(value):  # type: ignore[no-untyped-def]
    return tl.sum(tl.sum(tl.sum(value, axis=2), axis=1), axis=0)


@triton.jit
def _largest(value):  # type: ignore[no-untyped-def]
    """The largest bits of an absolute value."""
    bits = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return tl.max(tl.max(tl.max(bits, axis=2), axis=1), axis=0)


@triton.jit
def _take(pointers, inside, WHOLE: tl.constexpr):  # type: ignore[no-untyped-def]
    """What stands there, 0 outside; nothing is outside where WHOLE."""
    return tl.load(pointers) if WHOLE else tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def _activate(  # type: ignore[no-untyped-def]
    raw,
    column,
    inside,
    bias,
    scale,
    limit,
    magnitude_scale,
    magnitude_bias,
    SCALED: tl.constexpr,
    LIMITED: tl.constexpr,
    GATED: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Value of the products at some columns, whether they fire, and the other value that must be finite, a gate."""
    value = raw + _take(bias + column, inside, WHOLE)
    if SCALED:
        value = value * _take(scale + column, inside, WHOLE)
    gate = value
    if GATED:
        value = raw * _take(magnitude_scale + column, inside, WHOLE)
        value = value + _take(magnitude_bias + column, inside, WHOLE)
        fires = (gate > 0.0) & (value > 0.0)
    elif LIMITED:
        fires = value > _take(limit + column, inside, WHOLE)
    else:
        fires = value > 0.0
    return value, fires, gate


@triton.jit
def _bits(word):  # type: ignore[no-untyped-def]
    """How many bits of uint32 words are set."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def _flatten(  # type: ignore[no-untyped-def]
    padded,
    counts,
    ends,
    tokens,
    features,
    values,
    places,
    SEGMENTS: tl.constexpr,
    CAPACITY: tl.constexpr,
    PLACES: tl.constexpr,
):
    """Some places of a program: their firings to where they stand among all."""
    place = tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES)
    there = place < places
    count = tl.load(counts + place, mask=there, other=0)
    to = tl.load(ends + place, mask=there, other=0) - count
    slot = tl.arange(0, CAPACITY)
    inside = slot[None, :] < count[:, None]
    source = place[:, None] * CAPACITY + slot[None, :]
    target = to[:, None] + slot[None, :]
    firing = tl.load(padded + source, mask=inside, other=0)
    tl.store(tokens + target, (place // SEGMENTS)[:, None] + tl.zeros([PLACES, CAPACITY], tl.int64), mask=inside)
    tl.store(features + target, firing >> 32, mask=inside)
    tl.store(values + target, firing.to(tl.int32).to(tl.float32, bitcast=True), mask=inside)
