"""Chunks in a row give what each gives alone, and merged what one chunk gives."""

from collections.abc import Callable

import pytest

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.chunks import merge_chunks, run_chunks
from extraction_assets.engine.chunk_pass.forward import HookReader, forward_pass
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.shapes import Samples
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.chunk_pass.build import CPU, FIRST, SAMPLES, SETTINGS, assert_same_result

CHUNKS = [SAMPLES.part(0, 8), SAMPLES.part(8, 20), SAMPLES.part(20, 23)]


@pytest.fixture
def reader_of(model: LanguageModel) -> Callable[[Samples], HookReader]:
    return lambda samples: forward_pass(model, samples, 4)


@pytest.fixture
def in_a_row(reader_of: Callable[[Samples], HookReader], tasks: list[SaeTask]) -> list[ChunkResult]:
    return list(run_chunks(CHUNKS, reader_of, tasks, SETTINGS, AdaptiveBatch(5), CPU))


def test_each_chunk_gives_what_it_gives_alone(
    in_a_row: list[ChunkResult], reader_of: Callable[[Samples], HookReader], tasks: list[SaeTask]
) -> None:
    for found, samples in zip(in_a_row, CHUNKS, strict=True):
        assert_same_result(found, run_chunk(samples, reader_of(samples), tasks, SETTINGS, AdaptiveBatch(5), CPU))


def test_merged_they_give_what_one_chunk_gives(in_a_row: list[ChunkResult], expected: ChunkResult) -> None:
    for name, whole in expected.saes.items():
        merged = merge_chunks(in_a_row, name, SETTINGS, CPU)
        assert_same(merged.table, whole.table)
        assert_same(merged.statistics, whole.statistics)


def test_a_chunk_is_given_once_the_next_one_is_computed(
    reader_of: Callable[[Samples], HookReader], tasks: list[SaeTask]
) -> None:
    read = list[int]()

    def noting(samples: Samples) -> HookReader:
        read.append(samples.first_sample - FIRST)
        return reader_of(samples)

    given = run_chunks(CHUNKS, noting, tasks[:1], SETTINGS, AdaptiveBatch(5), CPU)
    seen = [(result.saes[tasks[0].name].statistics.samples_seen, list(read)) for result in given]
    assert seen == [(8, [0, 8]), (12, [0, 8, 20]), (3, [0, 8, 20])]


def test_no_chunk_gives_nothing(reader_of: Callable[[Samples], HookReader], tasks: list[SaeTask]) -> None:
    assert list(run_chunks([], reader_of, tasks, SETTINGS, AdaptiveBatch(5), CPU)) == []
