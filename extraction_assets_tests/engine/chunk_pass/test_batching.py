"""Batch sizes: parsed, computed from memory, halved when it runs out; and never part of the answer."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extraction_assets.engine import batch_process_features, calculate_optimal_vectorization_batch
from extraction_assets.engine.chunk_pass import batching
from extraction_assets.engine.chunk_pass.batch_size import parse_batch_size
from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch, available_memory_gb
from extraction_assets.engine.memory import is_out_of_memory
from extraction_assets.engine.shapes import TopKTable
from extraction_assets_tests.engine import oracle
from extraction_assets_tests.engine.build import assert_same, legacy, plain
from extraction_assets_tests.engine.strategies import Drawn, encoded, min_activations, random_features

# Parsing


@pytest.mark.parametrize(("value", "size"), [("auto", "auto"), (" auto ", "auto"), (128, 128), ("128", 128), (1, 1)])
def test_auto_and_whole_numbers_are_batch_sizes(value: Any, size: int | str) -> None:
    assert parse_batch_size(value) == size


@pytest.mark.parametrize("value", [0, -1, 1.5, 128.0, "0", "-1", "1.5", "banana", "", True, False, None, [], "1e3"])
def test_anything_else_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(ValueError, match="must be 'auto' or a whole number of at least 1, got ") as caught:
        parse_batch_size(value)
    assert repr(value) in str(caught.value)


# The automatic size


def test_the_automatic_size_follows_the_formula() -> None:
    per_sample = 128 * 16384 * 4 * 3 / 2**30  # 0.0234375 GiB
    assert int(4 * 0.7 / per_sample) == 119
    assert calculate_optimal_vectorization_batch(4.0, 16384, 128) == 119
    assert calculate_optimal_vectorization_batch(4.0, 16384, 128, safety_margin=0.5) == 85


@pytest.mark.parametrize(("available", "size"), [(0.0, 1), (-3.0, 1), (1e-9, 1), (80.0, 256), (1e9, 256)])
def test_the_automatic_size_stays_between_1_and_256(available: float, size: int) -> None:
    assert calculate_optimal_vectorization_batch(available, 16384, 128) == size


def test_no_margin_uses_all_memory() -> None:
    assert calculate_optimal_vectorization_batch(3.0, 2**20, 2**8, safety_margin=0) == 1
    assert calculate_optimal_vectorization_batch(6.0, 2**20, 2**8, safety_margin=0) == 2


@pytest.mark.parametrize("margin", [-0.1, 1, 1.5, float("nan")])
def test_a_margin_is_a_fraction_below_one(margin: float) -> None:
    with pytest.raises(ValueError, match="safety_margin is a fraction from 0 to below 1"):
        calculate_optimal_vectorization_batch(4.0, 16384, 128, margin)


@pytest.mark.parametrize(("latent_dim", "seq_len"), [(0, 128), (16384, 0)])
def test_empty_samples_have_no_automatic_size(latent_dim: int, seq_len: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        calculate_optimal_vectorization_batch(4.0, latent_dim, seq_len)


def test_available_memory_stays_within_the_budget() -> None:
    cpu = torch.device("cpu")
    assert available_memory_gb(cpu) > 0
    assert available_memory_gb(cpu, budget_gb=0.001) == 0.001


# Halving


class Memory:
    """Work that runs out of memory beyond ``limit`` at once, and notes what it did."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.failed = 0
        self.done: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> tuple[int, int]:
        if stop - start > self.limit:
            self.failed += 1
            assert self.failed < 10, "tried again and again"
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        self.done.append((start, stop))
        return start, stop


def test_batches_cover_the_range_in_order() -> None:
    assert list(AdaptiveBatch(3).map(8, Memory(9))) == [(0, 3), (3, 6), (6, 8)]


def test_out_of_memory_halves_and_goes_on_where_it_stopped() -> None:
    batch, memory = AdaptiveBatch(8), Memory(3)
    assert list(batch.map(10, memory)) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    assert (batch.size, batch.halvings) == (2, [8, 4])


def test_a_last_batch_that_is_smaller_is_halved_from_its_own_size() -> None:
    batch = AdaptiveBatch(8)
    assert list(batch.map(3, Memory(1))) == [(0, 1), (1, 2), (2, 3)]
    assert (batch.size, batch.halvings) == (1, [3])


@pytest.mark.slow
@settings(max_examples=30)  # every halving collects garbage, which takes a while
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 40))
def test_whatever_fits_each_row_is_worked_on_once(total: int, size: int, limit: int) -> None:
    batch, memory = AdaptiveBatch(size), Memory(limit)
    assert list(batch.map(total, memory)) == memory.done
    assert [row for start, stop in memory.done for row in range(start, stop)] == list(range(total))
    assert batch.size <= max(limit, 1) or not batch.halvings


def test_the_halved_size_stays_for_the_next_range() -> None:
    batch = AdaptiveBatch(8)
    list(batch.map(8, Memory(4)))
    assert list(batch.map(8, Memory(8))) == [(0, 4), (4, 8)]
    assert batch.halvings == [8]


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 7), st.integers(7, 40))
def test_every_range_but_the_last_is_a_multiple_even_after_a_halving(
    total: int, size: int, multiple: int, limit: int
) -> None:
    batch, memory = AdaptiveBatch(size), Memory(limit)
    done = list(batch.map(total, memory, multiple))
    assert [row for start, stop in done for row in range(start, stop)] == list(range(total))
    assert all((stop - start) % multiple == 0 for start, stop in done[:-1])
    assert all(start % multiple == 0 for start, _ in done)


