"""One SAE's share of a pass over a chunk: encode, select, count."""

from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.context import PassContext
from extraction_assets.engine.chunk_pass.reconstruction import Reconstructions
from extraction_assets.engine.chunk_pass.sae_result import UnfinishedSae
from extraction_assets.engine.chunk_pass.sampled_rows import SampledRows
from extraction_assets.engine.chunk_pass.selecting import NonFinite, SaeBatch, selector_for
from extraction_assets.engine.saes.sae import SAE, matmul_precision
from extraction_assets.engine.selection.draws import DrawHeap
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.selection.sequential_draws import LegacyDraws
from extraction_assets.engine.selection.sequential_loop import LegacyHeaps
from extraction_assets.engine.selection.sparse import (
    no_rows,
    take_rows,
    take_samples,
    to_dense,
)
from extraction_assets.engine.shapes import FeatureRows, SparseFeatures
from extraction_assets.engine.statistics.accumulate import (
    StatisticsAccumulator,
)

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
        self._selector = selector_for(shared.device, vectorized=self._settings.vectorized)(
            shared, self._counted, self._heap, self._draws, features_everywhere=self._features_everywhere
        )
        self._all_finite = torch.ones((), dtype=torch.bool, device=shared.device)
        self._features: list[FeatureRows] = []
        self._probe: dict[int, SparseFeatures] = {}
        self._reconstructions = Reconstructions(task.sae, RECONSTRUCTION_SAMPLES)

    def add(self, start: int, stop: int, activations: Tensor | None, target: Tensor | None = None) -> None:
        """Samples ``start:stop`` of the chunk, with the hook's output [stop - start, T, D] if it was computed, and
        that of ``hook_out`` [stop - start, T, D_out] if the SAE has one."""

        def work(first: int, last: int) -> list[SaeBatch]:
            inputs = None if activations is None else activations[first:last]
            return self._reduce(start + first, start + last, inputs, None if target is None else target[first:last])

        self._reconstructions.add_up()
        for batches in self._shared.batch.map(stop - start, work, self._tile or 1):
            with self._shared.clock.stage("select"):
                for batch in batches:
                    self._take(batch)
            del batches, batch  # otherwise a batch would be kept while the next one is made

    def finish(self) -> UnfinishedSae:
        """The chunk's results, queued to be copied to the host."""
        self._reconstructions.add_up()
        staging, explained = self._shared.staging, self._reconstructions.value()
        return UnfinishedSae(
            table=staging.copy_fields(self._heap.build_heaps()),
            statistics=staging.copy_fields(self._statistics.build()),
            features=self._features,
            probe=self._probe,
            variance_explained=None if explained is None else staging.copy(explained),
            all_finite=staging.copy(self._all_finite),
            encode_tile_tokens=self._tile and self._tile * self._shared.samples.token_ids.shape[1],
            draws=None if self._draws is None else staging.copy_fields(self._draws.build_heaps()),
            sampled=None if self._sampled is None else self._sampled.finish(),
            sampled_index=torch.tensor(self._shared.sampled_rows, dtype=torch.int64)
            + self._shared.samples.first_sample,
        )

    def _reduce(self, start: int, stop: int, activations: Tensor | None, target: Tensor | None) -> list[SaeBatch]:
        """Pure: leaves no trace unless it returns, so that it can be repeated on half of the range.

        One batch, or several where not even one tile may be reduced at once.
        """
        shared, size = self._shared, self._shared.batch.size
        with shared.clock.stage("encode"):
            features, suspects = self._features_of(start, stop, activations)
        batches = []
        with shared.clock.stage("select"):
            for first in range(0, stop - start, size):
                last = min(first + size, stop - start)
                batch = self._selector.select(start + first, take_samples(features, first, last), suspects)
                inputs, outputs = (None if x is None else x[first:last] for x in (activations, target))
                batches.append(batch._replace(activations=inputs, target=outputs))
                suspects = None
        return batches

    @property
    def _features_everywhere(self) -> bool:
        """Whether features stand at all non-padding positions, not at counted ones alone."""
        return self._settings.keep_features or self.task.stored_features is not None

    def _features_of(
        self, start: int, stop: int, activations: Tensor | None
    ) -> tuple[SparseFeatures, NonFinite | None]:
        """Features of samples ``start:stop`` at the positions that are wanted, and which of these are not finite; None
        of stored features."""
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
        wrong = self._counted[start:stop] & ~finite
        return features, NonFinite(wrong, activations[:count], start, self.task.hook, self.task.name)

    def _take(self, batch: SaeBatch) -> None:
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
        target = batch.activations if self.task.hook_out is None else batch.target
        if batch.activations is not None and target is not None and self.task.stored_features is None:
            counted = self._counted[batch.start : batch.stop]
            self._reconstructions.keep(batch.features, batch.activations, target, counted)

    def _add_to_legacy(self, heaps: LegacyHeaps, batch: SaeBatch) -> None:
        """The sequential loop: one sample after the other, one feature after the other."""
        for row in range(batch.start, batch.stop):
            one = take_samples(batch.features, row - batch.start, row - batch.start + 1)
            samples = self._shared.samples
            heaps.add_sample(to_dense(one)[0], self._counted[row].cpu(), samples.first_sample + row)
