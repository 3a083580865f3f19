"""More samples than the largest batch, and widths at which rows of the encoded features are not aligned in memory."""

from pathlib import Path

import pytest
import torch

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.one_chunk import run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.chunk_pass.sae_result import SaeResult
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.engine.shapes import Samples
from extraction_assets_tests.engine.chunk_pass.build import RULES, assert_same_draws
from extraction_assets_tests.tiny import make_sae

N, T, D, F = 300, 3, 768, 1027


@pytest.fixture(scope="module", params=["standard", "topk"])
def sae_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sae(tmp_path_factory.mktemp("odd") / "sae", request.param, d_in=D, d_sae=F)


def _run(folder: Path, size: int) -> SaeResult:
    hidden = torch.randn(N, T, D, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(N, T, dtype=torch.bool)
    samples = Samples(torch.ones(N, T, dtype=torch.int64), everywhere, everywhere, 0)
    task, settings = SaeTask("odd", "h", load_sae(folder)), PassSettings(batch_size=128, top_k=10, draws=RULES)
    cpu = torch.device("cpu")
    result = run_chunk(samples, lambda a, b: {"h": hidden[a:b]}, [task], settings, AdaptiveBatch(size), cpu, [0])
    return result.saes["odd"]


@pytest.mark.parametrize("size", [1, 32, 64, 100, 129, 256])
def test_the_vectorization_batch_changes_no_bit(sae_folder: Path, size: int) -> None:
    ours, theirs = _run(sae_folder, size), _run(sae_folder, 128)
    assert all(torch.equal(a, b) for a, b in zip(ours.table, theirs.table, strict=True))
    pairs = zip(ours.statistics, theirs.statistics, strict=True)
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)
    assert_same_draws(ours, theirs)
