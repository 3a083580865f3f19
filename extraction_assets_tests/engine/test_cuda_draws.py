"""Draws on a GPU: as on the CPU and in the sequential loop, with the synchronisations and memory that are stated."""

from pathlib import Path

import pytest
import torch

from extraction_assets.engine.chunk_pass.batching import (
    AdaptiveBatch,
    available_memory_gb,
    calculate_optimal_vectorization_batch,
)
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, chunk_steps, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.saes.formats import SAEWeights
from extraction_assets.engine.saes.sae import SAE, load_sae
from extraction_assets.engine.selection import deferred
from extraction_assets.engine.selection.draws import DrawHeap, LowestHashFirst, merge_draws, select_with_draws
from extraction_assets.engine.selection.hashing import pair_hash, sample_keys, sampled
from extraction_assets.engine.selection.pairs import intervals_of, pairs_above
from extraction_assets.engine.selection.select import sample_maxima
from extraction_assets.engine.selection.sequential_draws import LegacyDraws
from extraction_assets.engine.selection.sequential_loop import LegacyHeaps
from extraction_assets.engine.selection.sparse import dense_to_sparse, keep_counted, to_rows
from extraction_assets.engine.shapes import DrawRules, Draws, Samples
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.chunk_pass.build import assert_same_draws
from extraction_assets_tests.engine.cuda import counted_synchronisations, limited_memory
from extraction_assets_tests.engine.strategies import random_features
from extraction_assets_tests.tiny import D_MODEL, NUM_FEATURES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
RULES = DrawRules(draw_seed=11, interval_examples=2, random_examples=3, sample_one_in=4)
FIRST = 2**33


def on_cpu(draws: Draws) -> Draws:
    return Draws(*(column.cpu() for column in draws))


def test_hashes_and_intervals_are_the_same_bits_as_on_the_cpu() -> None:
    numbers = torch.cat([torch.arange(100_000), 2**40 - torch.arange(1000), torch.tensor([0, 2**31, 10**12])])
    keys = sample_keys(2**32 - 1, numbers)
    assert torch.equal(sample_keys(2**32 - 1, numbers.to(CUDA)).cpu(), keys)
    assert torch.equal(pair_hash(keys.to(CUDA), numbers.to(CUDA)).cpu(), pair_hash(keys, numbers))
    assert torch.equal(sampled(0, numbers.to(CUDA), 16).cpu(), sampled(0, numbers, 16))
    values = (torch.arange(1, 2**31 - 2**23, 9973, dtype=torch.int64)).to(torch.int32).view(torch.float32)
    assert torch.equal(intervals_of(values.to(CUDA)).cpu(), intervals_of(values))


@pytest.mark.parametrize(("n", "t", "f"), [(1, 1, 1), (7, 5, 3), (64, 16, 33)])
def test_draws_on_the_gpu_equal_the_cpus_and_the_sequential_loops(n: int, t: int, f: int) -> None:
    drawn = random_features(n, t, f, seed=n)
    dense, counted = torch.from_numpy(drawn.dense), torch.from_numpy(drawn.counted)
    found = {}
    for device in (CPU, CUDA):
        features = keep_counted(dense_to_sparse(dense.to(device)), counted.to(device))
        pairs, heap = pairs_above(sample_maxima(features)), DrawHeap(f, RULES)
        floor, thresholds = torch.zeros(f, device=device), heap.thresholds(device)
        found[device] = select_with_draws(features, pairs, FIRST, 4, floor, LowestHashFirst(f, RULES), thresholds)
    loop = LegacyDraws(RULES)
    heaps = LegacyHeaps(f, 4, draws=loop)
    for row in range(n):
        heaps.add_sample(dense[row], counted[row], FIRST + row)
    assert_same(on_cpu(found[CUDA][1]), found[CPU][1])
    assert_same(found[CPU][1], loop.build_heaps())
    assert_same(found[CPU][0], type(found[CUDA][0])(*(column.cpu() for column in found[CUDA][0])))


def small_pass(folder: Path, device: torch.device, size: int, n: int = 96) -> ChunkResult:
    """A pass from stored features, which both devices read alike."""
    drawn = random_features(n, 16, NUM_FEATURES, seed=2, density=0.2)
    mask = torch.from_numpy(drawn.counted)
    rows = to_rows(keep_counted(dense_to_sparse(torch.from_numpy(drawn.dense)), mask))
    samples = Samples(torch.ones(n, 16, dtype=torch.int64), mask, mask, FIRST)
    task = SaeTask("small", "h", load_sae(folder, device), rows)
    settings = PassSettings(batch_size=8, top_k=5, draws=RULES)
    return run_chunk(samples, None, [task], settings, AdaptiveBatch(size), device, [])


@pytest.mark.parametrize("size", [1, 7, 96])
def test_a_pass_draws_on_the_gpu_what_it_draws_on_the_cpu(sae_folders: dict[str, Path], size: int) -> None:
    ours = small_pass(sae_folders["standard"], CUDA, size).saes["small"]
    theirs = small_pass(sae_folders["standard"], CPU, 64).saes["small"]
    assert_same_draws(ours, theirs)
    assert_same(ours.statistics, theirs.statistics)
    assert_same(ours.table, theirs.table)


