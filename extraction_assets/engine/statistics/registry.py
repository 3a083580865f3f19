"""Every statistic of a feature over the whole corpus, described once. Loads no torch: pages and tables read it too.

A statistic is integers or a maximum, so that it merges exactly: neither the order of samples, batches and chunks nor a
GPU's scheduling can change a bit. The columns of the database are computed from the merged numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from extraction_assets.engine.selection.intervals import FIRST_EXPONENT, HISTOGRAM_BINS, INTERVALS
from extraction_assets.engine.statistics.exact_sums import (
    EXPONENTS_PER_LIMB,
    LIMBS,
    SQUARE_LIMBS,
    std_of_limbs,
    sum_of_limbs,
)
from extraction_assets.engine.statistics.firings import Addition, CountedFirings

if TYPE_CHECKING:
    from torch import Tensor

HISTOGRAM_EDGES = [0.0, *(2.0**e for e in range(FIRST_EXPONENT + 1, 20)), float("inf")]
"""Bin b holds activations in [EDGES[b], EDGES[b + 1]): one power of two a bin, the ends open."""

_BIAS = 127


class FeatureStatistics(NamedTuple):
    """Counts over a whole corpus, not just the kept examples; a field for each of ``STATISTICS``."""

    sample_count: "Tensor"
    token_count: "Tensor"
    max_activation: "Tensor"
    activation_limbs: "Tensor"
    histogram: "Tensor"
    samples_seen: int
    """Samples looked at."""
    tokens_seen: int
    """Counted positions looked at."""
    square_limbs: "Tensor | None" = None
    interval_samples: "Tensor | None" = None


@dataclass(frozen=True)
class StatisticColumn:
    """A column of the table ``features`` that follows from a statistic."""

    name: str
    type: Literal["integer", "number", "integers"]
    """One whole number, one double, or a list of whole numbers."""
    meaning: str
    values: Callable[[FeatureStatistics], np.ndarray]
    """From the merged statistics, on the CPU: [F], or [F, size] of a list."""
    nullable: bool = False
    """NULL for a feature that never fires. Columns of a statistic that was added later may be NULL for all features,
    whatever this says."""
    shown: str = ""
    """How pages show it, such as ``mean {:.2f}``; empty if they do not, or format it themselves."""


@dataclass(frozen=True)
class Statistic:
    """One statistic of every feature."""

    name: str
    """Its field of ``FeatureStatistics``, and its tensor in the file beside a top-k table."""
    dtype: Literal["int64", "float32"]
    size: int | None
    """Numbers a feature: [F, size], or [F] where it is None."""
    merge: Literal["sum", "max"]
    """How the numbers of disjoint samples become those of all: exactly, in any order. They begin with 0, so a maximum
    is that of amounts above 0. A minimum is the maximum of amounts that fall as the values rise, 2^31 - 1 -
    ``CountedFirings.bits()`` as int64, which its column turns back; 0 then says that there was none."""
    meaning: str
    columns: tuple[StatisticColumn, ...] = ()
    additions: Callable[[CountedFirings], list[Addition]] | None = None
    """What some samples add, without a synchronisation; None if it follows from other statistics."""
    derive: "Callable[[Mapping[str, Tensor]], Tensor] | None" = None
    """From the other statistics of the same samples, where it has no ``additions``."""
    added_later: bool = False
    """Whether files of earlier versions do not have it; always so for a statistic that is added once results exist.
    Its field of ``FeatureStatistics`` then has the default None: if any chunk of a result is such a file, the statistic
    is None and its columns are NULL. Without the two, every earlier file counts as damaged."""
    only_full: bool = False
    """Whether it needs ``CountedFirings.by_interval`` and is left out with ``statistics: basic``; it is ``added_later``
    then, too."""
    has_kernel: bool = False
    """Whether ``statistics.kernels`` counts it on a GPU; otherwise ``additions`` says it there, too."""


def tensors_of(statistics: FeatureStatistics) -> "list[Tensor]":
    """Those that are known."""
    found = (getattr(statistics, one.name) for one in STATISTICS)
    return [tensor for tensor in found if tensor is not None]


def bytes_per_feature(*, full: bool = True) -> int:
    """Of the statistics of a chunk in memory; on disk what is 0 takes no place. ``full`` as in the settings."""
    counted = [one for one in STATISTICS if full or not one.only_full]
    return sum((one.size or 1) * (8 if one.dtype == "int64" else 4) for one in counted)


# How much each adds, and its columns in the database


def _samples_in_which_it_fires(firings: CountedFirings) -> list[Addition]:
    return [Addition((firings.maxima > 0).sum(0))]


def _maximum(firings: CountedFirings) -> list[Addition]:
    return [Addition(firings.maxima.amax(0))]


def _limbs_of_the_sum(firings: CountedFirings) -> list[Addition]:
    """Limb l gathers exponents 8l .. 8l + 7 as m << (e mod 8): 31 bits each, so a limb holds 2^32 firings before an
    int64 could overflow."""
    at = firings.features * LIMBS + firings.exponent // EXPONENTS_PER_LIMB
    return [Addition(firings.mantissa << (firings.exponent % EXPONENTS_PER_LIMB), at)]


def _bins(firings: CountedFirings) -> list[Addition]:
    bins = (firings.exponent - _BIAS - FIRST_EXPONENT).clamp_(0, HISTOGRAM_BINS - 1)
    bins += firings.features * HISTOGRAM_BINS
    return [Addition(bins.new_ones(len(bins)), bins)]


def _limbs_of_the_squares(firings: CountedFirings) -> list[Addition]:
    """A square is m^2 * 2^(2e - 300). Limb l gathers what counts in 2^(8l - 300); the halves of m^2 go to limb 2e // 8
    and, 24 bits up, three limbs further: 30 bits each, so a limb holds 2^33 firings before an int64 could overflow."""
    square, doubled = firings.mantissa * firings.mantissa, firings.exponent * 2
    at = firings.features * SQUARE_LIMBS + (doubled >> 3)
    shift = doubled & 7
    return [Addition((square & 0xFFFFFF) << shift, at), Addition((square >> 24) << shift, at, offset=3)]


def _samples_by_interval(firings: CountedFirings) -> list[Addition]:
    assert firings.by_interval is not None, "only with full statistics"
    return [Addition(firings.by_interval.new_ones(len(firings.by_interval)), firings.by_interval)]


def activation_sum(statistics: FeatureStatistics) -> np.ndarray:
    """Sum of each feature's firing activations: float64 [F], rounded once per limb (relative error < 1e-14)."""
    return sum_of_limbs(statistics.activation_limbs)


