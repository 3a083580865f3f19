"""One SAE's share of a pass over a chunk: encode, select, count."""

from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.context import PassContext
from extraction_assets.engine.chunk_pass.sae_result import UnfinishedSae
from extraction_assets.engine.chunk_pass.sampled_rows import SampledRows
from extraction_assets.engine.chunk_pass.staging import read_together
from extraction_assets.engine.memory import within_memory
from extraction_assets.engine.saes.activation import has_triton
from extraction_assets.engine.saes.sae import SAE, VarianceExplained, matmul_precision
from extraction_assets.engine.selection.draws import DrawHeap, select_with_draws
from extraction_assets.engine.selection.legacy import LegacyHeaps
from extraction_assets.engine.selection.legacy_draws import LegacyDraws
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.selection.pairs import FiringPairs, pairs_above
from extraction_assets.engine.selection.select import sample_maxima, select_top_k
from extraction_assets.engine.selection.sparse import (
    each_sample,
    keep_counted,
    no_rows,
    row_ends,
    rows_between,
    rows_of_samples,
    take_rows,
    take_samples,
    to_dense,
    to_rows,
)
from extraction_assets.engine.selection.statistics.accumulate import (
    StatisticsAccumulator,
    StatisticsUpdate,
    statistics_update,
)
from extraction_assets.engine.shapes import Draws, FeatureRows, SparseFeatures, TopKTable

RECONSTRUCTION_SAMPLES = 32
"""Samples of each chunk whose reconstruction is scored."""

_TILE_BYTES = 128 << 20
_TILE_TOKENS = 2048


class SaeTask(NamedTuple):
    """One SAE to run over a chunk."""

    name: str
    hook: str
    sae: SAE
    stored_features: FeatureRows | None = None
    """Encoded features of the whole chunk on the CPU, if they need not be computed."""
    hook_out: str | None = None
    """Whose activations the SAE reconstructs, if not those that it reads."""