def test_a_batch_smaller_than_the_multiple_is_worked_on_as_one_multiple() -> None:
    assert list(AdaptiveBatch(3).map(10, Memory(4), 4)) == [(0, 4), (4, 8), (8, 10)]


def test_a_multiple_that_does_not_fit_is_tried_at_every_size_and_then_refused() -> None:
    batch, memory = AdaptiveBatch(8), Memory(3)
    with pytest.raises(MemoryError, match="use a device with more memory"):
        list(batch.map(8, memory, 4))
    assert (batch.halvings, memory.done) == ([8, 4, 2], [])


def test_halving_by_hand_notes_what_did_not_fit() -> None:
    batch = AdaptiveBatch(8)
    batch.halve(5)
    batch.halve(1)
    assert (batch.size, batch.halvings) == (1, [5, 1])


def test_a_halving_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        list(AdaptiveBatch(8, logging.getLogger("run")).map(8, Memory(4)))
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with 8 samples at once, going on with 4"
    ]


def test_one_sample_that_does_not_fit_is_a_memory_error_that_says_what_to_do() -> None:
    batch = AdaptiveBatch(4)
    with pytest.raises(MemoryError, match=r"one sample: use a device with more memory.*Tried to allocate"):
        list(batch.map(4, Memory(0)))
    assert batch.halvings == [4, 2]


def test_other_errors_pass_through_without_a_second_try() -> None:
    calls = []

    def work(start: int, stop: int) -> None:
        calls.append((start, stop))
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        list(AdaptiveBatch(4).map(4, work))
    assert calls == [(0, 4)]


def test_torch_really_running_out_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_every_kind_of_out_of_memory_is_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_are_no_lack_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)


# batch_process_features


def process(drawn: Drawn, **options: Any) -> TopKTable:
    return batch_process_features(torch.from_numpy(drawn.dense), torch.from_numpy(drawn.counted), **options)


@pytest.mark.parametrize("size", [1, 32, 64, 128, 256, "256", "auto"])
def test_every_batch_size_gives_the_table_of_the_sequential_loop(size: int | str) -> None:
    drawn = random_features(150, 4, 12, seed=5)
    table = process(drawn, top_k=7, vectorization_batch_size=size)
    assert_same(table, legacy(drawn, 7))


@pytest.mark.slow
@given(encoded(), st.sampled_from([1, 2, 100]), min_activations, st.integers(1, 7))
def test_batch_process_features_equals_brute_force(drawn: Drawn, k: int, least: float, size: int) -> None:
    table = process(drawn, first_sample=9, top_k=k, min_activation=least, vectorization_batch_size=size)
    assert plain(table) == oracle.top_k(*drawn, first_sample=9, k=k, min_activation=least)


def test_all_positions_count_unless_said_otherwise() -> None:
    table = batch_process_features(torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]]))
    assert plain(table) == {0: [(3.0, 1, [(0, 3.0)]), (2.0, 0, [(1, 2.0), (0, 1.0)])]}


def test_half_precision_features_are_widened() -> None:
    dense = torch.tensor([[[0.5, 2.0]]], dtype=torch.bfloat16)
    assert_same(batch_process_features(dense), batch_process_features(dense.float()))


def test_running_out_of_memory_halves_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, real, sizes = random_features(40, 4, 6, seed=6), batching.dense_to_sparse, list[int]()

    def small_memory(dense: torch.Tensor) -> Any:
        sizes.append(len(dense))
        if len(dense) > 7:
            raise torch.OutOfMemoryError("out of memory")
        return real(dense)

    monkeypatch.setattr(batching, "dense_to_sparse", small_memory)
    assert_same(process(drawn, top_k=3, vectorization_batch_size=32), legacy(drawn, 3))
    assert sizes == [32, 16, 8, *[4] * 10]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_a_counted_position_that_is_not_finite_is_named(wrong: float) -> None:
    dense = torch.ones(5, 3, 2)
    dense[4, 2, 1] = wrong
    with pytest.raises(ValueError, match="NaN or an infinity in sample 104, position 2"):
        batch_process_features(dense, first_sample=100, vectorization_batch_size=2)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 4, 5)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \[samples, positions, features\], got shape"):
        batch_process_features(torch.ones(shape))


@pytest.mark.parametrize("counted", [torch.ones(3, 2, dtype=torch.bool), torch.ones(2, 3)])
def test_counted_of_another_shape_or_type_is_refused(counted: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"counted must be bool \[2, 3\]"):
        batch_process_features(torch.ones(2, 3, 4), counted)


def test_a_batch_size_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="vectorization_batch_size must be"):
        batch_process_features(torch.ones(2, 3, 4), vectorization_batch_size=0)


def test_no_samples_give_an_empty_table() -> None:
    assert len(batch_process_features(torch.ones(0, 3, 4)).neuron_index) == 0


def test_the_input_is_left_as_it_was() -> None:
    drawn = random_features(6, 4, 3, seed=8)
    before = drawn.dense.copy()
    process(drawn)
    assert np.array_equal(drawn.dense, before, equal_nan=True)
