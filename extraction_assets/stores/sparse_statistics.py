"""Statistics of features as they are stored: a list of counts of which most are 0 by its other entries alone.

A tensor ``NAME`` of int64 [F, size] becomes ``NAME.counts`` uint8 [F], how many entries of a row are not 0, and of all
rows one after the other ``NAME.columns`` uint8 [Z] and ``NAME.values`` [Z] in the smallest type that holds them. Where
that is not smaller ``NAME`` itself is stored, as earlier versions always did.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from extraction_assets.engine.statistics.registry import STATISTICS
from extraction_assets.stores.sealed import damaged

_MOST_COLUMNS = 256
_TYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)
_PARTS = ("counts", "columns", "values")


def sparse_statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is stored of statistics by name, on the CPU. Peak extra memory: 25 bytes for each entry that is not 0."""
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


def _sparse(tensor: Tensor) -> dict[str, Tensor]:
    rows, columns = tensor.nonzero(as_tuple=True)
    values = tensor[rows, columns]
    low, high = (0, 0) if len(values) == 0 else (int(one) for one in values.aminmax())
    type_of_values = next(one for one in _TYPES if torch.iinfo(one).min <= low and high <= torch.iinfo(one).max)
    counts = torch.bincount(rows, minlength=len(tensor)).to(torch.uint8)
    return {"counts": counts, "columns": columns.to(torch.uint8), "values": values.to(type_of_values)}


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
