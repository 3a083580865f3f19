"""Memory that runs out, while features are computed or in the forward pass: the same result."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from extraction_assets.engine import memory
from extraction_assets.engine.chunk_pass import sae_pass, selecting
from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.forward import (
    ForwardOutOfMemoryError,
    HookReader,
    forward_pass,
    stored_activations,
)
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, chunk_steps
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.saes.activation import Firings
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import DrawRules, SparseFeatures
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.chunk_pass.build import (
    CPU,
    RULES,
    SAMPLES,
    SETTINGS,
    N,
    T,
    assert_same_draws,
    assert_same_result,
    run_pass,
)


def out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory")


def limit_memory(monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """Encoding more than ``tokens`` at once runs out of memory; the numbers of samples that were tried."""
    real, tried = SAE.encode_sparse, list[int]()

    def encode_sparse(self: SAE, activations: Tensor, *arguments: Any) -> Firings:
        tried.append(len(activations) // T)
        if len(activations) > tokens:
            raise out_of_memory()
        return real(self, activations, *arguments)

    monkeypatch.setattr(SAE, "encode_sparse", encode_sparse)
    return tried


def limit_selection(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """Selecting from more samples at once runs out of memory."""
    real = selecting.sample_maxima

    def sample_maxima(features: SparseFeatures) -> Tensor:
        if features.num_samples > samples:
            raise out_of_memory()
        return real(features)

    monkeypatch.setattr(selecting, "sample_maxima", sample_maxima)


def limit_statistics(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """Working out the statistics of more samples at once runs out of memory."""
    real = selecting.statistics_update

    def statistics_update(features: SparseFeatures, *arguments: Any) -> Any:
        if features.num_samples > samples:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(features, *arguments)

    monkeypatch.setattr(selecting, "statistics_update", statistics_update)


@pytest.fixture(scope="module")
def unhindered(model: LanguageModel, tasks: list[SaeTask]) -> dict[int, ChunkResult]:
    """Samples in a tile -> the result where memory suffices."""
    results = {}
    with pytest.MonkeyPatch.context() as patched:
        for tile in (1, 2, 4):
            patched.setattr(sae_pass, "_TILE_TOKENS", tile * T)
            results[tile] = run_pass(forward_pass(model, SAMPLES, 4), tasks, size=1)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize(("tile", "samples_that_fit"), [(1, 1), (1, 2), (1, 3), (1, 7), (2, 2), (2, 3), (4, 4), (4, 7)])
def test_running_out_of_memory_halves_and_changes_nothing(
    vectorized: bool,
    tile: int,
    samples_that_fit: int,
    monkeypatch: pytest.MonkeyPatch,
    model: LanguageModel,
    tasks: list[SaeTask],
    unhindered: dict[int, ChunkResult],
) -> None:
    monkeypatch.setattr(sae_pass, "_TILE_TOKENS", tile * T)
    limit_memory(monkeypatch, samples_that_fit * T)
    batch, settings = AdaptiveBatch(16), SETTINGS._replace(vectorized=vectorized)
    result = run_pass(forward_pass(model, SAMPLES, 4), tasks, batch=batch, settings=settings)
    assert_same_result(result, unhindered[tile])
    assert batch.size <= samples_that_fit
    assert batch.halvings == [size for size in (16, 8, 4, 2) if size > samples_that_fit]


@pytest.mark.slow
@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("limit", [limit_selection, limit_statistics])
@pytest.mark.parametrize("samples_that_fit", [1, 2, 3, 7])  # of which a tile has 4
def test_running_out_of_memory_after_encoding_halves_and_changes_nothing(
    vectorized: bool,
    limit: Callable[[pytest.MonkeyPatch, int], None],
    samples_that_fit: int,
    monkeypatch: pytest.MonkeyPatch,
    tasks: list[SaeTask],
    expected: ChunkResult,
) -> None:
    limit(monkeypatch, samples_that_fit)
    batch, settings = AdaptiveBatch(16), SETTINGS._replace(vectorized=vectorized)
    read = stored_activations(expected.activations, CPU)
    assert_same_result(run_pass(read, tasks, batch=batch, settings=settings), expected)
    assert batch.halvings == [size for size in (16, 8, 4, 2) if size > samples_that_fit]


@pytest.mark.parametrize("size", [1, 5, 64])
def test_one_sample_is_decoded_at_a_time(
    size: int, monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    """So decoding needs no more memory in a larger batch, and has nothing to halve."""
    real, decoded = SAE.decode, list[int]()

    def decode(self: SAE, features: SparseFeatures, activations: Tensor) -> Tensor:
        decoded.append(features.num_samples)
        return real(self, features, activations)

    monkeypatch.setattr(SAE, "decode", decode)
    assert_same_result(run_pass(stored_activations(expected.activations, CPU), tasks, size=size), expected)
    assert decoded == [1] * N * len(tasks)


def test_only_what_failed_is_encoded_again(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    tried = limit_memory(monkeypatch, 4 * T)
    result = run_pass(stored_activations(expected.activations, CPU), tasks[:1], size=16)
    assert tried == [16, 8, 4, 4, 4, 4, 4, 4]  # the last tile holds 3 samples and a filler
    assert result.saes["standard"].statistics.samples_seen == N


@pytest.mark.parametrize(("name", "draws"), [("select_top_k", None), ("select_with_draws", RULES)])
def test_a_selection_that_failed_encodes_its_range_again_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult, name: str, draws: DrawRules | None
) -> None:
    tried, done = limit_memory(monkeypatch, N * T), list[int]()
    real = getattr(selecting, name)

    def select(features: SparseFeatures, *arguments: Any) -> Any:
        if len(done) == 1:
            done.append(0)  # once, at the second batch
            raise out_of_memory()
        done.append(features.num_samples)
        return real(features, *arguments)

    monkeypatch.setattr(selecting, name, select)
    batch, settings = AdaptiveBatch(8), SETTINGS._replace(draws=draws)
    result = run_pass(stored_activations(expected.activations, CPU), tasks[:1], batch=batch, settings=settings)
    assert (tried, done) == ([8, 8, 4, 4, 4, 4], [8, 0, 4, 4, 4, 3])
    assert batch.halvings == [8]
    right = expected.saes["standard"]
    populations = right.statistics.interval_samples if draws else None
    assert_same(result.saes["standard"].statistics, right.statistics._replace(interval_samples=populations))
    assert_same(result.saes["standard"].table, right.table)
    if draws:
        assert_same_draws(result.saes["standard"], right)


def test_memory_that_runs_out_after_encoding_counts_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    real, calls = selecting.statistics_update, list[int]()

    def statistics(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) in (2, 5):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(*arguments)

    monkeypatch.setattr(selecting, "statistics_update", statistics)
    batch = AdaptiveBatch(8)
    assert_same_result(run_pass(stored_activations(expected.activations, CPU), tasks, batch=batch), expected)
    assert len(batch.halvings) == 2


def test_one_sample_that_does_not_fit_is_a_clear_memory_error(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    limit_memory(monkeypatch, T - 1)
    with pytest.raises(MemoryError, match="vectorization batch of one sample: use a device with more memory"):
        run_pass(stored_activations(expected.activations, CPU), tasks)


@pytest.mark.parametrize("limit", [limit_selection, limit_statistics])
def test_one_sample_that_does_not_fit_after_encoding_is_a_clear_memory_error(
    limit: Callable[[pytest.MonkeyPatch, int], None],
    monkeypatch: pytest.MonkeyPatch,
    tasks: list[SaeTask],
    expected: ChunkResult,
) -> None:
    limit(monkeypatch, 0)
    with pytest.raises(MemoryError, match="vectorization batch of one sample: use a device with more memory"):
        run_pass(stored_activations(expected.activations, CPU), tasks)


def test_other_runtime_errors_pass_through(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    def encode_sparse(*_: Any) -> Firings:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(SAE, "encode_sparse", encode_sparse)
    batch = AdaptiveBatch(5)
    with pytest.raises(RuntimeError, match="device-side assert"):
        run_pass(stored_activations(expected.activations, CPU), tasks, batch=batch)
    assert (batch.size, batch.halvings) == (5, [])


# Running out of memory in the forward pass


class Failing:
    """A reader of hook outputs that runs out of memory at the given calls."""

    def __init__(self, read: HookReader, *calls: int, error: Exception | None = None) -> None:
        self._read, self._calls, self._error = read, calls, error or out_of_memory()
        self.ranges: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> Mapping[str, Tensor]:
        self.ranges.append((start, stop))
        if len(self.ranges) in self._calls:
            raise self._error
        return self._read(start, stop)


@pytest.mark.parametrize("calls", [(1,), (2,), (3,), (1, 3, 5)])
def test_a_forward_pass_that_fits_at_the_second_try_gives_the_same(
    calls: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    model: LanguageModel,
    tasks: list[SaeTask],
    expected: ChunkResult,
) -> None:
    released = list[int]()
    monkeypatch.setattr(memory, "release_memory", lambda: released.append(1))
    read, batch = Failing(forward_pass(model, SAMPLES, 4), *calls), AdaptiveBatch(5)
    assert_same_result(run_pass(read, tasks, batch=batch), expected)
    assert len(read.ranges) == 3 + len(calls)
    assert len(released) == len(calls)
    assert (batch.size, batch.halvings) == (5, [])


def test_what_the_failed_try_held_is_gone_before_the_second(tasks: list[SaeTask], expected: ChunkResult) -> None:
    held = list[weakref.ref[Tensor]]()

    def read(start: int, stop: int) -> Mapping[str, Tensor]:
        if not held:
            own = torch.zeros(1)
            held.append(weakref.ref(own))
            raise out_of_memory()
        assert held[0]() is None
        return {hook: tensor[start:stop] for hook, tensor in expected.activations.items()}

    assert_same_result(run_pass(read, tasks), expected)


@pytest.mark.parametrize(("first_failure", "done"), [(1, 0), (2, 8), (3, 16)])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_a_forward_pass_that_fails_twice_says_how_many_samples_are_done(
    first_failure: int, done: int, error: Exception, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    stored = stored_activations(expected.activations, CPU)
    read = Failing(stored, first_failure, first_failure + 1, error=error)
    steps, yielded = chunk_steps(SAMPLES, read, tasks, SETTINGS, AdaptiveBatch(5), CPU, []), list[int]()
    message = f"forward pass of samples {done} to {min(done + 8, N) - 1} of the chunk"
    with pytest.raises(ForwardOutOfMemoryError, match=message) as caught:
        yielded.extend(steps)
    assert caught.value.done == done
    assert caught.value.__cause__ is error
    assert isinstance(caught.value, MemoryError)


def test_another_error_of_the_forward_pass_is_not_tried_again(tasks: list[SaeTask], expected: ChunkResult) -> None:
    error = RuntimeError("CUDA error: device-side assert triggered")
    read = Failing(stored_activations(expected.activations, CPU), 1, error=error)
    with pytest.raises(RuntimeError, match="device-side assert"):
        run_pass(read, tasks)
    assert read.ranges == [(0, 8)]
