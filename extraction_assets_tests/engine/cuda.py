"""What tests on a GPU share."""

import contextlib
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
