"""The tokens on which each feature fires most often, and those that come after its firings."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.ordering import VALUE_BITS, bits_for
from extraction_assets.engine.relations.parts import NO_TOKEN, Groups, TokenPart, row_steps
from extraction_assets.engine.relations.token_sums import (
    BYTES_PER_KEY,
    BYTES_PER_SUM,
    TokenSums,
    firing_keys,
    merge_sums,
    sums_of,
    top_pairs,
)
from extraction_assets.engine.relations.totals import Totals
from extraction_assets.engine.statistics.exact_sums import exact_sums

Place = Literal["firing", "next"]
PLACES: tuple[Place, ...] = ("firing", "next")
"""The token at which a feature fires, and the one after it in the same sample."""

TOP_TOKENS = 20

_STEP = 1 << 22
"""Firings that become keys at once: 200 MB."""

_BUCKETS_A_PASS = 8
_BUCKETS = 32
_RANGE_FEATURES = 1 << 16
_CPU = torch.device("cpu")

Update = Callable[[int], object]
"""Called with the number of features done since the last call."""


class FeatureTokens(NamedTuple):
    """Top tokens ordered by (neuron_index, rank), the most frequent first, ties to the lower token id; E in all."""

    neuron_index: np.ndarray
    """int64 [E]"""
    rank: np.ndarray
    """int64 [E], from 0."""
    token_id: np.ndarray
    """int64 [E]"""
    counts: np.ndarray
    """int64 [E]: firings with this token."""
    mean_activation: np.ndarray
    """float64 [E]: the exact sum of these firings, rounded once, by their count."""
    share: np.ndarray
    """float64 [E]: ``counts`` of all places where the token stands at a counted position (``firing``), or after one
    (``next``)."""


class Limits(NamedTuple):
    """What is kept in memory at once."""

    keys: int = 1 << 25
    """Firings, each at both places, that wait to be added up: 1.6 GB while they are."""
    sums: int = 1 << 25
    """Different (feature, place, token) and exponents: 3.2 GB at most."""


def limits_within(memory_gb: float) -> Limits:
    """Limits for so much memory (GiB), of which a half is left for what else there is; never fewer than 2^22."""
    quarter = memory_gb * 2**30 / 4
    keys, sums = (max(1 << 22, min(1 << 28, int(quarter / size))) for size in (BYTES_PER_KEY, BYTES_PER_SUM))
    return Limits(keys, sums)


def feature_tokens(
    groups: Groups,
    totals: Totals,
    device: torch.device = _CPU,
    top: int = TOP_TOKENS,
    limits: Limits | None = None,
    update: Update = lambda _: None,
) -> Iterator[dict[Place, FeatureTokens]]:
    """The top tokens of all features at both places, by ranges of features, ascending.

    Firings are counted group by group on the device. Counts and sums are whole numbers, so nothing depends on how
    samples are grouped, nor on the device. One pass over ``groups`` where the different pairs of a feature and a token
    fit ``limits``; the last features are left to a further pass where they do not. Groups that are held are passed for
    a few features at a time, so that each firing is sorted once.
    """
    limits = limits or Limits()
    token_bits = bits_for(max(1, len(totals.occurrences), len(totals.next_occurrences)))
    waiting = _buckets(totals.firings, groups.is_held, token_bits, limits)
    while waiting:
        one_pass = _Pass(waiting[: _bucket_count(waiting, totals.firings, groups.is_held, limits)], device, limits)
        one_pass.add(groups, _shown(update, one_pass, totals))
        waiting = waiting[len(one_pass.buckets) :]
        for bucket, found in zip(one_pass.buckets, one_pass.sums(), strict=True):
            yield _top_of(found, bucket, totals, top)


def feature_ranges(firings: np.ndarray, most: int, features: int = _RANGE_FEATURES) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of at most so many features with at most ``most`` firings each, or of one feature."""
    ends, start = np.cumsum(firings), 0
    while start < len(firings):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + most, side="right"))
        stop = min(max(stop, start + 1), start + features, len(firings))
        yield start, stop
        start = stop


