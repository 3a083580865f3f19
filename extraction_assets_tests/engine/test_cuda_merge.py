"""Merging on a GPU: as on the CPU, in bounded memory, and where memory runs out."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from extraction_assets.engine.selection import deferred as heap
from extraction_assets.engine.selection.merge import DeferredTopKHeap, merge_top_k_tables
from extraction_assets.engine.shapes import TopKTable
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.cuda import limited_memory

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

F, K = 16_384, 32


def make_table(number: int, num_features: int = F) -> TopKTable:
    """K examples of each feature with a firing each, from samples of their own; many maxima are equal."""
    generator = torch.Generator("cuda").manual_seed(number)
    shape = (num_features, K)
    maxima = torch.randint(1, 1000, shape, device="cuda", generator=generator).sort(dim=1, descending=True).values / 64
    ties = torch.arange(K, device="cuda").expand(shape)  # ascending, so that equal maxima are in order
    count = num_features * K
    return TopKTable(
        torch.arange(num_features, device="cuda").repeat_interleave(K),
        (number * K + ties).reshape(-1),
        maxima.reshape(-1),
        torch.arange(count + 1, device="cuda"),
        torch.randint(0, 128, (count,), device="cuda", generator=generator),
        maxima.reshape(-1),
    )


def on_cpu(table: TopKTable) -> TopKTable:
    return TopKTable(*(column.cpu() for column in table))


def merged(tables: Iterator[TopKTable]) -> TopKTable:
    """As the merge of chunks does: one table after the other, what cannot enter left out."""
    deferred = DeferredTopKHeap(F, K)
    for table in tables:
        deferred.add_batch(deferred.contenders(table))
    return deferred.build_heaps()


def test_a_hundred_tables_merge_as_on_the_cpu_in_the_memory_of_a_few() -> None:
    peaks = {}
    for count in (8, 100):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        table = merged(make_table(number) for number in range(count))
        peaks[count] = torch.cuda.max_memory_allocated() - before
    assert peaks[100] < 1.1 * peaks[8]
    assert_same(on_cpu(table), merged(on_cpu(make_table(number)) for number in range(100)))


def test_memory_that_runs_out_halves_the_features_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, calls = [make_table(number, 4 * F) for number in range(2)], list[int]()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    expected = on_cpu(merge_top_k_tables(tables, K, 4 * F))
    needed = torch.cuda.max_memory_allocated() - before
    merge = heap._merge

    def counted(*arguments: Any) -> TopKTable:
        calls.append(1)
        return merge(*arguments)

    monkeypatch.setattr(heap, "_merge", counted)
    with limited_memory(before + 0.8 * needed):
        ours = merge_top_k_tables(tables, K, 4 * F)
    assert len(calls) > 1
    assert_same(on_cpu(ours), expected)
