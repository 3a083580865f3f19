"""What only a GPU can show: the same engine on CUDA tensors, and memory that really runs out."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from extraction_assets.engine.batching import AdaptiveBatch, available_memory_gb
from extraction_assets.engine.gpu_pass import ChunkResult, PassSettings, SaeTask, forward_pass
from extraction_assets.engine.language_model import load_language_model
from extraction_assets.engine.legacy import LegacyHeaps
from extraction_assets.engine.sae import load_sae
from extraction_assets.engine.select import sample_maxima, select_top_k, vectorized_top_k_positions
from extraction_assets.engine.shapes import Samples
from extraction_assets.engine.sparse import dense_to_sparse, keep_counted
from extraction_assets.engine.statistics import feature_statistics
from extraction_assets_tests.engine.build import run_chunk
from extraction_assets_tests.tiny import make_sae

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)


def _tied_features(n: int, t: int, f: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n * t * f)
    return (torch.randint(-6, 4, (n, t, f), generator=generator) / 4).clamp(min=-0.0)


def _equal(ours: tuple[object, ...], theirs: tuple[object, ...]) -> bool:
    return all(
        torch.equal(torch.as_tensor(a).cpu(), torch.as_tensor(b).cpu()) for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize(("n", "t", "f", "k"), [(7, 5, 33, 3), (16, 32, 64, 100), (1, 1, 1, 1), (64, 16, 1000, 10)])
def test_selection_on_the_gpu_equals_the_legacy_loop(n: int, t: int, f: int, k: int) -> None:
    features = _tied_features(n, t, f)
    counted = torch.rand(n, t, generator=torch.Generator().manual_seed(1)) > 0.2
    heaps = LegacyHeaps(f, k)
    for row in range(n):
        heaps.add_sample(features[row], counted[row], 50 + row)
    sparse = keep_counted(dense_to_sparse(features.to(CUDA)), counted.to(CUDA))
    assert _equal(select_top_k(sparse, sample_maxima(sparse), 50, k), heaps.build_heaps())


def test_statistics_on_the_gpu_equal_those_on_the_cpu() -> None:
    features, counted = torch.randn(64, 128, 300).mul(30).exp(), torch.rand(64, 128) > 0.1
    on_cpu = keep_counted(dense_to_sparse(features), counted)
    on_gpu = keep_counted(dense_to_sparse(features.to(CUDA)), counted.to(CUDA))
    theirs = feature_statistics(on_cpu, sample_maxima(on_cpu), counted)
    assert _equal(feature_statistics(on_gpu, sample_maxima(on_gpu), counted.to(CUDA)), theirs)


def test_top_positions_on_the_gpu_equal_those_on_the_cpu() -> None:
    features = _tied_features(8, 40, 200)
    assert _equal(vectorized_top_k_positions(features.to(CUDA), 5), vectorized_top_k_positions(features, 5))


@pytest.fixture
def samples() -> Samples:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 300, (40, 16), generator=generator)
    mask = torch.arange(16) < torch.randint(1, 17, (40, 1), generator=generator)
    return Samples(ids, mask, mask.clone(), 1000)


def _run(tiny_folder: Path, samples: Samples, size: int) -> tuple[ChunkResult, AdaptiveBatch]:
    model = load_language_model(str(tiny_folder / "model"), ["layers.0", "layers.1"], device=CUDA)
    tasks = [
        SaeTask("relu", "layers.0", load_sae(tiny_folder / "relu", CUDA)),
        SaeTask("topk", "layers.1", load_sae(tiny_folder / "topk", CUDA)),
    ]
    settings, batch = PassSettings(batch_size=8, top_k=5, keep_features=True), AdaptiveBatch(size)
    reader = forward_pass(model, samples, settings.batch_size)
    return run_chunk(samples, reader, tasks, settings, batch, CUDA, [0, 7]), batch


@pytest.mark.parametrize("size", [1, 3, 32, 256])
def test_a_pass_on_the_gpu_does_not_depend_on_the_vectorization_batch(
    tiny_folder: Path, samples: Samples, size: int
) -> None:
    ours, theirs = (_run(tiny_folder, samples, s)[0].saes for s in (size, 64))
    for name in ("relu", "topk"):
        assert _equal(ours[name].table, theirs[name].table)
        assert _equal(ours[name].statistics, theirs[name].statistics)


@contextlib.contextmanager
def limited_memory(num_bytes: float) -> Iterator[None]:
    """At most so many bytes for this process."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(num_bytes / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_memory_that_runs_out_halves_the_batch_and_changes_no_result(
    tmp_path: Path, samples: Samples, architecture: str
) -> None:
    """At F = 65,536 the 40 samples of 16 tokens take 160 MiB of dense features, and more on the way."""
    sae = load_sae(make_sae(tmp_path / "wide", architecture, d_sae=65_536), CUDA)
    hidden = torch.randn(40, 16, 16, generator=torch.Generator().manual_seed(3)).to(CUDA)

    def run(size: int) -> tuple[ChunkResult, AdaptiveBatch]:
        batch, settings = AdaptiveBatch(size), PassSettings(batch_size=40, top_k=3)
        tasks = [SaeTask("wide", "h", sae)]
        return run_chunk(samples, lambda a, b: {"h": hidden[a:b]}, tasks, settings, batch, CUDA, [0]), batch

    torch.cuda.reset_peak_memory_stats()
    expected, whole = run(256)
    assert not whole.halvings
    with limited_memory(0.8 * torch.cuda.max_memory_allocated()):
        result, batch = run(256)
    assert batch.halvings[0] == 40
    assert batch.size < 40
    assert _equal(result.saes["wide"].table, expected.saes["wide"].table)
    assert _equal(result.saes["wide"].statistics, expected.saes["wide"].statistics)


def test_available_memory_respects_the_process_fraction() -> None:
    with limited_memory(2**28):
        assert 0 <= available_memory_gb(CUDA) <= 0.25
