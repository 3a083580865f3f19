"""Statistics of features as they are stored: a list of counts of which most are 0 by its other entries alone.

A tensor ``NAME`` of int64 [F, size] becomes ``NAME.counts`` uint8 [F], how many entries of a row are not 0, and of all
rows one after the other ``NAME.columns`` uint8 [Z] and ``NAME.values`` [Z] in the smallest type that holds them. Where
that is not smaller ``NAME`` itself is stored, as earlier versions always did.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from extraction_assets.engine.statistics.registry import STATISTICS
from extraction_assets.stores.sealed import damaged

_MOST_COLUMNS = 256
_TYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)
_PARTS = ("counts", "columns", "values")
_ROWS_AT_ONCE = 1 << 16


def sparse_statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is stored of statistics by name, on the CPU. Peak extra memory: twice what is stored, and 25 bytes for each
    entry of 65,536 features that is not 0."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = _sparse(tensor) if tensor.dim() == 2 and tensor.shape[1] < _MOST_COLUMNS else {}
        is_smaller = parts and sum(part.nbytes for part in parts.values()) < tensor.nbytes
        stored |= {f"{name}.{part}": found for part, found in parts.items()} if is_smaller else {name: tensor}
    return stored


def dense_statistics(path: Path, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The statistics of ``sparse_statistics``, and what else is in the file as it is. Raises DamagedFileError if the
    parts of one do not fit together."""
    tensors = dict(stored)
    for one in STATISTICS:
        names = [f"{one.name}.{part}" for part in _PARTS]
        if one.size is not None and all(name in tensors for name in names):
            tensors[one.name] = _dense(path, one.name, one.size, *(tensors.pop(name) for name in names))
    return tensors


def statistics_of(path: Path, features: range) -> dict[str, Tensor]:
    """As ``dense_statistics`` of a file, of a range of features alone: reads what the range needs, and a byte of each
    feature before it."""
    found = {}
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for one in STATISTICS:
            parts = [f"{one.name}.{part}" for part in _PARTS]
            if one.size is not None and all(name in names for name in parts):
                counts = file.get_tensor(parts[0])
                in_range = counts[features.start : features.stop]
                first = int(counts[: features.start].sum())
                entries = (file.get_slice(name)[first : first + int(in_range.sum())] for name in parts[1:])
                found[one.name] = _dense(path, one.name, one.size, in_range, *entries)
            elif one.name in names:
                found[one.name] = file.get_slice(one.name)[features.start : features.stop]
    return found


def _sparse(tensor: Tensor) -> dict[str, Tensor]:
    """The parts, made of some rows at a time, so that little is there on the way."""
    pieces: dict[str, list[Tensor]] = {name: [] for name in _PARTS}
    for part in tensor.split(_ROWS_AT_ONCE):
        rows, columns = part.nonzero(as_tuple=True)
        values = part[rows, columns]
        low, high = (0, 0) if len(values) == 0 else (int(one) for one in values.aminmax())
        type_of_values = next(one for one in _TYPES if torch.iinfo(one).min <= low and high <= torch.iinfo(one).max)
        pieces["counts"].append(torch.bincount(rows, minlength=len(part)).to(torch.uint8))
        pieces["columns"].append(columns.to(torch.uint8))
        pieces["values"].append(values.to(type_of_values))
    widest = max((piece.dtype for piece in pieces["values"]), key=_TYPES.index)
    pieces["values"] = [piece.to(widest) for piece in pieces["values"]]
    return {name: torch.cat(found) for name, found in pieces.items()}


def _dense(path: Path, name: str, size: int, counts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    types = counts.dtype == columns.dtype == torch.uint8 and values.dtype in _TYPES
    total = int(counts.sum()) if types else -1
    if not types or counts.dim() != 1 or columns.shape != (total,) or values.shape != (total,):
        raise damaged(path, f"the entries of its {name} do not fit its features")
    at = torch.repeat_interleave(torch.arange(len(counts)) * size, counts.long()) + columns
    if total and (int(columns.max()) >= size or bool((at.diff() <= 0).any())):
        raise damaged(path, f"the entries of its {name} are not in order")
    dense = torch.zeros(len(counts) * size, dtype=torch.int64)
    dense[at] = values.long()
    return dense.view(len(counts), size)
