"""A pass over a chunk: the tiny model and four SAEs at two hooks, however the work is cut up."""

import weakref
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from extraction_assets.engine import memory
from extraction_assets.engine.chunk_pass import sae_pass
from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import NonFiniteError, PassSettings
from extraction_assets.engine.chunk_pass.forward import (
    ForwardOutOfMemoryError,
    HookReader,
    forward_pass,
    stored_activations,
)
from extraction_assets.engine.chunk_pass.gpu_pass import ChunkResult, chunk_steps, numerics_record, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeResult, SaeTask, tile_samples
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.saes.activation import Firings
from extraction_assets.engine.saes.formats import read_checkpoint
from extraction_assets.engine.saes.sae import SAE, load_sae, variance_explained
from extraction_assets.engine.selection.merge import DeferredTopKHeap, merge_top_k_tables
from extraction_assets.engine.selection.sparse import keep_counted, take_rows, to_dense, to_rows
from extraction_assets.engine.selection.statistics.accumulate import merge_statistics
from extraction_assets.engine.shapes import Samples, SparseFeatures
from extraction_assets_tests import tiny
from extraction_assets_tests.engine import oracle
from extraction_assets_tests.engine.build import assert_same, plain, statistics_differences
from extraction_assets_tests.engine.checkpoints import local

N, T, K, FIRST = 23, 12, 3, 1000
TILE = 4  # samples of 12 positions: all of a forward batch
CPU = torch.device("cpu")
HOOKS = {"standard": "layers.0", "jumprelu": "layers.1", "topk": "layers.1", "gated": "layers.0"}
SETTINGS = PassSettings(batch_size=4, top_k=K, min_activation=0.125, keep_activations=True, keep_features=True)


@pytest.fixture(scope="module")
def model(llama: str) -> LanguageModel:
    return load_language_model(local(llama), ["layers.0", "layers.1"])


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


def features_of(result: SaeResult) -> SparseFeatures:
    """The features that were kept."""
    assert result.features is not None
    return take_rows(result.features, 0, result.features.num_samples)


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
        drawn = to_dense(features_of(result)).numpy(), SAMPLES.counted.numpy()
        assert plain(result.table) == oracle.top_k(*drawn, first_sample=FIRST, k=K, min_activation=0.125)
        assert statistics_differences(result.statistics, oracle.firings(*drawn)) == []
        assert result.statistics.samples_seen == N
        assert result.statistics.tokens_seen == int(SAMPLES.counted.sum())


def test_features_are_those_of_encoding_each_tile_alone(expected: ChunkResult, tasks: list[SaeTask]) -> None:
    for task in tasks:
        activations = torch.nn.functional.pad(expected.activations[task.hook], (0, 0, 0, 0, 0, -N % TILE))
        dense = torch.cat([task.sae.encode(tile) for tile in activations.view(-1, tiny.D_MODEL).split(TILE * T)])
        own = dense.view(-1, T, tiny.NUM_FEATURES)[:N].where(SAMPLES.attention_mask[:, :, None], 0.0)
        assert torch.equal(to_dense(features_of(expected.saes[task.name])), own)


def test_every_feature_table_is_full_or_has_every_example(expected: ChunkResult) -> None:
    for result in expected.saes.values():
        lengths = torch.bincount(result.table.neuron_index, minlength=tiny.NUM_FEATURES)
        assert lengths.max() == K
        assert bool((lengths <= result.statistics.sample_count).all())


def test_the_probe_holds_counted_features_of_the_asked_rows(expected: ChunkResult) -> None:
    for result in expected.saes.values():
        dense = to_dense(keep_counted(features_of(result), SAMPLES.counted))
        assert sorted(result.probe) == [0, 11, 22]
        assert all(torch.equal(own, dense[row]) for row, own in result.probe.items())


