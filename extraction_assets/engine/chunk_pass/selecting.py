"""From the features of some samples to what an SAE's pass adds up, in plain PyTorch or by kernels."""

from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.context import PassContext
from extraction_assets.engine.chunk_pass.staging import read_together
from extraction_assets.engine.saes.activation import has_triton
from extraction_assets.engine.selection.draws import DrawHeap, DrawThresholds, select_with_draws
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.selection.pairs import FiringPairs, pairs_above
from extraction_assets.engine.selection.select import sample_maxima, select_top_k
from extraction_assets.engine.selection.sequential_draws import LegacyDraws
from extraction_assets.engine.selection.sequential_loop import LegacyHeaps
from extraction_assets.engine.selection.sparse import keep_counted, row_ends, rows_between, rows_of_samples, to_rows
from extraction_assets.engine.shapes import Draws, FeatureRows, SparseFeatures, TopKTable
from extraction_assets.engine.statistics.accumulate import (
    StatisticsUpdate,
    described,
    statistics_update,
)


class SaeBatch(NamedTuple):
    """Everything that one vectorization batch gives."""

    start: int
    stop: int
    features: SparseFeatures
    """At wanted positions."""
    counted_features: SparseFeatures
    rows: FeatureRows | None
    """The features as they are stored, if they are."""
    table: TopKTable | None
    """None where the sequential loop makes it, and so the next."""
    draws: Draws | None
    sampled: FeatureRows | None
    """The counted firings of the samples that are kept, if some of these are."""
    statistics: StatisticsUpdate
    maxima: Tensor | None = None
    """float32 [F, n], where kernels count the statistics."""
    activations: Tensor | None = None
    target: Tensor | None = None


class NonFinite(NamedTuple):
    """Which tokens of a group of samples are not finite, if any: not yet looked at."""

    wrong: Tensor
    """bool [n, T]: counted positions with a NaN or an infinity."""
    activations: Tensor
    """[n, T, D]"""
    start: int
    hook: str
    sae: str

    def refuse(self, shared: PassContext) -> None:
        """Raises NonFiniteError if there is one. A NaN in the hook's output is a NaN in the pre-activations too; the
        message names the first module that gives one. One synchronisation, more if there is one."""
        if bool(self.wrong.any()):
            what = f"the output of hook {self.hook!r}, which SAE {self.sae!r} reads,"
            shared.refuse_non_finite(self.activations, self.start, what)
            shared.raise_for(self.wrong, self.start, f"the pre-activations of SAE {self.sae!r} at {self.hook!r}")


class PlainSelector:
    """Examples and statistics of some samples, in plain PyTorch. Pure: leaves no trace."""

    def __init__(
        self,
        shared: PassContext,
        counted: Tensor,
        heap: DeferredTopKHeap | LegacyHeaps,
        draws: DrawHeap | LegacyDraws | None,
        *,
        features_everywhere: bool,
    ) -> None:
        self._shared, self._settings, self._counted = shared, shared.settings, counted
        self._heap, self._draws, self._features_everywhere = heap, draws, features_everywhere

    def select(self, start: int, features: SparseFeatures, suspects: NonFinite | None = None) -> SaeBatch:
        """``features`` are those of samples from ``start`` on at wanted positions; raises NonFiniteError for
        ``suspects``. Four synchronisations, ten with draws."""
        if suspects is not None:
            suspects.refuse(self._shared)
        counted = self._counted_alone(start, features)
        maxima = sample_maxima(counted)
        pairs = None if self._settings.draws is None else pairs_above(maxima)
        table, draws = self._examples(start, counted, maxima, pairs)
        chosen = self._shared.sampled_between(start, start + features.num_samples)
        sampled = None if chosen is None else rows_of_samples(counted, chosen)
        statistics = statistics_update(counted, maxima, pairs)
        return self._batch(start, features, counted, table, draws, sampled)._replace(statistics=statistics)

    def _examples(
        self, start: int, features: SparseFeatures, maxima: Tensor, pairs: FiringPairs | None
    ) -> tuple[TopKTable | None, Draws | None]:
        """None where the sequential loop makes them."""
        if not isinstance(self._heap, DeferredTopKHeap):
            return None, None
        device, top_k = self._shared.device, self._settings.top_k
        first_sample, floor = self._shared.samples.first_sample + start, self._heap.floor(device)
        if pairs is None or not isinstance(self._draws, DrawHeap):
            return select_top_k(features, maxima, first_sample, top_k, floor), None
        order, thresholds = self._draws.order, self._draws.thresholds(device)
        return select_with_draws(features, pairs, first_sample, top_k, floor, order, thresholds)

    def _counted_alone(self, start: int, features: SparseFeatures) -> SparseFeatures:
        if self._shared.all_count or not self._features_everywhere:
            return features
        return keep_counted(features, self._counted[start : start + features.num_samples])

    def _batch(
        self,
        start: int,
        features: SparseFeatures,
        counted: SparseFeatures,
        table: TopKTable | None,
        draws: Draws | None,
        sampled: FeatureRows | None,
    ) -> SaeBatch:
        rows = to_rows(features) if self._settings.keep_features else None
        return SaeBatch(start, start + features.num_samples, features, counted, rows, table, draws, sampled, {})


class KernelSelector(PlainSelector):
    """The same by kernels, which find what may still enter; the heaps do the rest. One synchronisation."""

    def select(self, start: int, features: SparseFeatures, suspects: NonFinite | None = None) -> SaeBatch:
        from extraction_assets.engine.selection.kernels import Contenders, pair_maxima

        counted = self._counted_alone(start, features)
        maxima = pair_maxima(counted)
        assert isinstance(self._heap, DeferredTopKHeap)
        floor, first_sample = self._heap.floor(self._shared.device), self._shared.samples.first_sample + start
        contenders = Contenders(counted, maxima, first_sample, floor, self._thresholds())
        chosen = self._shared.sampled_between(start, start + features.num_samples)
        ends = None if chosen is None else row_ends(counted, chosen)
        none = contenders.sizes[:0]
        sizes, bounds, non_finite = read_together(
            [
                contenders.sizes,
                none if ends is None else ends[:, :: counted.num_positions],
                none if suspects is None else suspects.wrong.any().long()[None],
            ]
        )
        if suspects is not None and any(non_finite):
            suspects.refuse(self._shared)
        sampled = None if ends is None else rows_between(counted, ends, bounds)
        if contenders.fits(sizes):
            batch = self._batch(start, features, counted, *contenders.collect(sizes), sampled)
        else:
            pairs = None if self._settings.draws is None else pairs_above(maxima.t())
            table, draws = self._examples(start, counted, maxima.t(), pairs)
            batch = self._batch(start, features, counted, table, draws, sampled)
        return batch._replace(maxima=maxima, statistics=self._uncounted(counted, maxima.t()))

    def _uncounted(self, features: SparseFeatures, maxima: Tensor) -> StatisticsUpdate:
        """What no kernel counts."""
        full = self._settings.draws is not None
        uncounted = described(full=full, without_kernel=True)
        pairs = pairs_above(maxima) if any(one.only_full for one in uncounted) else None
        return statistics_update(features, maxima, pairs, without_kernel=True)

    def _thresholds(self) -> DrawThresholds | None:
        if not isinstance(self._draws, DrawHeap):
            return None
        return DrawThresholds(self._draws.thresholds(self._shared.device), self._draws.order.rules.draw_seed)


def selector_for(device: torch.device, *, vectorized: bool) -> type[PlainSelector]:
    """How examples are selected on a device."""
    return KernelSelector if vectorized and device.type == "cuda" and has_triton() else PlainSelector
