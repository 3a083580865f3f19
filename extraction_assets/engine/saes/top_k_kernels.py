"""Triton kernels that select a token's k largest pre-activations without sorting them all.

A few columns give each token a bound: the k-th largest maximum of groups of them is at most the k-th largest of all.
Few values reach the bound, and the kernels of the other architectures find them in one read; among these the k
largest are selected. Values are compared by their bits: those of positive float32 numbers order like integers, those of
negative ones are negative, and NaN, which CUDA's arithmetic gives as 0x7FFFFFFF alone, is above all, as in a sort.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from extraction_assets.engine.saes.activation import ActivationFunction
from extraction_assets.engine.saes.kernels import PaddedRows

_LEAST_GROUPS, _MOST_GROUPS = 256, 16_384
_MOST_SLOTS = 8192
"""Candidates that one program holds in registers."""
_GATHERED_SEGMENTS = 16
"""Places of a row, up to which the candidates of all of them are held without the gaps between."""
_MANY_ROWS = 2048
"""Rows from which one warp for each occupies a GPU."""


def bounds_of(product: Tensor, wanted: Tensor, activation: ActivationFunction, k: int, columns: int) -> Tensor:
    """Bits that a value must reach to be among a row's k largest positive ones, from the last ``columns`` of
    ``product`` [r, f], which begins with feature 0 -> int32 [r], at least 1; undefined where not wanted. No
    synchronisation. The last columns are those that the cache holds most likely.

    About 1.2 k F / ``columns`` values of a row reach them if no features are stronger than others as a rule.
    """
    rows = len(product)
    bounds = torch.empty(rows, dtype=torch.int32, device=product.device)
    groups = min(max(_LEAST_GROUPS, 4 * triton.next_power_of_2(k)), _MOST_GROUPS)
    warps, block = (1, 1024) if rows >= _MANY_ROWS else (4, 8192)
    _bounds[(rows,)](
        product,
        wanted,
        activation.bias,
        activation.bias if activation.scale is None else activation.scale,
        bounds,
        product.shape[1] - columns,
        product.shape[1],
        product.stride(0),
        k,
        GROUPS=groups,
        BLOCK=max(groups, min(block, triton.next_power_of_2(columns))),
        SCALED=activation.scale is not None,
        num_warps=warps if groups <= 1024 else 8,
        enable_fp_fusion=False,
    )
    return bounds


@triton.jit
def _bounds(  # type: ignore[no-untyped-def]
    product,
    wanted,
    bias,
    scale,
    bounds,
    begin,
    columns,
    stride,
    k,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALED: tl.constexpr,
):
    """One program a row: maxima of groups of columns, and by bisection a number that k of them reach."""
    row = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    if tl.load(wanted + row):
        best = tl.zeros([BLOCK], tl.int32)
        for start in range(begin, columns, BLOCK):
            column = start + tl.arange(0, BLOCK)
            inside = column < columns
            value = tl.load(product + row * stride + column, mask=inside, other=0.0)
            value = value + tl.load(bias + column, mask=inside, other=0.0)
            if SCALED:
                value = value * tl.load(scale + column, mask=inside, other=0.0)
            best = tl.maximum(best, tl.where(inside, value.to(tl.int32, bitcast=True), 0))
        if BLOCK > GROUPS:
            best = tl.max(tl.reshape(best, [BLOCK // GROUPS, GROUPS]), axis=0)
        high = tl.minimum(tl.max(best, axis=0), 0x7F800000)  # a NaN is no bound: nothing is below it
        low = tl.full([], 1, tl.int32)
        if k <= GROUPS:
            low = tl.minimum(tl.maximum(tl.min(best, axis=0), 1), tl.maximum(high, 1))
        reaching = tl.sum((best >= low).to(tl.int32), axis=0)
        above = tl.full([], 0, tl.int32)
        # low is reached by at least k, or is 1; high + 1 by fewer, unless high is infinite
        slack = k + k // 16
        while (low < high) & (reaching > slack):
            quarter, half, most = _quarters(low, high)
            packed = _reaching(best, quarter, half, most, GROUPS)
            low, high, reaching, above = _narrowed(low, high, reaching, above, quarter, half, most, packed, GROUPS, k)
        tl.store(bounds + row, low)


@triton.jit
def _quarters(low, high):  # type: ignore[no-untyped-def]
    """Three numbers above ``low``, ascending and at most ``high``, which is larger, that split what is between."""
    step = ((high - low) >> 2) + (((high - low) & 3) != 0).to(tl.int32)
    quarter = low + step
    half = quarter + tl.minimum(step, high - quarter)  # never beyond int32
    return quarter, half, half + tl.minimum(step, high - half)


@triton.jit
def _reaching(keys, quarter, half, most, MOST: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many of at most ``MOST`` keys reach each of three numbers, in one number: reductions take the most time."""
    if MOST < 1024:
        packed = (keys >= quarter).to(tl.int32) + ((keys >= half).to(tl.int32) << 10)
        packed += (keys >= most).to(tl.int32) << 20
    else:
        packed = (keys >= quarter).to(tl.int64) + ((keys >= half).to(tl.int64) << 21)
        packed += (keys >= most).to(tl.int64) << 42
    return tl.sum(packed, axis=0)