def test_variance_is_that_of_the_counted_positions(expected: ChunkResult, tasks: list[SaeTask]) -> None:
    for task in tasks:
        result = expected.saes[task.name]
        reconstruction = task.sae.decode(features_of(result))
        by_hand = variance_explained(expected.activations[task.hook], reconstruction, SAMPLES.counted)
        assert result.variance_explained == pytest.approx(by_hand, rel=1e-6)


@pytest.fixture(scope="module")
def transcoder(tmp_path_factory: pytest.TempPathFactory) -> SaeTask:
    """Reads layers.0 and gives layers.1."""
    folder = tiny.make_sae(tmp_path_factory.mktemp("transcoder") / "sae", "jumprelu_skip_transcoder", seed=9)
    return SaeTask("transcoder", "layers.0", load_sae(folder), hook_out="layers.1")


@pytest.mark.parametrize("size", [3, 64])
def test_a_transcoder_is_scored_against_its_output_hook(size: int, model: LanguageModel, transcoder: SaeTask) -> None:
    result = run_pass(forward_pass(model, SAMPLES, 4), [transcoder], size=size)
    own, found = result.saes["transcoder"], result.activations
    reconstruction = transcoder.sae.decode(features_of(own), found["layers.0"])
    by_hand = variance_explained(found["layers.1"], reconstruction, SAMPLES.counted)
    assert own.variance_explained == pytest.approx(by_hand, rel=1e-6)
    assert by_hand != pytest.approx(variance_explained(found["layers.0"], reconstruction, SAMPLES.counted), rel=0.01)


def test_a_nan_in_the_output_hook_of_a_transcoder_is_named(
    transcoder: SaeTask, model: LanguageModel, expected: ChunkResult
) -> None:
    read = with_values(expected, at(22, 4), float("nan"), "layers.1")
    with pytest.raises(NonFiniteError, match=r"the output of hook 'layers.1' holds a NaN"):
        run_pass(read, [transcoder])


@pytest.mark.parametrize("changes", [{"normalize_activations": "layer_norm"}, {"center": True}])
def test_variance_is_that_of_what_the_sae_reconstructs(
    changes: dict[str, Any], model: LanguageModel, tmp_path: Path
) -> None:
    center = changes.pop("center", None)
    folder = tiny.make_sae(tmp_path / "sae", **changes)
    sae = SAE(read_checkpoint(folder, center_input=center))
    result = run_pass(forward_pass(model, SAMPLES, 4), [SaeTask("own", "layers.0", sae)])
    x = result.activations["layers.0"]
    target = x - x.mean(dim=-1, keepdim=True) if center else x
    by_hand = variance_explained(target, sae.decode(features_of(result.saes["own"]), x), SAMPLES.counted)
    assert result.saes["own"].variance_explained == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_variance_is_scored_on_the_first_samples_alone(
    size: int, monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    monkeypatch.setattr(sae_pass, "RECONSTRUCTION_SAMPLES", 7)
    first = run_pass(stored_activations(expected.activations, CPU), tasks, samples=SAMPLES.part(0, 7))
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


def test_seconds_are_given_for_each_stage(expected: ChunkResult, tasks: list[SaeTask]) -> None:
    assert expected.stage_seconds.keys() == {"forward", "encode", "select"}
    assert all(seconds > 0 for seconds in expected.stage_seconds.values())
    assert sum(expected.stage_seconds.values()) <= expected.seconds
    stored = [task._replace(stored_features=expected.saes[task.name].features) for task in tasks]
    assert run_pass(None, stored).stage_seconds.keys() == {"encode", "select"}


def test_the_tokens_of_a_tile_are_given_where_features_are_computed(
    expected: ChunkResult, tasks: list[SaeTask]
) -> None:
    assert {result.encode_tile_tokens for result in expected.saes.values()} == {TILE * T}
    stored = [task._replace(stored_features=expected.saes[task.name].features) for task in tasks]
    assert {result.encode_tile_tokens for result in run_pass(None, stored).saes.values()} == {None}


# What does not change a bit


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 22, 64, 256])
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


