"""Chunks one after the other on one device, without a pause between them, and the table of all of them."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import HookReader, QueuedForward, queue_forward
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, UnfinishedChunk, chunk_steps, forward_groups
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.chunk_pass.staging import HostStaging, to_device
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.selection.statistics.accumulate import merge_statistics
from extraction_assets.engine.selection.statistics.registry import FeatureStatistics
from extraction_assets.engine.shapes import Samples, TopKTable


def run_chunks(
    chunks: Sequence[Samples],
    reader_of: Callable[[Samples], HookReader],
    tasks: list[SaeTask],
    settings: PassSettings,
    batch: AdaptiveBatch,
    device: torch.device,
) -> Iterator[ChunkResult]:
    """``run_chunk`` of each chunk, in order. A result is given once the next chunk is queued, so that its copies to the
    host hold up nothing; on a GPU the next chunk's first forward pass runs while a chunk's tables are finished.

    Tasks may not have stored features, which are of one chunk. Raises as ``chunk_steps``.
    """
    unfinished: UnfinishedChunk | None = None
    queued: list[QueuedForward] = []
    readers: list[HookReader] = []  # of the next chunk: its tokens go to the device once
    for number, samples in enumerate(chunks):

        def queue_next(coming: Sequence[Samples] = chunks[number + 1 : number + 2]) -> None:
            for samples in coming:
                group = next(forward_groups(len(samples.token_ids), settings.batch_size, batch.size))
                readers.append(reader_of(samples))
                with contextlib.suppress(torch.OutOfMemoryError):  # it has its own turn
                    queued.append(queue_forward(readers[-1], group, device))

        first = queued.pop() if queued else None
        reader = readers.pop() if readers else reader_of(samples)
        steps = chunk_steps(samples, reader, tasks, settings, batch, device, [], first, queue_next)
        del first, reader  # they hold the outputs of a forward pass, and tokens
        done = _completed(steps)
        if unfinished is not None:
            yield unfinished.result()
        unfinished = done
    if unfinished is not None:
        yield unfinished.result()


def _completed(steps: Generator[int, None, UnfinishedChunk]) -> UnfinishedChunk:
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            unfinished: UnfinishedChunk = finished.value
            return unfinished


class MergedChunks(NamedTuple):
    """What the chunks of one SAE are together, on the CPU."""

    table: TopKTable
    statistics: FeatureStatistics


def merge_chunks(
    results: Sequence[ChunkResult], sae: str, settings: PassSettings, device: torch.device
) -> MergedChunks:
    """The table and the statistics of all samples of some chunks, merged on ``device``.

    Memory on it: O(F * K), and one table more. ``results`` may not be empty.
    """
    first, *others = (result.saes[sae] for result in results)
    statistics = _moved(first.statistics, device)
    heap = DeferredTopKHeap(len(statistics.sample_count), settings.top_k, settings.min_activation)
    heap.add_batch(_moved(first.table, device))
    for one in others:
        statistics = merge_statistics([statistics, _moved(one.statistics, device)])
        heap.add_batch(heap.contenders(_moved(one.table, device)))
    staging = HostStaging(device)
    merged = MergedChunks(staging.copy_fields(heap.build_heaps()), staging.copy_fields(statistics))
    staging.wait()
    return merged


def _moved(columns: Any, device: torch.device) -> Any:
    """A named tuple with its tensors on ``device``."""
    moved = {name: to_device(value, device) for name, value in columns._asdict().items() if isinstance(value, Tensor)}
    return columns._replace(**moved)
