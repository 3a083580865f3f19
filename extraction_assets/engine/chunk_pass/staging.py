"""Copies from a GPU to the host that overlap with computation."""

import functools
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on ``device``. On a GPU the copy takes its turn among what is queued and the host waits for
    nothing, as it would with memory that is not pinned."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def reserve_pinned(sizes: Iterable[int]) -> None:
    """Has torch make pinned blocks of so many bytes and keep them for the copies to come, which would wait 0.5 s a GB
    for them. For a thread beside the one that queues work."""
    blocks = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for size in sizes]
    del blocks  # all at once: one by one, the next would be the same block


class HostStaging:
    """Copies tensors of one device to pinned host memory, on a stream of its own; on a CPU they are left as they are.

    A pinned copy runs at the full speed of the bus and the host need not wait for it; ``wait`` once, before what was
    copied is looked at. torch keeps freed pinned blocks for the next copies.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = _copying_stream(device) if device.type == "cuda" else None

    def copy(self, tensor: Tensor) -> Tensor:
        """The tensor on the host, complete after ``wait``. No synchronisation."""
        if self._stream is None or tensor.device.type == "cpu":
            return tensor
        return self.copy_into(torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True), tensor)

    def copy_into(self, host: Tensor, tensor: Tensor) -> Tensor:
        """The same into memory that is there, which ``buffer`` made."""
        if self._stream is None:
            return host.copy_(tensor)
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._stream):
            host.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._stream)  # its memory is not reused before it is read
        return host

    def buffer(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Host memory to copy into."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._stream is not None)

    def copy_fields(self, columns: Any) -> Any:
        """A named tuple with its tensors copied."""
        return columns._replace(
            **{name: self.copy(value) for name, value in columns._asdict().items() if isinstance(value, Tensor)}
        )

    def wait(self) -> None:
        """Until every copy is complete: one synchronisation."""
        if self._stream is not None:
            self._stream.synchronize()


def read_together(tensors: Sequence[Tensor]) -> list[list[int]]:
    """The numbers of some int64 tensors [...] of one device. One synchronisation for all of them."""
    numbers = torch.cat([tensor.flatten() for tensor in tensors]).tolist()
    ends = list(accumulate(tensor.numel() for tensor in tensors))
    return [numbers[end - tensor.numel() : end] for tensor, end in zip(tensors, ends, strict=True)]


@functools.cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