def assert_merged_in_reverse(parts: list[ChunkResult], expected: ChunkResult) -> None:
    for name, whole in expected.saes.items():
        tables = [part.saes[name].table for part in reversed(parts)]
        assert_same(merge_top_k_tables(tables, K, tiny.NUM_FEATURES), whole.table)
        assert_same(merge_statistics([part.saes[name].statistics for part in reversed(parts)]), whole.statistics)


@pytest.mark.parametrize("bounds", [[0, 23], [0, 7, 8, 23], [0, 12, 23], list(range(24))])
@pytest.mark.parametrize("size", [1, 5])
def test_any_chunks_of_the_same_features_merged_in_any_order_give_the_same(
    bounds: list[int], size: int, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    features, parts = {name: result.features for name, result in expected.saes.items()}, []
    for start, stop in pairwise(bounds):
        own = []
        for task in tasks:
            rows = features[task.name]
            assert rows is not None
            own.append(task._replace(stored_features=to_rows(take_rows(rows, start, stop))))
        parts.append(run_chunk(SAMPLES.part(start, stop), None, own, SETTINGS, AdaptiveBatch(size), CPU, probe_rows=[]))
    assert_merged_in_reverse(parts, expected)


@pytest.mark.parametrize("bounds", [[0, 23], [0, 4, 8, 23], [0, 12, 23], [0, 4, 8, 12, 16, 20, 23]])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_chunks_of_whole_forward_batches_give_the_same_when_everything_is_computed(
    bounds: list[int], size: int, model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    parts = []
    for start, stop in pairwise(bounds):
        part, batch = SAMPLES.part(start, stop), AdaptiveBatch(size)
        parts.append(run_chunk(part, forward_pass(model, part, 4), tasks, SETTINGS, batch, CPU, probe_rows=[]))
    assert_merged_in_reverse(parts, expected)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_floor_that_rises_during_the_pass_changes_nothing(
    size: int, monkeypatch: pytest.MonkeyPatch, model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    class EagerHeap(DeferredTopKHeap):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, buffer_examples=0)

    monkeypatch.setattr(sae_pass, "DeferredTopKHeap", EagerHeap)
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
def test_a_hook_output_that_is_not_finite_names_hook_sae_and_sample(
    value: float, size: int, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    message = r"output of hook 'layers\.1', which SAE 'jumprelu' reads, holds a NaN .* in sample 1022, position 4"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(with_values(expected, at(22, 4), value), tasks, size=size)


@pytest.mark.parametrize("name", ["standard", "jumprelu", "topk", "gated"])
@pytest.mark.parametrize("keep_features", [False, True])
def test_each_architecture_notices_a_hook_output_that_is_not_finite(
    name: str, keep_features: bool, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    (task,) = [task for task in tasks if task.name == name]
    read = with_values(expected, at(22, 4), float("nan"), task.hook)
    message = f"hook '{task.hook}', which SAE '{name}' reads, holds a NaN or an infinity in sample 1022, position 4"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(read, [task], settings=SETTINGS._replace(keep_features=keep_features))


@pytest.mark.parametrize("stored", [False, True])
def test_a_hook_that_no_sae_encodes_is_looked_at_directly(
    stored: bool, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    """Neither a hook without SAEs nor one whose SAEs have stored features is encoded."""
    features = expected.saes["jumprelu"].features
    own = [tasks[1]._replace(stored_features=features)] if stored else [tasks[0]]
    message = r"the output of hook 'layers\.1' holds a NaN or an infinity in sample 1022, position 4"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(with_values(expected, at(22, 4), float("nan")), own)


def test_the_first_of_several_broken_samples_is_named(tasks: list[SaeTask], expected: ChunkResult) -> None:
    with pytest.raises(NonFiniteError, match="in sample 1018, position 5"):
        run_pass(with_values(expected, at(22, 4) | at(18, 6) | at(18, 5), float("nan")), tasks, size=64)


def test_a_pre_activation_that_overflows_names_sae_hook_and_sample(tasks: list[SaeTask], expected: ChunkResult) -> None:
    message = r"pre-activations of SAE 'jumprelu' at 'layers\.1' holds a NaN or an infinity in sample 1018, position 5"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(with_values(expected, at(18, 5), 3e38), tasks)


def test_a_model_with_broken_weights_is_noticed(llama: str, tasks: list[SaeTask]) -> None:
    broken = load_language_model(local(llama), ["layers.0", "layers.1"])
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


@pytest.mark.parametrize("keep_features", [False, True])
def test_kept_features_say_whether_all_their_tokens_are_finite(
    keep_features: bool, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    settings = SETTINGS._replace(keep_features=keep_features)
    read = with_values(expected, SAMPLES.attention_mask & ~SAMPLES.counted, float("nan"))
    found = {name: own.all_finite for name, own in run_pass(read, tasks, settings=settings).saes.items()}
    assert found["standard"] is found["gated"] is True
    assert found["jumprelu"] is found["topk"] is not keep_features
    assert all(own.all_finite for own in expected.saes.values())


# Running out of memory


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
    real = sae_pass.sample_maxima

    def sample_maxima(features: SparseFeatures) -> Tensor:
        if features.num_samples > samples:
            raise out_of_memory()
        return real(features)

    monkeypatch.setattr(sae_pass, "sample_maxima", sample_maxima)


def limit_statistics(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """Working out the statistics of more samples at once runs out of memory."""
    real = sae_pass.statistics_update

    def statistics_update(features: SparseFeatures, maxima: Tensor) -> Any:
        if features.num_samples > samples:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(features, maxima)

    monkeypatch.setattr(sae_pass, "statistics_update", statistics_update)


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
) -> None:
    monkeypatch.setattr(sae_pass, "_TILE_TOKENS", tile * T)
    unhindered = run_pass(forward_pass(model, SAMPLES, 4), tasks, size=1)
    limit_memory(monkeypatch, samples_that_fit * T)
    batch, settings = AdaptiveBatch(16), SETTINGS._replace(vectorized=vectorized)
    result = run_pass(forward_pass(model, SAMPLES, 4), tasks, batch=batch, settings=settings)
    assert_same_result(result, unhindered)
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


def test_a_selection_that_failed_encodes_its_range_again_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    tried, done = limit_memory(monkeypatch, N * T), list[int]()
    real = sae_pass.select_top_k

    def select_top_k(features: SparseFeatures, *arguments: Any) -> Any:
        if len(done) == 1:
            done.append(0)  # once, at the second batch
            raise out_of_memory()
        done.append(features.num_samples)
        return real(features, *arguments)

    monkeypatch.setattr(sae_pass, "select_top_k", select_top_k)
    batch = AdaptiveBatch(8)
    result = run_pass(stored_activations(expected.activations, CPU), tasks[:1], batch=batch)
    assert (tried, done) == ([8, 8, 4, 4, 4, 4], [8, 0, 4, 4, 4, 3])
    assert batch.halvings == [8]
    assert_same(result.saes["standard"].statistics, expected.saes["standard"].statistics)
    assert_same(result.saes["standard"].table, expected.saes["standard"].table)


def test_memory_that_runs_out_after_encoding_counts_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    real, calls = sae_pass.statistics_update, list[int]()

    def statistics(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) in (2, 5):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(*arguments)

    monkeypatch.setattr(sae_pass, "statistics_update", statistics)
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


# Shapes and settings that matter to the last bits


class Products(TorchDispatchMode):
    """Notes the number of rows of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = set[int]()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function.name().removeprefix("aten::").split(".")[0]
        if name in ("mm", "addmm", "bmm", "_scaled_mm"):
            matrix = arguments[1] if name == "addmm" else arguments[0]
            self.rows.add(matrix.shape[-2])
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("tile", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_every_matrix_product_takes_one_tile(
    tile: int, size: int, monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    monkeypatch.setattr(sae_pass, "_TILE_TOKENS", tile * T)
    with Products() as products:
        result = run_pass(stored_activations(expected.activations, CPU), tasks, size=size)
    assert products.rows == {tile * T}
    assert {own.encode_tile_tokens for own in result.saes.values()} == {tile * T}


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("keep_features", [False, True])
def test_tokens_that_nobody_wants_are_not_encoded(
    size: int, keep_features: bool, monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    real, firing = SAE.encode_sparse, list[Tensor]()

    def encode_sparse(self: SAE, activations: Tensor, tile: int, wanted: Tensor) -> Firings:
        firings = real(self, activations, tile, wanted)
        assert wanted[firings.tokens].all()
        firing.append(wanted.view(-1, T))
        return firings

    monkeypatch.setattr(SAE, "encode_sparse", encode_sparse)
    settings = SETTINGS._replace(keep_features=keep_features)
    run_pass(stored_activations(expected.activations, CPU), tasks[:1], size=size, settings=settings)
    filled = torch.cat(firing)
    assert torch.equal(filled[:N], SAMPLES.attention_mask if keep_features else SAMPLES.counted)
    assert not filled[N:].any()


@pytest.mark.parametrize(
    ("batch_size", "num_positions", "num_features", "samples"),
    [
        (128, 128, 16_384, 16),  # 2,048 tokens, 8 MiB a sample
        (128, 128, 65_536, 4),  # 32 MiB a sample, 128 MiB in all
        (128, 128, 65_537, 2),  # 4 of them are a little more than 128 MiB
        (128, 128, 2**20, 1),  # not even one fits
        (128, 128, 48, 16),
        (128, 4096, 48, 1),
        (48, 128, 16_384, 16),
        (6, 128, 65_536, 3),  # 4 does not divide 6
        (7, 128, 65_536, 1),
        (1, 1, 1, 1),
        (4, T, tiny.NUM_FEATURES, TILE),
    ],
)
def test_the_samples_of_a_tile_by_hand(batch_size: int, num_positions: int, num_features: int, samples: int) -> None:
    assert tile_samples(batch_size, num_positions, num_features) == samples


@given(st.integers(1, 300), st.integers(1, 5000), st.integers(1, 2**21))
def test_a_tile_is_the_largest_divisor_of_the_batch_that_fits(
    batch_size: int, num_positions: int, num_features: int
) -> None:
    def fits(samples: int) -> bool:
        tokens = samples * num_positions
        return batch_size % samples == 0 and tokens <= 2048 and tokens * num_features * 4 <= 128 * 2**20

    samples = tile_samples(batch_size, num_positions, num_features)
    assert samples == 1 or fits(samples)
    assert not any(fits(larger) for larger in range(samples + 1, batch_size + 1))


def test_the_sae_encodes_with_the_asked_matmul_precision(
    monkeypatch: pytest.MonkeyPatch, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    real, seen, before = SAE.encode_sparse, set[str](), torch.get_float32_matmul_precision()

    def encode_sparse(*arguments: Any) -> Firings:
        seen.add(torch.get_float32_matmul_precision())
        return real(*arguments)

    monkeypatch.setattr(SAE, "encode_sparse", encode_sparse)
    settings = SETTINGS._replace(matmul_precision="medium")
    run_pass(stored_activations(expected.activations, CPU), tasks, settings=settings)
    assert (seen, torch.get_float32_matmul_precision()) == ({"medium"}, before)


def test_the_numerics_record_names_what_can_change_last_bits() -> None:
    record: Mapping[str, Any] = numerics_record(CPU, "float32", SETTINGS)
    assert (record["dtype"], record["batch_size"], record["matmul_precision"]) == ("float32", 4, "high")
    assert record["torch"] == torch.__version__
    assert record != numerics_record(CPU, "float32", SETTINGS._replace(batch_size=8))
    assert record == numerics_record(CPU, "float32", SETTINGS._replace(top_k=9, vectorized=False))
    assert record == numerics_record(CPU, "float32", SETTINGS, kernels={})
    assert numerics_record(CPU, "float32", SETTINGS, kernels={"kernels": "1"})["kernels"] == {"kernels": "1"}
