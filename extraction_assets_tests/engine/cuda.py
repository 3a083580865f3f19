"""What tests on a GPU share."""

import contextlib
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def limited_memory(num_bytes: float) -> Iterator[None]:
    """At most so many bytes for this process."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(num_bytes / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@contextlib.contextmanager
def counted_synchronisations() -> Iterator[list[str]]:
    """One entry for each synchronisation that torch notices in the block."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found += [str(each.message) for each in caught if "synchronizing CUDA operation" in str(each.message)]
