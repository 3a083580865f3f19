"""What tests of a pass over a chunk share: samples of every length, settings, and how two results are compared."""

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import (
    HookReader,
    stored_activations,
)
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.chunk_pass.sae_result import SaeResult
from extraction_assets.engine.selection.sparse import take_rows
from extraction_assets.engine.shapes import DrawRules, Samples, SparseFeatures
from extraction_assets_tests.engine.build import assert_same

N, T, K, FIRST = 23, 12, 3, 1000
TILE = 4  # samples of 12 positions: all of a forward batch
CPU = torch.device("cpu")
HOOKS = {"standard": "layers.0", "jumprelu": "layers.1", "topk": "layers.1", "gated": "layers.0"}
RULES = DrawRules(draw_seed=3, interval_examples=2, random_examples=3, sample_one_in=4)
SETTINGS = PassSettings(
    batch_size=4, top_k=K, min_activation=0.125, keep_activations=True, keep_features=True, draws=RULES
)


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
        if result.draws is not None or own.draws is not None:
            assert_same_draws(result, own)
        assert (result.features is None) == (own.features is None)
        if result.features is not None and own.features is not None:
            assert_same(result.features, own.features)
        assert result.probe.keys() == own.probe.keys()
        assert all(torch.equal(dense, own.probe[row]) for row, dense in result.probe.items())
        assert result.variance_explained == own.variance_explained


def assert_same_draws(one: SaeResult, other: SaeResult) -> None:
    assert one.draws is not None
    assert other.draws is not None
    assert one.sampled is not None
    assert other.sampled is not None
    assert_same(one.draws, other.draws)
    assert torch.equal(one.sampled.sample_index, other.sampled.sample_index)
    assert_same(one.sampled.rows, other.sampled.rows)


def with_values(expected: ChunkResult, where: Tensor, value: float, hook: str = "layers.1") -> HookReader:
    """The chunk's hook outputs with one number of each token in ``where`` [n, T] replaced."""
    activations = {name: tensor.clone() for name, tensor in expected.activations.items()}
    activations[hook][..., 7] = torch.where(where, value, activations[hook][..., 7])
    return stored_activations(activations, CPU)


def at(row: int, position: int) -> Tensor:
    where = torch.zeros(N, T, dtype=torch.bool)
    where[row, position] = True
    return where
