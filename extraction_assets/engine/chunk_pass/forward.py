"""Hook outputs of a chunk: computed by the model in batches of one shape, or read from an earlier pass."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.context import PassContext
from extraction_assets.engine.chunk_pass.stage_clock import StageClock
from extraction_assets.engine.chunk_pass.staging import to_device
from extraction_assets.engine.memory import is_out_of_memory, within_memory
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.shapes import Samples

HookReader = Callable[[int, int], Mapping[str, Tensor]]
"""(start, stop) of a chunk's samples -> {hook: [stop - start, T, D]} on the device."""


class ForwardOutOfMemoryError(MemoryError):
    """The forward pass does not fit, even after all unused memory was freed.

    The whole chunk has to be recomputed with a smaller ``batch_size``, because last bits depend on it.
    """

    def __init__(self, message: str, done: int) -> None:
        super().__init__(message)
        self.done = done
        """Samples of the chunk that had been yielded as done."""


def forward_pass(model: LanguageModel, samples: Samples, batch_size: int) -> HookReader:
    """Hook outputs computed by the model, in padded batches of one fixed shape [batch_size, T].

    A model that takes a mask gets one more row, always padding, so that no batch is without padding: for such a batch
    it would choose another attention kernel, with other last bits.
    """
    rows = batch_size if model.is_causal else batch_size + 1
    token_ids, attention_mask = (to_device(one, model.device) for one in (samples.token_ids, samples.attention_mask))

    def read(start: int, stop: int) -> Mapping[str, Tensor]:
        parts: dict[str, list[Tensor]] = {hook: [] for hook in model.hooks}
        for first in range(start, stop, batch_size):
            last = min(first + batch_size, stop)
            ids, mask = _padded(token_ids[first:last], rows), _padded(attention_mask[first:last], rows)
            mask[last - first :, 0] = True  # a filler has one token, so that no softmax is empty
            for hook, output in model.repeated_activations(ids, mask).items():
                parts[hook].append(output[: last - first])
        return {hook: _joined(outputs) for hook, outputs in parts.items()}  # [stop - start, T, D]

    return read


def stored_activations(activations: Mapping[str, Tensor], device: torch.device) -> HookReader:
    """Hook outputs read from {hook: [n, T, D]} of an earlier pass."""
    return lambda start, stop: {hook: tensor[start:stop].to(device) for hook, tensor in activations.items()}


class QueuedForward(NamedTuple):
    """The forward pass of a chunk's first group, queued before the chunk's turn, behind the last one of the chunk
    before it."""

    group: tuple[int, int]
    hooks: Mapping[str, Tensor]
    """{hook: [stop - start, T, D]}"""
    clock: StageClock
    """Has the seconds of this pass; the chunk's clock."""


def queue_forward(read_hooks: HookReader, group: tuple[int, int], device: torch.device) -> QueuedForward:
    """Queues the forward pass of a group; without a second try where it does not fit."""
    clock = StageClock(device)
    with clock.stage("forward"):
        return QueuedForward(group, read_hooks(*group), clock)


def prefetch_hooks(
    read_hooks: HookReader | None,
    groups: list[tuple[int, int]],
    shared: PassContext,
    queued: QueuedForward | None = None,
    queue_next: Callable[[], object] | None = None,
) -> Iterator[tuple[tuple[int, int], Mapping[str, Tensor]]]:
    """Each group with its hook outputs, to be worked on in ``shared.reducing``.

    On a GPU the next group's forward pass is queued before this one's outputs are given, so that the GPU has work
    while the host waits for the sizes of what it selects; in the last group's place ``queue_next`` does so for the next
    chunk. If memory runs out, nothing is prefetched any more. ``queued`` is the first group's, if it is queued already.
    """
    if read_hooks is None:
        yield from ((group, {}) for group in groups)
        return
    prefetched = queued.hooks if queued is not None and groups[:1] == [queued.group] else None
    del queued  # otherwise its outputs would be kept as long as this runs
    prefetches = shared.device.type == "cuda"
    for number, group in enumerate(groups):
        hooks = prefetched if prefetched is not None else _read(read_hooks, *group, shared.clock)
        prefetched = None
        shared.reduce_after(hooks)
        if prefetches and number + 1 < len(groups):
            try:
                with shared.clock.stage("forward"):
                    prefetched = read_hooks(*groups[number + 1])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                prefetches = False
        elif prefetches and queue_next is not None:
            queue_next()
        yield group, hooks
        del hooks  # otherwise a group would be kept while the next one is made


def _read(read_hooks: HookReader, start: int, stop: int, clock: StageClock) -> Mapping[str, Tensor]:
    """The hook outputs; if memory runs out, tries once more after freeing unused memory."""

    def read() -> Mapping[str, Tensor]:
        with clock.stage("forward"):
            return read_hooks(start, stop)

    def read_or_refuse() -> Mapping[str, Tensor]:
        try:
            return read()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ForwardOutOfMemoryError(
                f"out of memory in the forward pass of samples {start} to {stop - 1} of the chunk ({error})", start
            ) from error

    return within_memory(read, read_or_refuse)


def _padded(samples: Tensor, rows: int) -> Tensor:
    """[n, T] filled up with zeros to [rows, T]; always a copy."""
    return torch.nn.functional.pad(samples, (0, 0, 0, rows - len(samples))).clone()


def _joined(outputs: list[Tensor]) -> Tensor:
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