class _Bucket:
    """Consecutive features, whose firings are sorted together."""

    def __init__(self, start: int, stop: int, token_bits: int) -> None:
        self.start, self.stop, self.token_bits = start, stop, token_bits
        self._keys: list[Tensor] = []
        self._runs: list[TokenSums] = []

    @property
    def keys(self) -> int:
        """Firings that wait."""
        return sum(map(len, self._keys))

    @property
    def entries(self) -> int:
        """Different keys that are kept."""
        return sum(len(run.keys) for run in self._runs)

    def add(self, features: Tensor, tokens: Tensor, following: Tensor, values: Tensor) -> None:
        """Firings of these features: int32 but ``values``."""
        rows = 2 * (features.to(torch.int64) - self.start)
        self._keys.append(firing_keys(rows, tokens, values, self.token_bits))
        known = (following != NO_TOKEN).nonzero().squeeze(1)
        self._keys.append(firing_keys(rows[known] + 1, following[known], values[known], self.token_bits))

    def clear(self) -> None:
        """Forget all: these features are left to a further pass."""
        self._keys, self._runs = [], []

    def add_up(self, *, whole: bool = False) -> None:
        """What waits becomes a run; runs of like size are merged, all of them with ``whole``."""
        if self._keys:
            keys, self._keys = self._keys, []
            self._runs.append(sums_of(torch.cat(keys)))
        while len(self._runs) > 1 and (whole or len(self._runs[-2].keys) < 2 * len(self._runs[-1].keys)):
            *self._runs, one, other = self._runs
            self._runs.append(merge_sums([one, other]))

    def build(self) -> TokenSums:
        """All that was added."""
        self.add_up(whole=True)
        return self._runs[0] if self._runs else sums_of(torch.zeros(0, dtype=torch.int64))


class _Pass:
    """Counts the firings of some buckets; leaves out the last ones where they are more than memory takes."""

    def __init__(self, buckets: list[_Bucket], device: torch.device, limits: Limits) -> None:
        self.buckets = buckets
        self._device, self._limits = device, limits
        self._threads = 2 if device.type == "cpu" else 1

    @property
    def stop(self) -> int:
        """One above the last feature."""
        return self.buckets[-1].stop

    def add(self, groups: Groups, seen: Callable[[int], object]) -> None:
        """All firings of these features in ``groups``; ``seen`` is called with the number of firings looked at."""
        for group in groups:
            for first, stop in row_steps(group.tokens, _STEP):
                self._add(group.tokens, first, stop)
                seen(int(group.tokens.row_pointers[stop] - group.tokens.row_pointers[first]))

    def sums(self) -> Iterator[TokenSums]:
        """Of each bucket, which is emptied."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="relations") as pool:
            waiting = [pool.submit(bucket.build) for bucket in self.buckets]
            while waiting:
                yield waiting.pop(0).result()

    def _add(self, part: TokenPart, first: int, stop: int) -> None:
        firings = _firings_of(part, first, stop, self.buckets[0].start, self.stop, self._device)
        for bucket, columns in zip(self.buckets, self._split(*firings), strict=True):
            if len(columns[0]):
                bucket.add(*columns)
        if sum(bucket.keys for bucket in self.buckets) > self._limits.keys:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="relations") as pool:
                list(pool.map(_Bucket.add_up, self.buckets))
            while len(self.buckets) > 1 and sum(bucket.entries for bucket in self.buckets) > self._limits.sums:
                self.buckets.pop().clear()

    def _split(self, features: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The columns of each bucket."""
        if len(self.buckets) == 1:
            yield features, *others
            return
        edges = torch.tensor([bucket.start for bucket in self.buckets[1:]], device=features.device)
        number = torch.bucketize(features, edges, right=True)
        order = _order_of_few(number)
        sizes = torch.bincount(number, minlength=len(self.buckets)).tolist()
        yield from zip(*(column[order].split(sizes) for column in (features, *others)), strict=True)