@triton.jit
def _narrowed(low, high, reaching, above, quarter, half, most, packed, MOST: tl.constexpr, k):  # type: ignore[no-untyped-def]
    """Bounds of the k-th largest: ``low``, which ``reaching`` >= k reach, and ``high``, beyond which are ``above`` < k;
    from how many reach the three numbers between."""
    width: tl.constexpr = 10 if MOST < 1024 else 21
    mask: tl.constexpr = (1 << width) - 1
    one = (packed & mask).to(tl.int32)
    two = ((packed >> width) & mask).to(tl.int32)
    three = (packed >> (2 * width)).to(tl.int32)
    high = tl.where(one < k, quarter - 1, tl.where(two < k, half - 1, tl.where(three < k, most - 1, high)))
    above = tl.where(one < k, one, tl.where(two < k, two, tl.where(three < k, three, above)))
    low = tl.where(three >= k, most, tl.where(two >= k, half, tl.where(one >= k, quarter, low)))
    reaching = tl.where(three >= k, three, tl.where(two >= k, two, tl.where(one >= k, one, reaching)))
    return low, high, reaching, above


def select(
    candidates: PaddedRows, rows: int, k: int, selected: PaddedRows, first: int, fullest: Tensor, expected: int
) -> None:
    """The k largest of each of the first ``rows`` rows of ``candidates``, ties to the lower feature, without NaNs, to
    rows ``first`` on of ``selected`` (one segment a row); to ``fullest`` (int32 [N]) how many candidates its fullest
    place had. Fastest where a row has at most ``expected`` candidates. Never synchronises."""
    gathered = candidates.segments <= _GATHERED_SEGMENTS
    span = triton.next_power_of_2(candidates.segments) * candidates.capacity
    slots = min(_MOST_SLOTS, span, triton.next_power_of_2(max(128, expected)) if gathered else span)
    _select[(rows,)](
        candidates.firings,
        candidates.counts,
        candidates.finite,
        selected.firings,
        selected.counts,
        selected.finite,
        fullest,
        first,
        k,
        selected.capacity,
        SEGMENTS=candidates.segments,
        CAPACITY=candidates.capacity,
        SEGMENT_BLOCK=triton.next_power_of_2(candidates.segments),
        SLOTS=slots,
        GATHERED=gathered,
        num_warps=max(1, min(8, slots // 512)),
    )


@triton.jit
def _select(  # type: ignore[no-untyped-def]
    firings,
    counts,
    finite,
    chosen,
    chosen_counts,
    chosen_finite,
    fullest,
    first,
    k,
    width,
    SEGMENTS: tl.constexpr,
    CAPACITY: tl.constexpr,
    SEGMENT_BLOCK: tl.constexpr,
    SLOTS: tl.constexpr,
    GATHERED: tl.constexpr,
):
    """One program a row. Candidates that do not fit the registers are read again at each step of the bisection."""
    row = tl.program_id(0).to(tl.int64)
    firings += row * SEGMENTS * CAPACITY
    counts += row * SEGMENTS
    chosen += (first + row) * width
    segment = tl.arange(0, SEGMENT_BLOCK)
    there = segment < SEGMENTS
    count = tl.load(counts + segment, mask=there, other=0)
    whole = tl.load(finite + row * SEGMENTS + segment, mask=there, other=1).to(tl.int32)
    tl.store(chosen_finite + first + row, tl.min(whole, axis=0) == 1)
    tl.store(fullest + first + row, tl.max(count, axis=0))
    total = tl.sum(tl.minimum(count, CAPACITY), axis=0)
    fits = SEGMENT_BLOCK * CAPACITY <= SLOTS
    if GATHERED:
        fits = total <= SLOTS
    # at least k reach low and fewer than k reach high + 1, if more than k are there; above reach high + 1. No key is
    # negative, of which the difference to a NaN's would not fit
    low = tl.full([], 0, tl.int32)
    high = tl.full([], 0x7FFFFFFF, tl.int32)
    reaching = total
    above = tl.full([], 0, tl.int32)
    written = tl.full([], 0, tl.int32)
    equals = tl.full([], 0, tl.int32)
    if fits:
        place, live = _places(counts, 0, total, SEGMENTS, CAPACITY, SLOTS, GATHERED)
        firing = tl.load(firings + place, mask=live, other=0)
        key = firing.to(tl.int32)
        high = tl.max(key, axis=0)
        low = tl.min(tl.where(live, key, high), axis=0)
        while (reaching > k) & (low < high):
            quarter, half, most = _quarters(low, high)
            packed = _reaching(key, quarter, half, most, SLOTS)
            low, high, reaching, above = _narrowed(low, high, reaching, above, quarter, half, most, packed, SLOTS, k)
        written, equals = _write(chosen, written, equals, firing, key, low, reaching, above, k)
    else:
        while (reaching > k) & (low < high):
            quarter, half, most = _quarters(low, high)
            packed = tl.full([], 0, tl.int64)
            for start in range(0, SEGMENT_BLOCK * CAPACITY, SLOTS):
                place, live = _places(counts, start, total, SEGMENTS, CAPACITY, SLOTS, False)
                key = tl.load(firings + place, mask=live, other=0).to(tl.int32)
                packed += _reaching(key, quarter, half, most, 1024)
            low, high, reaching, above = _narrowed(low, high, reaching, above, quarter, half, most, packed, 1024, k)
        for start in range(0, SEGMENT_BLOCK * CAPACITY, SLOTS):
            place, live = _places(counts, start, total, SEGMENTS, CAPACITY, SLOTS, False)
            firing = tl.load(firings + place, mask=live, other=0)
            written, equals = _write(chosen, written, equals, firing, firing.to(tl.int32), low, reaching, above, k)
    tl.store(chosen_counts + first + row, written)


@triton.jit
def _places(  # type: ignore[no-untyped-def]
    counts,
    start,
    total,
    SEGMENTS: tl.constexpr,
    CAPACITY: tl.constexpr,
    SLOTS: tl.constexpr,
    GATHERED: tl.constexpr,
):
    """Where candidates ``start`` on of a row stand, if GATHERED without the gaps between its segments, and whether
    there are so many."""
    place = start + tl.arange(0, SLOTS)
    if GATHERED:
        live = place < total
        number, end = place, 0
        for segment in tl.static_range(SEGMENTS):
            count = tl.minimum(tl.load(counts + segment), CAPACITY)
            end += count
            place += tl.where(number >= end, CAPACITY - count, 0)
    else:
        segment = place // CAPACITY
        live = place % CAPACITY < tl.load(counts + segment, mask=segment < SEGMENTS, other=0)
    return place, live


@triton.jit
def _write(chosen, written, equals, firing, key, low, reaching, above, k):  # type: ignore[no-untyped-def]
    """Writes those that exceed ``low``, and of those that equal it the first, k in all; how many are written and equal
    so far."""
    keep = key > low
    is_equal = (key == low) & (key > 0)
    if reaching > k:
        order = tl.cumsum(is_equal.to(tl.int32), axis=0) + equals
        keep = keep | (is_equal & (order <= k - above))
        equals += tl.sum(is_equal.to(tl.int32), axis=0)
    else:
        keep = keep | is_equal
    keep = keep & (key <= 0x7F800000)  # a NaN takes a place and does not fire
    kept = keep.to(tl.int32)
    tl.store(chosen + written + tl.cumsum(kept, axis=0) - 1, firing, mask=keep)
    return written + tl.sum(kept, axis=0), equals