def test_firings_that_one_key_does_not_hold_are_selected_the_plain_way(
    sae_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at F = 2^20 with samples of thousands of tokens."""
    kernels = pytest.importorskip("extraction_assets.engine.selection.kernels", reason="needs Triton")
    theirs = small_pass(sae_folders["standard"], CPU, 64).saes["small"]
    monkeypatch.setattr(kernels, "_KEY_BITS", 30)
    monkeypatch.setattr(kernels.Contenders, "collect", None)
    ours = small_pass(sae_folders["standard"], CUDA, 7).saes["small"]
    assert_same_draws(ours, theirs)
    assert_same(ours.statistics, theirs.statistics)
    assert_same(ours.table, theirs.table)


def test_merged_on_the_gpu_in_any_memory_draws_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, merge, calls = [], deferred._merge, list[int]()
    for number in range(4):
        drawn = random_features(40, 8, 64, seed=number)
        features = keep_counted(dense_to_sparse(torch.from_numpy(drawn.dense)), torch.from_numpy(drawn.counted))
        pairs, order, heap = pairs_above(sample_maxima(features)), LowestHashFirst(64, RULES), DrawHeap(64, RULES)
        thresholds = heap.thresholds(CPU)
        parts.append(select_with_draws(features, pairs, 40 * number, 4, torch.zeros(64), order, thresholds)[1])
    right = merge_draws(parts, RULES, 64)
    on_gpu = [Draws(*(column.to(CUDA) for column in part)) for part in reversed(parts)]
    assert_same(on_cpu(merge_draws(on_gpu, RULES, 64)), right)

    def limited(tables: list[Draws], *arguments: object) -> Draws:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return merge(tables, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(deferred, "_merge", limited)
    assert_same(on_cpu(merge_draws(on_gpu, RULES, 64)), right)


@pytest.mark.parametrize("one_in", [10**9, 1])
def test_full_statistics_synchronise_as_often_as_chunk_steps_says(sae_folders: dict[str, Path], one_in: int) -> None:
    """As often as basic ones, whether or not a batch holds a sampled sample."""
    pytest.importorskip("triton")
    hidden = torch.randn(96, 16, D_MODEL, generator=torch.Generator().manual_seed(3)).to(CUDA)
    mask = torch.ones(96, 16, dtype=torch.bool)
    samples = Samples(torch.ones(96, 16, dtype=torch.int64), mask, mask, 0)
    settings = PassSettings(batch_size=8, top_k=5, draws=RULES._replace(sample_one_in=one_in))
    task, batch = SaeTask("standard", "h", load_sae(sae_folders["standard"], CUDA)), AdaptiveBatch(8)
    steps = chunk_steps(samples, lambda a, b: {"h": hidden[a:b]}, [task], settings, batch, CUDA, [])
    assert [next(steps) for _ in range(5)] == [8] * 5
    for _ in range(7):
        with counted_synchronisations() as found:
            assert next(steps) == 8
        assert len(found) == 2


@pytest.mark.parametrize(("latent_dim", "gib"), [(131_072, 24), (2**20, 64)])
def test_very_many_features_fit_with_full_statistics(latent_dim: int, gib: int) -> None:
    """964 bytes a feature more than with basic ones: 126 MB, and 1 GB."""
    width, n, generator = 768, 48, torch.Generator(CUDA).manual_seed(0)
    weights = SAEWeights(
        architecture="standard",
        w_enc=torch.randn(width, latent_dim, device=CUDA, generator=generator) / width**0.5,
        b_enc=torch.full((latent_dim,), -3.5, device=CUDA),  # about one feature in 4,000 fires
        w_dec=torch.zeros(latent_dim, width, device=CUDA),
        b_dec=torch.zeros(width, device=CUDA),
    )
    hidden = torch.randn(n, 128, width, device=CUDA, generator=generator)
    with limited_memory(gib * 2**30):
        task = SaeTask("wide", "h", SAE(weights, CUDA))
        auto = calculate_optimal_vectorization_batch(available_memory_gb(CUDA), latent_dim, 128)
        batch, mask = AdaptiveBatch(auto), torch.ones(n, 128, dtype=torch.bool)
        samples = Samples(torch.ones(n, 128, dtype=torch.int64), mask, mask, 0)
        settings = PassSettings(16, top_k=100, draws=DrawRules())
        result = run_chunk(samples, lambda a, b: {"h": hidden[a:b]}, [task], settings, batch, CUDA, [0]).saes["wide"]
    assert batch.halvings == []
    assert result.draws is not None
    assert result.statistics.interval_samples is not None
    assert torch.equal(result.statistics.interval_samples.sum(1), result.statistics.sample_count)
    of_all = torch.bincount(result.draws.neuron_index[result.draws.interval == -1], minlength=latent_dim)
    assert torch.equal(of_all, result.statistics.sample_count.clamp(max=10))
