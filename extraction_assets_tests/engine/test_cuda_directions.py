"""The logit lens and the nearest rows on a GPU are those of the CPU."""

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.directions.logit_lens import LogitLens, logit_lens
from extraction_assets.engine.directions.nearest import nearest_rows, unit_rows
from extraction_assets_tests.engine.directions.oracle import cosines_of, logits_of, make_unembedding

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)
F, V, D = 1500, 20_011, 256


def decoder() -> Tensor:
    return torch.randn(F, D, generator=torch.Generator().manual_seed(5))


def lens_on(device: torch.device | str) -> LogitLens:
    unembedding = make_unembedding(V, D, is_centred=True)
    return logit_lens(decoder().to(device), unembedding._replace(weight=unembedding.weight.to(device)))


def same_but_near_ties(ours: Tensor, theirs: Tensor, exact: Tensor, tolerance: float) -> None:
    """Columns [n, k] of both devices name entries of ``exact`` [n, W] that differ by rounding alone."""
    one, other = exact.gather(1, ours), exact.gather(1, theirs)
    assert float((one - other).abs().max()) <= tolerance
    assert float((ours == theirs).float().mean()) > 0.99


def test_top_and_bottom_tokens_are_those_of_the_cpu_but_for_near_ties() -> None:
    gpu, cpu = lens_on(CUDA), lens_on("cpu")
    exact = torch.from_numpy(logits_of(decoder(), make_unembedding(V, D, is_centred=True)))
    tolerance = 1e-5 * float(exact.abs().max())  # with TF32 it would be 1e-3
    same_but_near_ties(gpu.top_tokens, cpu.top_tokens, exact, tolerance)
    same_but_near_ties(gpu.bottom_tokens, cpu.bottom_tokens, exact, tolerance)


def test_logits_and_moments_are_those_of_the_cpu() -> None:
    gpu, cpu = lens_on(CUDA), lens_on("cpu")
    for name in ("top_logits", "bottom_logits", "mean", "std", "minimum", "maximum"):
        torch.testing.assert_close(getattr(gpu, name), getattr(cpu, name), rtol=1e-5, atol=2e-4)
    edges = (gpu.histogram.cumsum(1) - cpu.histogram.cumsum(1)).abs()
    assert int(edges.max()) <= 3  # tokens at an edge of two bins


def test_a_gpu_gives_the_same_bits_twice() -> None:
    for one, other in zip(lens_on(CUDA), lens_on(CUDA), strict=True):
        assert torch.equal(one, other)


def test_nearest_rows_are_those_of_the_cpu_but_for_near_ties() -> None:
    rows = decoder()
    gpu, cpu = (nearest_rows(one, one, 0, is_itself=True) for one in (unit_rows(rows.to(CUDA)), unit_rows(rows)))
    same_but_near_ties(gpu.feature, cpu.feature, torch.from_numpy(cosines_of(rows, rows)), 1e-6)
    torch.testing.assert_close(gpu.cosine, cpu.cosine, rtol=0, atol=2e-6)
