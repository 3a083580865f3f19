"""What a pass over a chunk gives for one SAE."""

from typing import NamedTuple

from torch import Tensor

from extraction_assets.engine.selection.sparse import concatenate_rows, to_dense
from extraction_assets.engine.shapes import Draws, FeatureRows, SampledFeatures, SparseFeatures, TopKTable
from extraction_assets.engine.statistics.registry import FeatureStatistics


class SaeResult(NamedTuple):
    """A chunk's results for one SAE, on the CPU."""

    table: TopKTable
    statistics: FeatureStatistics
    feature_parts: list[FeatureRows] | None
    """Features at all non-padding positions, if kept: of consecutive samples, as they came from the device."""
    probe: dict[int, Tensor]
    """Dense features float32 [T, F] of a few samples by row of the chunk, for the comparison with the legacy loop."""
    variance_explained: float | None
    """Over a few samples; NaN where the features were read from a file, None of an SAE that encodes only."""
    all_finite: bool
    """Whether no token of the kept features, counted or not, has a NaN or an infinity: otherwise the features cannot be
    selected from again with other rules for counted positions."""
    encode_tile_tokens: int | None
    """Tokens of one matrix product; None if the features were read from a file."""
    draws: Draws | None = None
    """None with basic statistics, and so the next."""
    sampled: SampledFeatures | None = None

    @property
    def features(self) -> FeatureRows | None:
        """The kept features in one piece: a copy, of hundreds of MB for a chunk of 5,000 samples."""
        return None if self.feature_parts is None else concatenate_rows(self.feature_parts)


class UnfinishedSae(NamedTuple):
    """A chunk's results for one SAE, once its copies are complete."""

    table: TopKTable
    statistics: FeatureStatistics
    features: list[FeatureRows]
    probe: dict[int, SparseFeatures]
    variance_explained: Tensor | None
    all_finite: Tensor
    encode_tile_tokens: int | None
    draws: Draws | None
    sampled: list[FeatureRows] | None
    sampled_index: Tensor

    def result(self) -> SaeResult:
        sampled = None if self.sampled is None else SampledFeatures(self.sampled_index, concatenate_rows(self.sampled))
        return SaeResult(
            table=self.table,
            statistics=self.statistics,
            feature_parts=self.features or None,
            probe={row: to_dense(sparse)[0] for row, sparse in self.probe.items()},
            variance_explained=None if self.variance_explained is None else float(self.variance_explained),
            all_finite=bool(self.all_finite),
            encode_tile_tokens=self.encode_tile_tokens,
            draws=self.draws,
            sampled=sampled,
        )
