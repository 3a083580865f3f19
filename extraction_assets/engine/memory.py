"""Handling of exhausted memory, on a device or on the host."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that device or host memory ran out (torch has no single type for both)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def release_memory() -> None:
    """Frees the device memory that torch holds but does not use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def within_memory(work: Callable[[], Result], otherwise: Callable[[], Result]) -> Result:
    """``work()``, or if memory runs out, ``otherwise()`` after freeing unused memory.

    ``work`` must leave no trace unless it returns.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release_memory()  # outside the handler, where the traceback still holds the failed tensors
    return otherwise()
