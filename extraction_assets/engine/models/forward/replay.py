"""A forward pass of one shape, again and again: its kernels are recorded once, as a CUDA graph, and replayed.

A pass over a batch starts some forty kernels a block. Started one after the other from Python, they take the host as
long as a GPU needs to compute a small model; replayed, they take it a fraction of a millisecond. They are the same
kernels with the same arguments, so the numbers are the same bits; each recording is compared with the pass that it is
made from. What cannot be recorded stays as it is: models that look at their numbers on the way, and small memories; so
do passes that keep the GPU so busy that the host is early anyway, which take longer replayed: 13 blocks of width 2,304
on an H100 by 2%, and 1.2 s for the recording.
"""

import functools
import logging
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from extraction_assets.engine.models.forward.eager_path import as_if_eager

Run = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""(token ids int64 [B, T], attention mask bool [B, T]) -> {hook: [B, T, D]}"""

_UNRECORDED_CALLS = 5
"""Passes over one shape before it is recorded: where there are few, recording takes longer than it saves."""

_LEAST_HOST_SHARE = 0.25
"""Of the time of a pass, that the host must need to start its kernels."""

_FREE_SHARE = 0.25
"""Of the GPU's memory, that must be free: a recording keeps what its pass needs at its peak."""

_logger = logging.getLogger(__name__)


class Replay:
    """Hook outputs by ``run``, replayed once enough passes had the same key. One recording is kept at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._key: Hashable = None
        self._calls = 0
        self._recording: _Recording | None = None

    def __call__(self, key: Hashable, token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """As ``run``; ``key`` stands for all that the kernels depend on but the numbers, the shape first of all."""
        if key != self._key:
            self._key, self._calls, self._recording = key, 0, None
        if self._recording is not None:
            return self._recording.replay(token_ids, attention_mask)
        self._calls += 1
        if self._calls != _UNRECORDED_CALLS:
            return self._run(token_ids, attention_mask)
        outputs, share = self._timed_run(token_ids, attention_mask)
        if share >= _LEAST_HOST_SHARE:
            self._recording = self._record(token_ids, attention_mask, outputs)
        return outputs

    def _timed_run(self, token_ids: Tensor, attention_mask: Tensor) -> tuple[dict[str, Tensor], float]:
        """Outputs, and which share of the pass's time passed until it was queued. Two synchronisations."""
        torch.cuda.synchronize(token_ids.device)
        started = time.perf_counter()
        outputs = self._run(token_ids, attention_mask)
        queued = time.perf_counter() - started
        torch.cuda.synchronize(token_ids.device)
        return outputs, queued / (time.perf_counter() - started)

    def forget(self, except_for: Hashable = None) -> None:
        """Drops the recording, unless it is of this key: a pass of another shape, run beside it, may replace what a
        module keeps from pass to pass, such as a mask, and a recording reads where that was."""
        if self._key != except_for:
            self._key, self._calls, self._recording = None, 0, None

    @property
    def is_recorded(self) -> bool:
        """Whether passes are replayed."""
        return self._recording is not None

    def _record(self, token_ids: Tensor, attention_mask: Tensor, expected: Mapping[str, Tensor]) -> "_Recording | None":
        """None where the pass cannot be recorded, or the recording does not give what the pass gave."""
        free, total = torch.cuda.mem_get_info(token_ids.device)
        if free < _FREE_SHARE * total:
            return None
        with _HostWatch() as watch:
            self._run(token_ids, attention_mask)  # a part of the batch would want kernels of another shape
        if watch.found is not None:
            _logger.debug("the forward pass is not recorded: %s looks at numbers on the host", watch.found)
            return None
        recording = _Recording.of(self._run, token_ids, attention_mask)
        if recording is None or not _same_bits(recording.replay(token_ids, attention_mask), expected):
            _logger.debug("the forward pass is not recorded: replayed, it gives other numbers, or nothing")
            return None
        return recording


class _Recording:
    """A recorded pass, with the memory that it reads and writes."""

    def __init__(self, token_ids: Tensor, attention_mask: Tensor) -> None:
        self._token_ids, self._attention_mask = token_ids.clone(), attention_mask.clone()
        self._graph, self._pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        self._outputs: dict[str, Tensor] = {}

    @classmethod
    def of(cls, run: Run, token_ids: Tensor, attention_mask: Tensor) -> "_Recording | None":
        """None if the pass cannot be recorded."""
        recording = cls(token_ids, attention_mask)
        try:
            recording._record(run)
        except (RuntimeError, MemoryError) as error:  # of CUDA, or of memory that ran out
            _logger.debug("the forward pass is not recorded: %s", error)
            return None
        return recording

    def _record(self, run: Run) -> None:
        device = self._token_ids.device
        stream, current = _recording_stream(device), torch.cuda.current_stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._graph.capture_begin(self._pool, "thread_local")  # other threads write files meanwhile
            try:
                with as_if_eager():
                    self._outputs = run(self._token_ids, self._attention_mask)
            finally:
                self._end(device)
        current.wait_stream(stream)

    def _end(self, device: torch.device) -> None:
        try:
            self._graph.capture_end()
        except RuntimeError:
            # Otherwise the allocator would take the recording for unfinished, and free no memory that streams share.
            index = torch.cuda.current_device() if device.index is None else device.index
            torch._C._cuda_endAllocateToPool(index, self._pool)
            torch._C._cuda_releasePool(index, self._pool)
            _record_something(self._token_ids)
            raise

    def replay(self, token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """The outputs of a batch, copies of which the next replay leaves alone. No synchronisation."""
        self._token_ids.copy_(token_ids)
        self._attention_mask.copy_(attention_mask)
        self._graph.replay()
        return {hook: output.clone() for hook, output in self._outputs.items()}


@functools.cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: each stream that multiplies matrices keeps 32 MiB of workspace."""
    return torch.cuda.Stream(device)


def _record_something(given: Tensor) -> None:
    """After a recording that failed: until one succeeds, torch takes the device's generator for recorded, and refuses
    to draw random numbers by it, whoever asks. ``given`` keeps its numbers."""
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    given.zero_()
    graph.capture_end()


class _HostWatch(TorchDispatchMode):
    """While active, notes an operator whose result the host has to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _waits(func, (args, kwargs), result):
            self.found = str(func)
        return result


def _waits(func: Any, arguments: Any, result: Any) -> bool:
    """Whether an operator gives a number to the host, has a result whose shape depends on numbers, or copies between
    host and device."""
    tensors = [leaf for leaf in tree_leaves((arguments, result)) if isinstance(leaf, Tensor)]
    name = func.overloadpacket.__name__
    if name in ("_to_copy", "copy_", "_copy_from"):
        return len({tensor.device.type for tensor in tensors}) > 1
    if name in ("index", "index_put", "index_put_"):
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in _indices(arguments))
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _indices(arguments: Any) -> list[Tensor]:
    (_, indices, *_), _ = arguments
    return [index for index in indices if isinstance(index, Tensor)]


def _same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """NaN, which padding may hold, included. One synchronisation a hook."""
    return one.keys() == other.keys() and all(
        torch.equal(one[hook].contiguous().view(torch.uint8), other[hook].contiguous().view(torch.uint8))
        for hook in one
    )
