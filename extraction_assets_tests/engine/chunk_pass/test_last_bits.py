"""Shapes and settings that matter to the last bits of a pass."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from extraction_assets.engine.chunk_pass import sae_pass
from extraction_assets.engine.chunk_pass.forward import (
    stored_activations,
)
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, numerics_record
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask, tile_samples
from extraction_assets.engine.saes.activation import Firings
from extraction_assets.engine.saes.sae import SAE
from extraction_assets_tests import tiny
from extraction_assets_tests.engine.chunk_pass.build import CPU, SAMPLES, SETTINGS, TILE, N, T, run_pass


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
