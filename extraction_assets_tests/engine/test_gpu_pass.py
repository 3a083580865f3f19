"""A pass over a chunk: the tiny model and four SAEs at two hooks, however the work is cut up."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from extraction_assets.engine import gpu_pass
from extraction_assets.engine.batching import AdaptiveBatch
from extraction_assets.engine.gpu_pass import (
    ChunkResult,
    HookReader,
    NonFiniteError,
    PassSettings,
    SaeTask,
    chunk_steps,
    forward_pass,
    numerics_record,
    stored_activations,
)
from extraction_assets.engine.heap import DeferredTopKHeap, merge_top_k_tables
from extraction_assets.engine.language_model import LanguageModel, load_language_model
from extraction_assets.engine.sae import SAE, Encoded, load_sae, variance_explained
from extraction_assets.engine.shapes import Samples
from extraction_assets.engine.sparse import keep_counted, to_dense
from extraction_assets.engine.statistics import merge_statistics
from extraction_assets_tests import tiny
from extraction_assets_tests.engine import oracle
from extraction_assets_tests.engine.build import assert_same, plain, run_chunk

N, T, K, FIRST = 23, 12, 3, 1000
CPU = torch.device("cpu")
HOOKS = {"standard": "layers.0", "jumprelu": "layers.1", "topk": "layers.1", "gated": "layers.0"}
SETTINGS = PassSettings(batch_size=4, top_k=K, min_activation=0.125, keep_activations=True, keep_features=True)


@pytest.fixture(scope="module")
def model(llama: str) -> LanguageModel:
    return load_language_model(llama, ["layers.0", "layers.1"])


@pytest.fixture(scope="module")
def tasks(sae_folders: dict[str, Path]) -> list[SaeTask]:
    return [SaeTask(name, HOOKS[name], load_sae(folder)) for name, folder in sae_folders.items()]


def make_samples() -> Samples:
    """Samples of every length; the first position does not count, so one sample has nothing that does."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(T) < (torch.arange(N)[:, None] % T + 1)
    counted = mask.clone()
    counted[:, 0] = False
    return Samples(torch.randint(1, 300, (N, T), generator=generator), mask, counted, FIRST)


SAMPLES = make_samples()


def part_of(samples: Samples, start: int, stop: int) -> Samples:
    return Samples(*(column[start:stop] for column in samples[:3]), samples.first_sample + start)


def run_pass(
    read_hooks: HookReader | None,
    tasks: list[SaeTask],
    *,
    samples: Samples = SAMPLES,
    size: int = 5,
    settings: PassSettings = SETTINGS,
    batch: AdaptiveBatch | None = None,
) -> ChunkResult:
    batch = batch or AdaptiveBatch(size)
    return run_chunk(samples, read_hooks, tasks, settings, batch, CPU, probe_rows=[0, 11, 22])


@pytest.fixture(scope="module")
def expected(model: LanguageModel, tasks: list[SaeTask]) -> ChunkResult:
    """The pass with one sample reduced at a time."""
    return run_pass(forward_pass(model, SAMPLES, 4), tasks, size=1)


def assert_same_result(one: ChunkResult, other: ChunkResult) -> None:
    """Equal but for the time it took."""
    assert one.activations.keys() == other.activations.keys()
    for hook, activations in one.activations.items():
        assert torch.equal(activations, other.activations[hook])
    assert_same_saes(one, other)


def assert_same_saes(one: ChunkResult, other: ChunkResult) -> None:
    assert one.saes.keys() == other.saes.keys()
    for name, result in one.saes.items():
        own = other.saes[name]
        assert_same(result.table, own.table)
        assert_same(result.statistics, own.statistics)
        assert (result.features is None) == (own.features is None)
        if result.features is not None and own.features is not None:
            assert_same(result.features, own.features)
        assert result.probe.keys() == own.probe.keys()
        assert all(torch.equal(dense, own.probe[row]) for row, dense in result.probe.items())
        assert result.variance_explained == own.variance_explained


# What a pass gives


def test_tables_and_statistics_are_those_of_brute_force_on_the_features(expected: ChunkResult) -> None:
    for result in expected.saes.values():
        assert result.features is not None
        drawn = to_dense(result.features).numpy(), SAMPLES.counted.numpy()
        assert plain(result.table) == oracle.top_k(*drawn, first_sample=FIRST, k=K, min_activation=0.125)
        counts = oracle.statistics(*drawn)
        assert result.statistics.token_count.tolist() == counts.token_count
        assert result.statistics.sample_count.tolist() == counts.sample_count
        assert result.statistics.samples_seen == N
        assert result.statistics.tokens_seen == int(SAMPLES.counted.sum())


