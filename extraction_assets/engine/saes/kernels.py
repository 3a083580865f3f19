"""Triton kernels for CUDA. Each has a twin in plain PyTorch, which is its oracle and the path of other devices.

Imported only where there is a GPU; Triton comes with torch's CUDA builds.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from extraction_assets.engine.saes.activation import ActivationFunction, Firings

_SEGMENT = 2048
"""Features that one program looks at: enough programs to fill a GPU from a few tokens."""
_WARPS = 2


class PaddedRows:
    """Room for at most ``capacity`` firings of each token among each 2,048 features: 8 bytes each."""

    def __init__(self, num_rows: int, num_features: int, capacity: int, device: torch.device) -> None:
        self._num_rows, self._num_features = num_rows, num_features
        self.capacity = capacity
        self._segments = -(-num_features // _SEGMENT)
        shape = (num_rows, self._segments)
        self._features = torch.empty(*shape, capacity, dtype=torch.int32, device=device)
        self._values = torch.empty(*shape, capacity, device=device)
        self._counts = torch.empty(shape, dtype=torch.int32, device=device)  # beyond capacity where it did not fit
        self._finite = torch.empty(shape, dtype=torch.bool, device=device)

    def add(self, first: int, product: Tensor, wanted: Tensor, activation: ActivationFunction) -> None:
        """The firings of rows ``first`` on: reads ``product`` [r, F] once, writes nothing dense, never synchronises."""
        scale, limit, magnitude = activation.scale, activation.limit, activation.magnitude
        unused = activation.bias
        _compact[(len(product), self._segments)](
            product,
            wanted,
            activation.bias,
            unused if scale is None else scale,
            unused if limit is None else limit,
            unused if magnitude is None else magnitude.scale,
            unused if magnitude is None else magnitude.bias,
            self._features,
            self._values,
            self._counts,
            self._finite,
            first,
            self.capacity,
            NUM_FEATURES=self._num_features,
            SEGMENTS=self._segments,
            SCALED=scale is not None,
            LIMITED=limit is not None,
            GATED=magnitude is not None,
            SEGMENT=_SEGMENT,
            num_warps=_WARPS,
            enable_fp_fusion=False,  # the twin rounds after every operation
        )

    def sizes(self) -> tuple[int, int]:
        """Firings in all, and the most that one place must hold. One synchronisation."""
        if not self._num_rows:
            return 0, 0
        total, most = torch.stack([self._counts.sum(), self._counts.max().long()]).tolist()
        return total, most

    def flatten(self, total: int) -> Firings:
        """The rows one after the other, where none is longer than the capacity. No synchronisation."""
        device, places = self._counts.device, self._num_rows * self._segments
        tokens = torch.empty(total, dtype=torch.int64, device=device)
        features = torch.empty(total, dtype=torch.int64, device=device)
        values = torch.empty(total, device=device)
        counts = self._counts.view(-1)
        starts = torch.cumsum(counts, 0) - counts  # int64 [places]
        if places:
            _flatten[(-(-places // _PLACES),)](
                self._features,
                self._values,
                counts,
                starts,
                *(tokens, features, values),
                places,
                SEGMENTS=self._segments,
                CAPACITY=self.capacity,
                PLACES=_PLACES,
                num_warps=4,
            )
        return Firings(tokens, features, values, self._finite.all(dim=1))


_PLACES = 8
"""Segments that one program flattens."""


@triton.jit
def _compact(  # type: ignore[no-untyped-def]
    product,
    wanted,
    bias,
    scale,
    limit,
    magnitude_scale,
    magnitude_bias,
    features,
    values,
    counts,
    finite,
    first,
    capacity,
    NUM_FEATURES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    SCALED: tl.constexpr,
    LIMITED: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """One program a row and segment: bias, activation function and the stable compaction of what is positive.

    Few of the numbers fire, so they are not compacted one by one: each 32 become one word with a bit for each that
    fires, and only the words are counted and taken apart.
    """
    row = tl.program_id(0).to(tl.int64)
    segment = tl.program_id(1)
    place = (first + row) * SEGMENTS + segment
    if tl.load(wanted + row):
        word = tl.arange(0, SEGMENT // 32)
        bit = tl.arange(0, 32)
        column = segment * SEGMENT + word[:, None] * 32 + bit[None, :]
        inside = column < NUM_FEATURES
        raw = tl.load(product + row * NUM_FEATURES + column, mask=inside, other=0.0)
        _value, fires, nothing = _activate(
            raw, column, inside, bias, scale, limit, magnitude_scale, magnitude_bias, SCALED, LIMITED, GATED
        )
        ones = tl.full([1, 32], 1, tl.uint32) << bit[None, :].to(tl.uint32)
        words = tl.sum(tl.where(fires & inside, ones, 0), axis=1).to(tl.uint32)
        count = _bits(words)
        start = tl.cumsum(count, axis=0) - count
        for number in range(tl.max(count, axis=0)):
            lowest = words & (0 - words).to(tl.uint32)
            live = lowest != 0
            index = segment * SEGMENT + word * 32 + _bits((lowest - 1).to(tl.uint32))
            one = tl.load(product + row * NUM_FEATURES + index, mask=live, other=0.0)
            strength, _, _ = _activate(
                one, index, live, bias, scale, limit, magnitude_scale, magnitude_bias, SCALED, LIMITED, GATED
            )
            fits = live & (start + number < capacity)
            tl.store(features + place * capacity + start + number, index, mask=fits)
            tl.store(values + place * capacity + start + number, strength, mask=fits)
            words = words ^ lowest
        tl.store(counts + place, tl.sum(count, axis=0))
        tl.store(finite + place, tl.sum(tl.sum(nothing, axis=1), axis=0) == 0.0)
    else:
        tl.store(counts + place, 0)
        tl.store(finite + place, True)


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
):
    """Value of the products at some columns, whether they fire, and 0, which is NaN where they are not finite."""
    value = raw + tl.load(bias + column, mask=inside, other=0.0)
    if SCALED:
        value = value * tl.load(scale + column, mask=inside, other=0.0)
    nothing = value * 0.0
    if GATED:
        open_gate = value > 0.0
        value = raw * tl.load(magnitude_scale + column, mask=inside, other=0.0)
        value = value + tl.load(magnitude_bias + column, mask=inside, other=0.0)
        nothing = nothing + value * 0.0
        fires = open_gate & (value > 0.0)
    elif LIMITED:
        fires = value > tl.load(limit + column, mask=inside, other=0.0)
    else:
        fires = value > 0.0
    return value, fires, nothing


@triton.jit
def _bits(word):  # type: ignore[no-untyped-def]
    """How many bits of uint32 words are set."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def _flatten(  # type: ignore[no-untyped-def]
    padded_features,
    padded_values,
    counts,
    starts,
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
    to = tl.load(starts + place, mask=there, other=0)
    slot = tl.arange(0, CAPACITY)
    inside = slot[None, :] < count[:, None]
    source = place[:, None] * CAPACITY + slot[None, :]
    target = to[:, None] + slot[None, :]
    feature = tl.load(padded_features + source, mask=inside, other=0)
    value = tl.load(padded_values + source, mask=inside, other=0.0)
    tl.store(tokens + target, (place // SEGMENTS)[:, None] + tl.zeros([PLACES, CAPACITY], tl.int64), mask=inside)
    tl.store(features + target, feature.to(tl.int64), mask=inside)
    tl.store(values + target, value, mask=inside)
