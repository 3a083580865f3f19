"""How many samples to reduce at once: from the memory that is free, halved when it runs out."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.batch_size import parse_batch_size
from extraction_assets.engine.memory import is_out_of_memory, release_memory
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.selection.select import sample_maxima, select_top_k
from extraction_assets.engine.selection.sparse import dense_to_sparse, keep_counted
from extraction_assets.engine.shapes import TopKTable

GIB = 2**30
MAX_BATCH = 256
CPU_SHARE = 0.25
"""Share of a host's available RAM that ``auto`` plans with: other programs run there too."""

Result = TypeVar("Result")


def calculate_optimal_vectorization_batch(
    available_vram_gb: float, latent_dim: int, seq_len: int, safety_margin: float = 0.3
) -> int:
    """Samples that fit into the memory at once, between 1 and 256.

    A sample takes seq_len * latent_dim * 4 bytes * 3 (encoded features, a mask and temporaries), in GiB of
    ``available_vram_gb``, of which ``safety_margin`` (a fraction) stays free.
    """
    if not 0 <= safety_margin < 1:
        raise ValueError(f"safety_margin is a fraction from 0 to below 1, got {safety_margin}")
    if latent_dim < 1 or seq_len < 1:
        raise ValueError(f"latent_dim and seq_len must be at least 1, got {latent_dim} and {seq_len}")
    per_sample_gb = seq_len * latent_dim * 4 * 3 / GIB
    usable_gb = available_vram_gb * (1 - safety_margin)
    return max(1, min(MAX_BATCH, int(usable_gb / per_sample_gb)))


def available_memory_gb(device: torch.device, budget_gb: float | None = None) -> float:
    """GiB that may be used now on ``device``, at most ``budget_gb``.

    On a GPU: what the driver says is free plus what torch has reserved but does not use, within the process's
    memory fraction. On a CPU: a quarter of the RAM that is available.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        fraction = torch.cuda.get_per_process_memory_fraction(
            torch.cuda.current_device() if device.index is None else device.index
        )
        within_fraction = total * fraction - torch.cuda.memory_allocated(device)
        available = min(free + idle, within_fraction) / GIB
    else:
        available = psutil.virtual_memory().available * CPU_SHARE / GIB
    return max(0.0, available if budget_gb is None else min(available, budget_gb))


class AdaptiveBatch:
    """Runs work over a range in batches, and halves the batch when memory runs out.

    ``size`` is the batch size in use, ``halvings`` the sizes that did not fit. A batch counts only once its work
    returned, so nothing done is lost and nothing is counted twice. The size stays halved for later ranges.
    """

    def __init__(self, size: int, logger: logging.Logger | None = None) -> None:
        self.size = size
        self.halvings: list[int] = []
        self._logger = logger or logging.getLogger(__name__)

    def map(self, total: int, work: Callable[[int, int], Result], multiple: int = 1) -> Iterator[Result]:
        """Yields ``work(start, stop)`` for consecutive batches of ``range(total)``.

        Every batch but the last is a multiple of ``multiple`` long, at least one; ``work`` looks at ``size`` itself
        where that is smaller. It must leave no trace unless it returns: it is called again on half of its range.
        """
        start = 0
        while start < total:
            stop = min(start + max(self.size // multiple, 1) * multiple, total)
            result = self._attempt(start, stop, work)
            if result is not None:
                yield result[0]
                start = stop
            del result  # otherwise a batch would be kept while the next one is made

    def _attempt(self, start: int, stop: int, work: Callable[[int, int], Result]) -> tuple[Result] | None:
        """The work's result, or None after a halving."""
        try:
            return (work(start, stop),)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = min(self.size, stop - start)
            if failed == 1:
                raise MemoryError(
                    "out of memory with a vectorization batch of one sample: use a device with more memory, "
                    f"shorter samples or an SAE with fewer features ({error})"
                ) from error
        self.halve(failed)  # outside the handler, where the traceback still holds the failed tensors
        return None

    def halve(self, failed: int) -> None:
        """Continues with half of ``failed`` samples, which did not fit, and frees the memory that torch holds."""
        self.halvings.append(failed)
        self.size = max(1, failed // 2)
        self._logger.warning("out of memory with %d samples at once, going on with %d", failed, self.size)
        release_memory()


def batch_process_features(
    sae_features: Tensor,
    counted: Tensor | None = None,
    *,
    first_sample: int = 0,
    top_k: int = 100,
    min_activation: float = 0.0,
    vectorization_batch_size: Any = "auto",
) -> TopKTable:
    """The top-k table of dense encoded features: for each feature its ``top_k`` strongest samples.

    ``sae_features`` [B, T, F] on any device, of any float dtype, taken as float32; ``counted`` bool [B, T], True at
    positions that count (default all): what stands elsewhere, NaN too, is ignored. Row 0 is sample ``first_sample``.
    The samples are reduced in groups of ``vectorization_batch_size`` (``auto`` or a positive whole number), halved
    when memory runs out; the table, on the device of the features, does not depend on it.
    Peak extra memory: 8 bytes per dense entry of one group, 60 bytes per positive one, and O(F * K). Never a copy of
    the whole input.
    Raises ValueError if shapes or sizes are wrong, or a counted position holds a NaN or an infinity; MemoryError
    if one sample does not fit.
    """
    if sae_features.dim() != 3:
        raise ValueError(f"sae_features must be [samples, positions, features], got shape {tuple(sae_features.shape)}")
    num_samples, num_positions, num_features = sae_features.shape
    device = sae_features.device
    if counted is None:
        counted = torch.ones(num_samples, num_positions, dtype=torch.bool, device=device)
    if counted.shape != sae_features.shape[:2] or counted.dtype != torch.bool:
        raise ValueError(
            f"counted must be bool [{num_samples}, {num_positions}], got {counted.dtype} {tuple(counted.shape)}"
        )
    size = parse_batch_size(vectorization_batch_size)
    if size == "auto":
        size = calculate_optimal_vectorization_batch(available_memory_gb(device), num_features, num_positions)
    heap = DeferredTopKHeap(num_features, top_k, min_activation)

    def reduce(start: int, stop: int) -> TopKTable:
        group, mask = sae_features[start:stop].float(), counted[start:stop].to(device)  # [b, T, F], [b, T]
        _refuse_non_finite(group, mask, first_sample + start)
        features = keep_counted(dense_to_sparse(group), mask)
        return select_top_k(features, sample_maxima(features), first_sample + start, top_k, heap.floor(device))

    for table in AdaptiveBatch(size).map(num_samples, reduce):
        heap.add_batch(table)
    return heap.build_heaps()


def _refuse_non_finite(group: Tensor, counted: Tensor, first_sample: int) -> None:
    wrong = counted & ~torch.isfinite(group).all(dim=-1)  # [b, T]
    if bool(wrong.any()):
        row, position = wrong.nonzero()[0].tolist()
        raise ValueError(f"sae_features holds a NaN or an infinity in sample {first_sample + row}, position {position}")