def test_features_are_those_of_encoding_each_sample_alone(expected: ChunkResult, tasks: list[SaeTask]) -> None:
    for task in tasks:
        dense = torch.stack([task.sae.encode(sample) for sample in expected.activations[task.hook]])
        features = expected.saes[task.name].features
        assert features is not None
        assert torch.equal(to_dense(features), dense.where(SAMPLES.attention_mask[:, :, None], 0.0))


def test_every_feature_table_is_full_or_has_every_example(expected: ChunkResult) -> None:
    for result in expected.saes.values():
        lengths = torch.bincount(result.table.neuron_index, minlength=tiny.NUM_FEATURES)
        assert lengths.max() == K
        assert bool((lengths <= result.statistics.sample_count).all())


def test_the_probe_holds_counted_features_of_the_asked_rows(expected: ChunkResult) -> None:
    for result in expected.saes.values():
        assert result.features is not None
        dense = to_dense(keep_counted(result.features, SAMPLES.counted))
        assert sorted(result.probe) == [0, 11, 22]
        assert all(torch.equal(own, dense[row]) for row, own in result.probe.items())


def test_variance_is_that_of_the_counted_positions(expected: ChunkResult, tasks: list[SaeTask]) -> None:
    for task in tasks:
        result = expected.saes[task.name]
        assert result.features is not None
        by_hand = variance_explained(expected.activations[task.hook], task.sae.decode(result.features), SAMPLES.counted)
        assert result.variance_explained == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_variance_is_scored_on_the_first_samples_alone(
    size: int, monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    monkeypatch.setattr(gpu_pass, "RECONSTRUCTION_SAMPLES", 7)
    first = run_pass(stored_activations(expected.activations, CPU), tasks, samples=part_of(SAMPLES, 0, 7))
    found = run_pass(stored_activations(expected.activations, CPU), tasks, size=size)
    for name, own in found.saes.items():
        assert own.variance_explained == first.saes[name].variance_explained
        assert own.variance_explained != expected.saes[name].variance_explained


def test_nothing_is_kept_unless_asked_for(model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult) -> None:
    settings = SETTINGS._replace(keep_activations=False, keep_features=False)
    result = run_pass(forward_pass(model, SAMPLES, 4), tasks, settings=settings)
    assert result.activations == {}
    for name, own in result.saes.items():
        assert own.features is None
        assert_same(own.table, expected.saes[name].table)


def test_progress_adds_up_to_the_chunk(model: LanguageModel, tasks: list[SaeTask]) -> None:
    steps = chunk_steps(SAMPLES, forward_pass(model, SAMPLES, 4), tasks[:1], SETTINGS, AdaptiveBatch(5), CPU, [])
    assert list(steps) == [8, 8, 7]  # whole forward batches of 4 that hold a vectorization batch of 5


# What does not change a bit


@pytest.mark.parametrize("size", [2, 5, 64, 256])
def test_the_vectorization_batch_changes_nothing(
    size: int, model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    assert_same_result(run_pass(forward_pass(model, SAMPLES, 4), tasks, size=size), expected)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_the_sequential_loop_gives_the_same(
    size: int, model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    sequential = SETTINGS._replace(vectorized=False)
    assert_same_result(run_pass(forward_pass(model, SAMPLES, 4), tasks, size=size, settings=sequential), expected)


@pytest.mark.parametrize("bounds", [[0, 23], [0, 7, 8, 23], [0, 12, 23], list(range(24))])
@pytest.mark.parametrize("size", [1, 5])
def test_any_chunks_merged_in_any_order_give_the_same(
    bounds: list[int], size: int, model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    parts = []
    for start, stop in pairwise(bounds):
        part = part_of(SAMPLES, start, stop)
        batch = AdaptiveBatch(size)
        parts.append(run_chunk(part, forward_pass(model, part, 4), tasks, SETTINGS, batch, CPU, probe_rows=[]))
    for name, whole in expected.saes.items():
        tables = [part.saes[name].table for part in reversed(parts)]
        assert_same(merge_top_k_tables(tables, K, tiny.NUM_FEATURES), whole.table)
        assert_same(merge_statistics([part.saes[name].statistics for part in reversed(parts)]), whole.statistics)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_floor_that_rises_during_the_pass_changes_nothing(
    size: int, monkeypatch: pytest.MonkeyPatch, model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    class EagerHeap(DeferredTopKHeap):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, buffer_examples=0)

    monkeypatch.setattr(gpu_pass, "DeferredTopKHeap", EagerHeap)
    assert_same_result(run_pass(forward_pass(model, SAMPLES, 4), tasks, size=size), expected)


@pytest.mark.parametrize("size", [1, 6, 64])
def test_stored_features_give_the_same_without_a_model(size: int, tasks: list[SaeTask], expected: ChunkResult) -> None:
    stored = [task._replace(stored_features=expected.saes[task.name].features) for task in tasks]
    result = run_pass(None, stored, size=size)
    for name, own in result.saes.items():
        assert_same(own.table, expected.saes[name].table)
        assert_same(own.statistics, expected.saes[name].statistics)
        assert np.isnan(own.variance_explained)


def test_stored_activations_give_the_same_without_a_model(tasks: list[SaeTask], expected: ChunkResult) -> None:
    assert_same_result(run_pass(stored_activations(expected.activations, CPU), tasks, size=9), expected)


def test_an_sae_alone_gives_what_it_gives_among_others(
    model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    for task in tasks:
        alone = run_pass(forward_pass(model, SAMPLES, 4), [task]).saes[task.name]
        assert_same(alone.table, expected.saes[task.name].table)


def test_neither_stored_features_nor_hooks_is_an_error(tasks: list[SaeTask]) -> None:
    with pytest.raises(ValueError, match="SAE 'standard' has neither stored features nor hook outputs"):
        run_pass(None, tasks)


# Numbers that are not finite


def with_values(expected: ChunkResult, where: Tensor, value: float, hook: str = "layers.1") -> HookReader:
    """The chunk's hook outputs with one number of each token in ``where`` [n, T] replaced."""
    activations = {name: tensor.clone() for name, tensor in expected.activations.items()}
    activations[hook][..., 7] = torch.where(where, value, activations[hook][..., 7])
    return stored_activations(activations, CPU)


def at(row: int, position: int) -> Tensor:
    where = torch.zeros(N, T, dtype=torch.bool)
    where[row, position] = True
    return where


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_a_hook_output_that_is_not_finite_names_hook_saes_and_sample(
    value: float, size: int, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    message = (
        r"output of hook 'layers\.1', which SAE 'jumprelu', 'topk' reads, holds a NaN .* in sample 1022, position 4"
    )
    with pytest.raises(NonFiniteError, match=message):
        run_pass(with_values(expected, at(22, 4), value), tasks, size=size)


def test_a_pre_activation_that_overflows_names_sae_hook_and_sample(tasks: list[SaeTask], expected: ChunkResult) -> None:
    message = r"pre-activations of SAE 'jumprelu' at 'layers\.1' holds a NaN or an infinity in sample 1018, position 5"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(with_values(expected, at(18, 5), 3e38), tasks)


def test_a_model_with_broken_weights_is_noticed(llama: str, tasks: list[SaeTask]) -> None:
    broken = load_language_model(llama, ["layers.0", "layers.1"])
    with torch.no_grad():
        broken.module.layers[1].mlp.down_proj.weight[3] = float("nan")  # type: ignore[index]
    with pytest.raises(NonFiniteError, match=r"hook 'layers\.1', .* a NaN or an infinity in sample 1001, position 1"):
        run_pass(forward_pass(broken, SAMPLES, 4), tasks)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("vectorized", [True, False])
def test_padding_may_hold_anything(value: float, vectorized: bool, tasks: list[SaeTask], expected: ChunkResult) -> None:
    read = with_values(expected, ~SAMPLES.attention_mask, value)
    assert_same_saes(run_pass(read, tasks, settings=SETTINGS._replace(vectorized=vectorized)), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tokens_that_do_not_count_may_hold_anything(value: float, tasks: list[SaeTask], expected: ChunkResult) -> None:
    read = with_values(expected, SAMPLES.attention_mask & ~SAMPLES.counted, value)
    result = run_pass(read, tasks)
    for name, own in result.saes.items():
        assert_same(own.table, expected.saes[name].table)
        assert_same(own.statistics, expected.saes[name].statistics)


# Running out of memory


def limit_memory(monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """Encoding more than ``tokens`` at once runs out of memory; the sizes that were tried."""
    real, tried = SAE.encode_sparse, list[int]()

    def encode_sparse(self: SAE, activations: Tensor, tile: int | None = None) -> Encoded:
        tried.append(len(activations) // T)
        if len(activations) > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, activations, tile)

    monkeypatch.setattr(SAE, "encode_sparse", encode_sparse)
    return tried


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("samples_that_fit", [1, 2, 3, 7])
def test_running_out_of_memory_halves_and_changes_nothing(
    vectorized: bool,
    samples_that_fit: int,
    monkeypatch: pytest.MonkeyPatch,
    model: LanguageModel,
    tasks: list[SaeTask],
    expected: ChunkResult,
) -> None:
    limit_memory(monkeypatch, samples_that_fit * T)
    batch, settings = AdaptiveBatch(16), SETTINGS._replace(vectorized=vectorized)
    result = run_pass(forward_pass(model, SAMPLES, 4), tasks, batch=batch, settings=settings)
    assert_same_result(result, expected)
    assert batch.size <= samples_that_fit
    assert batch.halvings == [size for size in (16, 8, 4, 2) if size > samples_that_fit]


def test_no_sample_is_encoded_twice_after_a_halving(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    tried = limit_memory(monkeypatch, 4 * T)
    result = run_pass(stored_activations(expected.activations, CPU), tasks[:1], size=16)
    assert tried == [16, 8, 4, 4, 4, 4, 4, 3]
    assert result.saes["standard"].statistics.samples_seen == N


def test_memory_that_runs_out_after_encoding_counts_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    real, calls = gpu_pass.feature_statistics, list[int]()

    def statistics(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) in (2, 5):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(*arguments)

    monkeypatch.setattr(gpu_pass, "feature_statistics", statistics)
    assert_same_result(run_pass(stored_activations(expected.activations, CPU), tasks, size=8), expected)


def test_one_sample_that_does_not_fit_is_a_clear_memory_error(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    limit_memory(monkeypatch, T - 1)
    with pytest.raises(MemoryError, match="vectorization batch of one sample: use a device with more memory"):
        run_pass(stored_activations(expected.activations, CPU), tasks)


def test_other_runtime_errors_pass_through(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    def encode_sparse(*_: Any) -> Encoded:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(SAE, "encode_sparse", encode_sparse)
    batch = AdaptiveBatch(5)
    with pytest.raises(RuntimeError, match="device-side assert"):
        run_pass(stored_activations(expected.activations, CPU), tasks, batch=batch)
    assert (batch.size, batch.halvings) == (5, [])


# Shapes and settings that matter to the last bits


@pytest.mark.parametrize("size", [1, 5, 64])
def test_every_matrix_product_takes_one_sample(
    size: int, monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    real, tiles = SAE.encode_sparse, set[int | None]()

    def encode_sparse(self: SAE, activations: Tensor, tile: int | None = None) -> Encoded:
        tiles.add(tile)
        return real(self, activations, tile)

    monkeypatch.setattr(SAE, "encode_sparse", encode_sparse)
    run_pass(stored_activations(expected.activations, CPU), tasks, size=size)
    assert tiles == {T}


def test_the_sae_encodes_with_the_asked_matmul_precision(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    real, seen, before = SAE.encode_sparse, set[str](), torch.get_float32_matmul_precision()

    def encode_sparse(*arguments: Any) -> Encoded:
        seen.add(torch.get_float32_matmul_precision())
        return real(*arguments)

    monkeypatch.setattr(SAE, "encode_sparse", encode_sparse)
    settings = SETTINGS._replace(matmul_precision="medium")
    run_pass(stored_activations(expected.activations, CPU), tasks, settings=settings)
    assert (seen, torch.get_float32_matmul_precision()) == ({"medium"}, before)


def test_the_numerics_record_names_what_can_change_last_bits() -> None:
    record: Mapping[str, Any] = numerics_record(CPU, "float32", SETTINGS, T)
    assert (record["dtype"], record["batch_size"], record["encode_tile_tokens"]) == ("float32", 4, T)
    assert record["torch"] == torch.__version__
    assert record != numerics_record(CPU, "float32", SETTINGS._replace(batch_size=8), T)
    assert record == numerics_record(CPU, "float32", SETTINGS._replace(top_k=9, vectorized=False), T)