def tile_samples(batch_size: int, num_positions: int, num_features: int) -> int:
    """Samples whose tokens are encoded in one matrix product.

    As many as divide the forward batch and give at most 128 MiB of dense features and 2,048 tokens; at least one.
    Larger products are no faster, and far smaller ones are slower on any device.
    """
    fits = min(_TILE_BYTES // (num_positions * num_features * 4), _TILE_TOKENS // num_positions)
    return max([count for count in range(1, batch_size + 1) if batch_size % count == 0 and count <= fits], default=1)


def kernels_run_on(device: torch.device) -> bool:
    """Whether examples are selected and statistics counted by Triton kernels."""
    return device.type == "cuda" and has_triton()


class _Batch(NamedTuple):
    """Everything that one vectorization batch gives."""

    start: int
    stop: int
    activations: Tensor | None
    target: Tensor | None
    features: SparseFeatures
    counted_features: SparseFeatures
    rows: FeatureRows | None
    """The features as they are stored, if they are."""
    table: TopKTable | None
    draws: Draws | None
    sampled: FeatureRows | None
    """The counted firings of the samples that are kept, if some of these are."""
    statistics: StatisticsUpdate
    maxima: Tensor | None = None
    """float32 [F, n], where kernels count the statistics."""


class _Doubt(NamedTuple):
    """Whether a group of samples holds a NaN or an infinity, which is looked at together with other numbers."""

    wrong: Tensor
    """bool [n, T]: counted positions that are not finite."""
    activations: Tensor
    """[n, T, D]"""
    start: int


class SaePass:
    """One SAE's share of a pass: encode, select, count."""

    def __init__(self, task: SaeTask, shared: PassContext) -> None:
        self.task, self._shared, self._settings = task, shared, shared.settings
        if task.stored_features is not None and shared.settings.exclude_outlier_norms is not None:
            raise ValueError(f"SAE {task.name!r}: outlier norms need activations, not stored features")
        self._counted = shared.counted_at(task.hook)
        num_positions, latent_dim = shared.samples.token_ids.shape[1], task.sae.latent_dim
        self._tile = (
            None if task.stored_features else tile_samples(self._settings.batch_size, num_positions, latent_dim)
        )
        rules = self._settings.draws
        self._heap: DeferredTopKHeap | LegacyHeaps
        self._draws: DrawHeap | LegacyDraws | None = None
        if self._settings.vectorized:
            self._heap = DeferredTopKHeap(latent_dim, self._settings.top_k, self._settings.min_activation)
            self._draws = None if rules is None else DrawHeap(latent_dim, rules)
        else:
            self._draws = None if rules is None else LegacyDraws(rules)
            self._heap = LegacyHeaps(latent_dim, self._settings.top_k, self._settings.min_activation, self._draws)
        self._statistics = StatisticsAccumulator(latent_dim, shared.device, full=rules is not None)
        self._sampled = None if rules is None else SampledRows(no_rows(num_positions, latent_dim), shared.staging)
        self._by_kernels = self._settings.vectorized and kernels_run_on(shared.device)
        self._all_finite = torch.ones((), dtype=torch.bool, device=shared.device)
        self._features: list[FeatureRows] = []
        self._probe: dict[int, SparseFeatures] = {}
        self._explained, self._num_scored = VarianceExplained(), 0

    def add(self, start: int, stop: int, activations: Tensor | None, target: Tensor | None = None) -> None:
        """Samples ``start:stop`` of the chunk, with the hook's output [stop - start, T, D] if it was computed, and
        that of ``hook_out`` [stop - start, T, D_out] if the SAE has one."""

        def work(first: int, last: int) -> list[_Batch]:
            inputs = None if activations is None else activations[first:last]
            return self._reduce(start + first, start + last, inputs, None if target is None else target[first:last])

        for batches in self._shared.batch.map(stop - start, work, self._tile or 1):
            with self._shared.clock.stage("select"):
                for batch in batches:
                    self._take(batch)
            del batches, batch  # otherwise a batch would be kept while the next one is made

    def finish(self) -> UnfinishedSae:
        """The chunk's results, queued to be copied to the host."""
        staging = self._shared.staging
        return UnfinishedSae(
            table=staging.copy_fields(self._heap.build_heaps()),
            statistics=staging.copy_fields(self._statistics.build()),
            features=self._features,
            probe=self._probe,
            variance_explained=staging.copy(self._explained.value()) if self.task.sae.reconstructs else None,
            all_finite=staging.copy(self._all_finite),
            encode_tile_tokens=self._tile and self._tile * self._shared.samples.token_ids.shape[1],
            draws=None if self._draws is None else staging.copy_fields(self._draws.build_heaps()),
            sampled=None if self._sampled is None else self._sampled.finish(),
            sampled_index=torch.tensor(self._shared.sampled_rows, dtype=torch.int64)
            + self._shared.samples.first_sample,
        )

    def _reduce(self, start: int, stop: int, activations: Tensor | None, target: Tensor | None) -> "list[_Batch]":
        """Pure: leaves no trace unless it returns, so that it can be repeated on half of the range.

        One batch, or several where not even one tile may be reduced at once.
        """
        shared, size = self._shared, self._shared.batch.size
        with shared.clock.stage("encode"):
            features, doubt = self._features_of(start, stop, activations)
        if doubt is not None and not self._by_kernels:
            self._refuse(doubt) if bool(doubt.wrong.any()) else None
        batches = []
        with shared.clock.stage("select"):
            for first in range(0, stop - start, size):
                last = min(first + size, stop - start)
                part = take_samples(features, first, last)
                inputs, outputs = (None if x is None else x[first:last] for x in (activations, target))
                if self._by_kernels:
                    batches.append(self._select_by_kernels(start + first, part, inputs, outputs, doubt))
                    doubt = None
                else:
                    batches.append(self._select(start + first, part, inputs, outputs))
        return batches

    def _select_by_kernels(
        self,
        start: int,
        features: SparseFeatures,
        activations: Tensor | None,
        target: Tensor | None,
        doubt: _Doubt | None,
    ) -> "_Batch":
        """As ``_select``, with one synchronisation."""
        from extraction_assets.engine.selection.kernels import Contenders, DrawThresholds, pair_maxima

        assert isinstance(self._heap, DeferredTopKHeap)
        stop, device = start + features.num_samples, self._shared.device
        counted = self._counted_alone(features, start)
        maxima, first_sample = pair_maxima(counted), self._shared.samples.first_sample + start
        drawn = None
        if isinstance(self._draws, DrawHeap):
            drawn = DrawThresholds(self._draws.thresholds(device), self._draws.order.rules.draw_seed)
        contenders = Contenders(counted, maxima, first_sample, self._heap.floor(device), drawn)
        chosen = self._shared.sampled_between(start, stop)
        ends = None if chosen is None else row_ends(counted, chosen)
        numbers = [contenders.sizes]
        if doubt is not None:
            numbers.append(doubt.wrong.any().long()[None])
        if ends is not None:
            numbers.append(ends[:, :: counted.num_positions].flatten())
        sizes, *others = read_together(numbers)
        if doubt is not None and others.pop(0)[0]:
            self._refuse(doubt)
        table: TopKTable | None
        draws: Draws | None
        if contenders.fits(sizes):
            table, draws = contenders.collect(sizes)
        else:
            by_sample = maxima.t().contiguous()
            table, draws = self._examples(start, counted, by_sample, pairs_above(by_sample) if drawn else None)
        return _Batch(
            start,
            stop,
            activations,
            target,
            features,
            counted,
            rows=to_rows(features) if self._settings.keep_features else None,
            table=table,
            draws=draws,
            sampled=None if ends is None else rows_between(counted, ends, others[0]),
            statistics={},
            maxima=maxima,
        )

    def _counted_alone(self, features: SparseFeatures, start: int) -> SparseFeatures:
        if self._shared.all_count or not self._features_everywhere:
            return features
        return keep_counted(features, self._counted[start : start + features.num_samples])

    def _select(
        self, start: int, features: SparseFeatures, activations: Tensor | None, target: Tensor | None
    ) -> "_Batch":
        """Pure. The table and the statistics of some samples' features at wanted positions."""
        stop = start + features.num_samples
        counted_features = self._counted_alone(features, start)
        maxima = sample_maxima(counted_features)
        pairs = None if self._settings.draws is None else pairs_above(maxima)
        table, draws = self._examples(start, counted_features, maxima, pairs)
        chosen = self._shared.sampled_between(start, stop)
        return _Batch(
            start,
            stop,
            activations,
            target,
            features,
            counted_features,
            rows=to_rows(features) if self._settings.keep_features else None,
            table=table,
            draws=draws,
            sampled=None if chosen is None else rows_of_samples(counted_features, chosen),
            statistics=statistics_update(counted_features, maxima, pairs),
        )

    def _examples(
        self, start: int, features: SparseFeatures, maxima: Tensor, pairs: FiringPairs | None
    ) -> tuple[TopKTable | None, Draws | None]:
        """The table and the draws of samples from ``start`` on; None where the sequential loop makes them."""
        if not isinstance(self._heap, DeferredTopKHeap):
            return None, None
        device, top_k = self._shared.device, self._settings.top_k
        first_sample, floor = self._shared.samples.first_sample + start, self._heap.floor(device)
        if pairs is None or not isinstance(self._draws, DrawHeap):
            return select_top_k(features, maxima, first_sample, top_k, floor), None
        return select_with_draws(
            features, pairs, first_sample, top_k, floor, self._draws.order, self._draws.thresholds(device)
        )

    @property
    def _features_everywhere(self) -> bool:
        """Whether features stand at all non-padding positions, not at counted ones alone."""
        return self._settings.keep_features or self.task.stored_features is not None

    def _features_of(self, start: int, stop: int, activations: Tensor | None) -> tuple[SparseFeatures, _Doubt | None]:
        """Features of samples ``start:stop`` at the positions that are wanted."""
        if self.task.stored_features is not None:
            return take_rows(self.task.stored_features, start, stop, self._shared.device), None
        if activations is None or self._tile is None:
            raise ValueError(f"SAE {self.task.name!r} has neither stored features nor hook outputs to encode")
        count, num_positions, width = activations.shape
        filler = -count % self._tile  # at the end of the chunk
        wanted = (self._shared.attention_mask if self._features_everywhere else self._counted)[start:stop]
        if filler:
            activations = torch.nn.functional.pad(activations, (0, 0, 0, 0, 0, filler))
            wanted = torch.nn.functional.pad(wanted, (0, 0, 0, filler))
        with matmul_precision(self._settings.matmul_precision):
            firings = self.task.sae.encode_sparse(
                activations.reshape(-1, width), self._tile * num_positions, wanted.reshape(-1)
            )
        finite = firings.finite.view(-1, num_positions)[:count]
        self._all_finite &= finite.all()
        features = SparseFeatures(*firings[:3], count, num_positions, self.task.sae.latent_dim)
        return features, _Doubt(self._counted[start:stop] & ~finite, activations[:count], start)

    def _refuse(self, doubt: _Doubt) -> None:
        """A NaN in the hook's output is a NaN in the pre-activations too, so one check is enough. The message names the
        first module that gives one."""
        hook, name = self.task.hook, self.task.name
        self._shared.refuse_non_finite(
            doubt.activations, doubt.start, f"the output of hook {hook!r}, which SAE {name!r} reads,"
        )
        self._shared.raise_for(doubt.wrong, doubt.start, f"the pre-activations of SAE {name!r} at {hook!r}")

    def _take(self, batch: "_Batch") -> None:
        """The one place where a batch's results are added up."""
        tokens = self._shared.tokens_counted(self.task.hook, batch.start, batch.stop)
        if batch.maxima is not None:
            self._statistics.count(batch.counted_features, batch.maxima)
        self._statistics.add(batch.statistics, batch.stop - batch.start, tokens)
        if isinstance(self._heap, DeferredTopKHeap):
            assert batch.table is not None
            self._heap.add_batch(batch.table)
        else:
            self._add_to_legacy(self._heap, batch)
        if isinstance(self._draws, DrawHeap):
            assert batch.draws is not None
            self._draws.add_batch(batch.draws)
        if batch.sampled is not None and self._sampled is not None:
            self._sampled.add(batch.sampled)
        if batch.rows is not None:
            self._features.append(self._shared.staging.copy_fields(batch.rows))
        for row in sorted(self._shared.probe_rows & set(range(batch.start, batch.stop))):
            one = take_samples(batch.counted_features, row - batch.start, row - batch.start + 1)
            self._probe[row] = self._shared.staging.copy_fields(one)
        self._score(batch)

    def _add_to_legacy(self, heaps: LegacyHeaps, batch: "_Batch") -> None:
        """The sequential loop: one sample after the other, one feature after the other."""
        for row in range(batch.start, batch.stop):
            one = take_samples(batch.features, row - batch.start, row - batch.start + 1)
            samples = self._shared.samples
            heaps.add_sample(to_dense(one)[0], self._counted[row].cpu(), samples.first_sample + row)

    def _score(self, batch: "_Batch") -> None:
        """Reconstructions of the chunk's first samples, for the variance that the SAE explains."""
        if not self.task.sae.reconstructs:
            return
        count = min(batch.stop - batch.start, RECONSTRUCTION_SAMPLES - self._num_scored)
        target = batch.activations if self.task.hook_out is None else batch.target
        if batch.activations is None or target is None or self.task.stored_features is not None or count <= 0:
            return
        for row, features in enumerate(each_sample(batch.features, count)):  # one by one: no batch size changes a bit
            sample = slice(row, row + 1)
            x, y, counted = batch.activations[sample], target[sample], self._counted[batch.start + row]

            def score(
                features: SparseFeatures = features, x: Tensor = x, y: Tensor = y, counted: Tensor = counted
            ) -> None:
                sae = self.task.sae
                self._explained.add(sae.target(y)[0], sae.decode(features, x)[0], counted)

            within_memory(score, score)  # a sample needs little: freeing unused memory makes room
        self._num_scored += count
