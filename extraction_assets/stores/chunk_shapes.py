"""Checks that the tensors of a chunk file agree with its record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extraction_assets.engine.selection.intervals import INTERVALS, OF_ALL
from extraction_assets.engine.shapes import Draws, FeatureRows, SampledFeatures, TopKTable
from extraction_assets.engine.statistics.accumulate import DTYPES
from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics
from extraction_assets.stores.sealed import damaged

ROW_TENSORS = {"row_pointers": torch.int64, "feature_ids": torch.int32, "values": torch.float32}


def checked_rows(path: Path, tensors: Mapping[str, Tensor], shape: Any) -> FeatureRows:
    """The features in a file with recorded ``shape`` [n, T, F]. Raises DamagedFileError if they do not fit it."""
    pointers, features, values = _of_dtypes(path, tensors, ROW_TENSORS)
    if not isinstance(shape, list) or len(shape) != 3 or not all(_is_count(size) for size in shape):
        raise damaged(path, f"its record says shape {shape!r:.60}, which is not valid")
    rows = shape[0] * shape[1] + 1
    if pointers.shape != (rows,) or features.dim() != 1 or features.shape != values.shape:
        raise damaged(path, f"its tensors are not of shape {shape}, which its record says")
    if int(pointers[0]) != 0 or int(pointers[-1]) != len(values):
        raise damaged(path, f"its rows end at {int(pointers[-1])}, and it holds {len(values)} values")
    return FeatureRows(pointers, features, values, *shape)


def checked_sampled(path: Path, tensors: Mapping[str, Tensor], shape: Any) -> SampledFeatures:
    """The sampled firings in a file with recorded ``shape`` [S, T, F]. Raises DamagedFileError if they do not fit."""
    of_rows = {name: tensor for name, tensor in tensors.items() if name in ROW_TENSORS}
    rows = checked_rows(path, of_rows, shape)
    others = {name: tensor for name, tensor in tensors.items() if name not in ROW_TENSORS}
    (samples,) = _of_dtypes(path, others, {"sample_index": torch.int64})
    if samples.shape != (rows.num_samples,):
        raise damaged(path, f"it numbers {len(samples)} samples, and holds {rows.num_samples}")
    return SampledFeatures(samples, rows)


def checked_statistics(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> FeatureStatistics:
    """The statistics in a file. Raises DamagedFileError if they do not agree with the record of their table.

    A statistic that was added later is None in a file of an earlier version; one that only a later version knows is
    left alone.
    """
    known = {one.name: one for one in STATISTICS if one.name in tensors or not one.added_later}
    inside = {name: tensor for name, tensor in tensors.items() if name in known}
    found = _of_dtypes(path, inside, {name: DTYPES[one.dtype] for name, one in known.items()})
    latent_dim = record.get("num_features", len(found[0]))
    seen = {name: record.get(name) for name in ("samples_seen", "tokens_seen")}
    shapes = [(latent_dim,) if one.size is None else (latent_dim, one.size) for one in known.values()]
    if [tuple(tensor.shape) for tensor in found] != shapes or not all(map(_is_count, seen.values())):
        raise damaged(path, f"its statistics are not of the {latent_dim} features that its table says")
    absent = dict.fromkeys(one.name for one in STATISTICS)
    values: dict[str, Any] = {**absent, **dict(zip(known, found, strict=True)), **seen}
    return FeatureStatistics(**values)


def check_table(path: Path, table: TopKTable, latent_dim: int) -> None:
    """Raises DamagedFileError if a table names features that its statistics do not have."""
    neurons = table.neuron_index
    if len(neurons) and not 0 <= int(neurons.min()) <= int(neurons.max()) < latent_dim:
        raise damaged(path, f"it names features beyond the {latent_dim} of its statistics")


def check_draws(path: Path, draws: Draws, latent_dim: int) -> None:
    """Raises DamagedFileError if draws name features that their table's statistics do not have, or no interval."""
    for column, first, stop in ((draws.neuron_index, 0, latent_dim), (draws.interval, OF_ALL, INTERVALS)):
        if len(column) and not first <= int(column.min()) <= int(column.max()) < stop:
            raise damaged(
                path, f"its draws are not of the {latent_dim} features and {INTERVALS} intervals that there are"
            )


def _of_dtypes(path: Path, tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> list[Tensor]:
    if set(tensors) != set(dtypes):
        raise damaged(path, f"it does not hold the tensors {', '.join(dtypes)}")
    for name, dtype in dtypes.items():
        if tensors[name].dtype != dtype or tensors[name].dim() == 0:
            raise damaged(path, f"its {name} are {tensors[name].dtype}, not {dtype}")
    return [tensors[name] for name in dtypes]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