def _order_of_few(numbers: Tensor) -> Tensor:
    """The stable order by numbers below 256, which NumPy sorts by radix."""
    small = numbers.to(torch.uint8)
    if small.device.type == "cpu":
        return torch.from_numpy(np.argsort(small.numpy(), kind="stable"))
    return torch.sort(small, stable=True).indices


def _firings_of(
    part: TokenPart, first: int, stop: int, start_feature: int, stop_feature: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(feature, token, next token: int32; value) of the firings of some features in rows ``first:stop``."""
    pointers = part.row_pointers[first : stop + 1]
    span = slice(int(pointers[0]), int(pointers[-1]))
    features, values, tokens, following, lengths = (
        torch.from_numpy(column).to(device)
        for column in (
            part.feature_ids[span],
            part.values[span],
            part.token_ids[first:stop],
            part.next_ids[first:stop],
            np.diff(pointers),
        )
    )
    count = span.stop - span.start
    rows = torch.repeat_interleave(torch.arange(stop - first, device=device), lengths, output_size=count)
    if start_feature > 0 or stop_feature < part.num_features:
        chosen = ((features >= start_feature) & (features < stop_feature)).nonzero().squeeze(1)
        features, values, rows = features[chosen], values[chosen], rows[chosen]
    return features, tokens[rows], following[rows], values


def _buckets(firings: np.ndarray, is_held: bool, token_bits: int, limits: Limits) -> list[_Bucket]:
    """Buckets of like size: as many as a thread sorts soon, but not more than firings are divided into soon."""
    most = limits.keys // (2 * _BUCKETS_A_PASS)
    if not is_held:
        most = max(most, int(firings.sum()) // _BUCKETS)
    features = 1 << (63 - VALUE_BITS - token_bits - 1)  # two rows each
    return [_Bucket(start, stop, token_bits) for start, stop in feature_ranges(firings, most, features)]


def _bucket_count(waiting: list[_Bucket], firings: np.ndarray, is_held: bool, limits: Limits) -> int:
    """How many are counted in one pass: of groups that are held those that are sorted once; else all, at most 256."""
    if not is_held:
        return min(len(waiting), 256)
    sizes = [2 * int(firings[bucket.start : bucket.stop].sum()) for bucket in waiting[:256]]
    return max(1, int(np.searchsorted(np.cumsum(sizes), limits.keys, side="right")))


def _shown(update: Update, one_pass: _Pass, totals: Totals) -> Callable[[int], object]:
    """Tells the progress of a pass in features, as a share of the firings looked at."""
    start, whole = one_pass.buckets[0].start, max(1, int(totals.firings.sum()))
    looked_at, shown = 0, 0

    def seen(count: int) -> None:
        nonlocal looked_at, shown
        looked_at += count
        done = (one_pass.stop - start) * looked_at // whole
        if done > shown:
            update(done - shown)
            shown = done

    return seen


def _top_of(found: TokenSums, bucket: _Bucket, totals: Totals, top: int) -> dict[Place, FeatureTokens]:
    pairs = top_pairs(found, 2 * (bucket.stop - bucket.start), bucket.token_bits, top)
    means = exact_sums(pairs.offsets, pairs.limbs, pairs.sums) / pairs.counts
    feature, place = pairs.row // 2 + bucket.start, pairs.row % 2
    tables = {}
    for number, (name, there) in enumerate(zip(PLACES, (totals.occurrences, totals.next_occurrences), strict=True)):
        at = place == number
        token, counts = pairs.token[at], pairs.counts[at]
        tables[name] = FeatureTokens(feature[at], pairs.rank[at], token, counts, means[at], counts / there[token])
    return tables
