"""A pass over a chunk: the tiny model and four SAEs at two hooks, however the work is cut up."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extraction_assets.engine.chunk_pass import sae_pass
from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import NonFiniteError, PassSettings
from extraction_assets.engine.chunk_pass.forward import (
    forward_pass,
    stored_activations,
)
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, UnfinishedChunk, chunk_steps, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.saes.formats import read_checkpoint
from extraction_assets.engine.saes.sae import SAE, load_sae, variance_explained
from extraction_assets.engine.selection.draws import DrawHeap, merge_draws
from extraction_assets.engine.selection.merge import DeferredTopKHeap, merge_top_k_tables
from extraction_assets.engine.selection.sparse import concatenate_rows, keep_counted, take_rows, to_dense, to_rows
from extraction_assets.engine.statistics.accumulate import merge_statistics
from extraction_assets_tests import draws_oracle, tiny
from extraction_assets_tests.engine import oracle
from extraction_assets_tests.engine.build import assert_same, plain, plain_draws, statistics_differences
from extraction_assets_tests.engine.chunk_pass.build import (
    CPU,
    FIRST,
    RULES,
    SAMPLES,
    SETTINGS,
    TILE,
    K,
    N,
    T,
    assert_same_draws,
    assert_same_result,
    at,
    features_of,
    run_pass,
    with_values,
)

# What a pass gives


def test_tables_and_statistics_are_those_of_brute_force_on_the_features(expected: ChunkResult) -> None:
    for result in expected.saes.values():
        drawn = to_dense(features_of(result)).numpy(), SAMPLES.counted.numpy()
        assert plain(result.table) == oracle.top_k(*drawn, first_sample=FIRST, k=K, min_activation=0.125)
        assert statistics_differences(result.statistics, oracle.firings(*drawn)) == []
        assert result.statistics.samples_seen == N
        assert result.statistics.tokens_seen == int(SAMPLES.counted.sum())


def test_draws_are_those_of_brute_force_on_the_features(expected: ChunkResult) -> None:
    for result in expected.saes.values():
        drawn = to_dense(features_of(result)).numpy(), SAMPLES.counted.numpy()
        right = draws_oracle.drawn(*drawn, first_sample=FIRST, seed=3, per_interval=2, of_all=3)
        assert plain_draws(result.draws) == right
        maxima = drawn[0].max(axis=1, where=drawn[1][:, :, None], initial=0)
        counts = [draws_oracle.populations([m for m in column if m > 0]) for column in maxima.T.tolist()]
        assert result.statistics.interval_samples.tolist() == counts


def test_the_firings_of_sampled_samples_are_all_kept(expected: ChunkResult) -> None:
    chosen = [row for row in range(N) if draws_oracle.is_sampled(3, FIRST + row, 4)]
    assert 0 < len(chosen) < N
    for result in expected.saes.values():
        dense = to_dense(keep_counted(features_of(result), SAMPLES.counted))
        assert (result.sampled.sample_index - FIRST).tolist() == chosen
        assert torch.equal(to_dense(take_rows(result.sampled.rows, 0, len(chosen))), dense[chosen])


def test_a_chunk_without_sampled_samples_has_rows_of_none(model: LanguageModel, tasks: list[SaeTask]) -> None:
    settings = SETTINGS._replace(draws=RULES._replace(sample_one_in=10**9))
    sampled = run_pass(forward_pass(model, SAMPLES, 4), tasks[:1], settings=settings).saes[tasks[0].name].sampled
    assert sampled.sample_index.tolist() == []
    assert sampled.rows.row_pointers.tolist() == [0]
    assert sampled.rows[3:] == (0, T, tiny.NUM_FEATURES)


@pytest.mark.parametrize("vectorized", [True, False])
def test_basic_statistics_draw_nothing_and_change_nothing_else(
    vectorized: bool, model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    settings = SETTINGS._replace(draws=None, vectorized=vectorized)
    result = run_pass(forward_pass(model, SAMPLES, 4), tasks, settings=settings)
    for name, basic in result.saes.items():
        full = expected.saes[name]
        assert basic.draws is None
        assert basic.sampled is None
        assert_same(basic.table, full.table)
        assert_same(basic.statistics, full.statistics._replace(interval_samples=None))


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


def test_a_pass_has_ended_when_its_results_are_first_waited_for(model: LanguageModel, tasks: list[SaeTask]) -> None:
    """Not when they are taken, which may be after another chunk is written."""
    steps = chunk_steps(SAMPLES, forward_pass(model, SAMPLES, 4), tasks, SETTINGS, AdaptiveBatch(5), CPU, [])
    with pytest.raises(StopIteration) as ended:
        while True:
            next(steps)
    unfinished: UnfinishedChunk = ended.value.value
    seconds = unfinished.wait()
    assert unfinished.result().seconds == seconds


def test_what_is_kept_is_counted(expected: ChunkResult, model: LanguageModel, tasks: list[SaeTask]) -> None:
    def kept_bytes(settings: PassSettings) -> int:
        steps = chunk_steps(SAMPLES, forward_pass(model, SAMPLES, 4), tasks, settings, AdaptiveBatch(5), CPU, [])
        with pytest.raises(StopIteration) as ended:
            while True:
                next(steps)
        unfinished: UnfinishedChunk = ended.value.value
        return unfinished.kept_bytes

    assert kept_bytes(SETTINGS._replace(keep_activations=False, keep_features=False)) == 0
    activations = sum(tensor.nbytes for tensor in expected.activations.values())
    assert kept_bytes(SETTINGS._replace(keep_features=False)) == activations
    firings = sum(part.values.nbytes for one in expected.saes.values() for part in one.feature_parts or ())
    assert kept_bytes(SETTINGS) > activations + 2 * firings


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
        draws = [part.saes[name].draws for part in reversed(parts)]
        assert_same(merge_draws([one for one in draws if one is not None], RULES, tiny.NUM_FEATURES), whole.draws)
        sampled = [part.saes[name].sampled for part in parts]
        assert_same(concatenate_rows([one.rows for one in sampled if one is not None]), whole.sampled.rows)


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

    class EagerDraws(DrawHeap):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, buffer_examples=0)

    monkeypatch.setattr(sae_pass, "DeferredTopKHeap", EagerHeap)
    monkeypatch.setattr(sae_pass, "DrawHeap", EagerDraws)
    assert_same_result(run_pass(forward_pass(model, SAMPLES, 4), tasks, size=size), expected)


@pytest.mark.parametrize("size", [1, 6, 64])
def test_stored_features_give_the_same_without_a_model(size: int, tasks: list[SaeTask], expected: ChunkResult) -> None:
    stored = [task._replace(stored_features=expected.saes[task.name].features) for task in tasks]
    result = run_pass(None, stored, size=size)
    for name, own in result.saes.items():
        assert_same(own.table, expected.saes[name].table)
        assert_same(own.statistics, expected.saes[name].statistics)
        assert_same_draws(own, expected.saes[name])
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