def mean_activation(statistics: FeatureStatistics) -> np.ndarray:
    """Mean over the tokens on which a feature fires: float64 [F], NaN for a feature that never fires."""
    count = statistics.token_count.cpu().numpy()
    return np.divide(activation_sum(statistics), count, out=np.full(len(count), np.nan), where=count > 0)


def std_activation(statistics: FeatureStatistics) -> np.ndarray:
    """Population standard deviation over the tokens on which a feature fires: float64 [F], NaN where it never fires.

    The relative error is below 1e-15. About 5 microseconds a feature.
    """
    assert statistics.square_limbs is not None, "read only where it is known"
    return std_of_limbs(statistics.token_count, statistics.activation_limbs, statistics.square_limbs)


def known(tensor: "Tensor | None") -> "Tensor":
    """A statistic that was added later, where it is not None."""
    assert tensor is not None, "read only where it is known"
    return tensor


STATISTICS = (
    Statistic(
        "sample_count",
        "int64",
        None,
        "sum",
        "samples in which the feature fires at a counted position",
        (
            StatisticColumn(
                "activation_count", "integer", "samples in which the feature fires", lambda s: s.sample_count.numpy()
            ),
            StatisticColumn(
                "activation_frequency",
                "number",
                "their fraction of all samples",
                lambda s: s.sample_count.numpy() / max(1, s.samples_seen),
            ),
        ),
        additions=_samples_in_which_it_fires,
        has_kernel=True,
    ),
    Statistic(
        "token_count",
        "int64",
        None,
        "sum",
        "counted positions at which it fires",
        (
            StatisticColumn("token_count", "integer", "tokens on which it fires", lambda s: s.token_count.numpy()),
            StatisticColumn(
                "token_frequency",
                "number",
                "their fraction of all counted tokens",
                lambda s: s.token_count.numpy() / max(1, s.tokens_seen),
            ),
        ),
        derive=lambda others: others["histogram"].sum(1),  # every firing lies in one bin
    ),
    Statistic(
        "max_activation",
        "float32",
        None,
        "max",
        "its maximum at counted positions; 0 where it never fires",
        (
            StatisticColumn(
                "max_activation",
                "number",
                "its maximum over the corpus",
                lambda s: s.max_activation.numpy().astype(np.float64),
                nullable=True,
                shown="maximum {:.2f}",
            ),
        ),
        additions=_maximum,
        has_kernel=True,
    ),
    Statistic(
        "activation_limbs",
        "int64",
        LIMBS,
        "sum",
        "the exact sum of its firing activations: limb l counts in 2^(8l - 150)",
        (
            StatisticColumn(
                "mean_activation",
                "number",
                "its mean over the tokens on which it fires (relative error below 1e-14)",
                mean_activation,
                nullable=True,
                shown="mean {:.2f}",
            ),
        ),
        additions=_limbs_of_the_sum,
        has_kernel=True,
    ),
    Statistic(
        "histogram",
        "int64",
        HISTOGRAM_BINS,
        "sum",
        "firings by power of two (HISTOGRAM_EDGES)",
        (
            StatisticColumn(
                "histogram",
                "integers",
                "firing tokens by powers of two: 40 counts, the first of all below 2^-19, the last of all from 2^19",
                lambda s: s.histogram.numpy(),
            ),
        ),
        additions=_bins,
        has_kernel=True,
    ),
    Statistic(
        "square_limbs",
        "int64",
        SQUARE_LIMBS,
        "sum",
        "the exact sum of the squares of its firing activations: limb l counts in 2^(8l - 300)",
        (
            StatisticColumn(
                "std_activation",
                "number",
                "its population standard deviation over the tokens on which it fires (relative error below 1e-15); "
                "NULL too while a chunk is of an earlier version that did not count it, until it is computed again",
                std_activation,
                nullable=True,
                shown="standard deviation {:.2f}",
            ),
        ),
        additions=_limbs_of_the_squares,
        has_kernel=True,
        added_later=True,
    ),
    Statistic(
        "interval_samples",
        "int64",
        INTERVALS,
        "sum",
        "samples by half octave of the feature's maximum in them (selection.intervals)",
        (
            StatisticColumn(
                "interval_samples",
                "integers",
                "samples in which it fires by half octaves of its maximum there: 80 counts from 2^-20 to 2^20, ends "
                "open; NULL with `statistics: basic`, or while a chunk is of an earlier version",
                lambda s: known(s.interval_samples).numpy(),
            ),
        ),
        additions=_samples_by_interval,
        has_kernel=True,
        added_later=True,
        only_full=True,
    ),
)
"""All statistics, in the order of the columns."""

COLUMNS = tuple(column for one in STATISTICS for column in one.columns)
