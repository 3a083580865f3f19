"""The largest entries of each row, in a total order."""

import torch
from torch import Tensor


def top_of_rows(values: Tensor, k: int, *, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The ``k`` largest (or smallest) of each row of float [n, W]: values and columns int64, both [n, min(k, W)], by
    (value descending, column ascending), or both ascending, on the same device.

    ``topk`` leaves open which of several equal values it returns. That matters only where the k-th equals the
    (k+1)-th: such rows are sorted stably instead. One synchronisation on a GPU. Peak extra memory: 3 * n * k numbers,
    and of rows with such ties their values twice.
    """
    width = values.shape[1]
    k = min(k, width)
    found, columns = values.topk(min(k + 1, width), dim=1, largest=largest)
    if width > k:
        tied = (found[:, k - 1] == found[:, k]).nonzero().squeeze(1) if k else found.new_empty(0, dtype=torch.int64)
        found, columns = found[:, :k].contiguous(), columns[:, :k].contiguous()
        if len(tied):
            resolved = values[tied].sort(dim=1, descending=largest, stable=True)
            found[tied], columns[tied] = resolved.values[:, :k], resolved.indices[:, :k]
    columns, order = columns.sort(dim=1)
    found, order = found.gather(1, order).sort(dim=1, descending=largest, stable=True)
    return found, columns.gather(1, order)
