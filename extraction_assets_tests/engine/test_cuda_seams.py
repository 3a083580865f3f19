"""Chunks one behind the other on a GPU: the next one's first forward pass is queued before this one's tables end."""

from pathlib import Path

import pytest
import torch

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassContext, PassSettings
from extraction_assets.engine.chunk_pass.forward import QueuedForward, forward_pass, queue_forward
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, chunk_steps, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.chunk_pass.staging import to_device
from extraction_assets.engine.models.forward.hooked import LanguageModel
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.engine.shapes import DrawRules, Samples
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.cuda import counted_synchronisations

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)
SETTINGS = PassSettings(batch_size=8, top_k=5, keep_features=True, draws=DrawRules(sample_one_in=2))
GROUP = (0, 8)


@pytest.fixture
def model(tiny_folder: Path) -> LanguageModel:
    return load_language_model(local(tiny_folder / "model"), ["layers.0"], device=CUDA)


@pytest.fixture
def tasks(tiny_folder: Path) -> list[SaeTask]:
    return [SaeTask("relu", "layers.0", load_sae(tiny_folder / "relu", CUDA))]


@pytest.fixture
def chunks() -> list[Samples]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 300, (72, 16), generator=generator)
    mask = torch.arange(16) < torch.randint(1, 17, (72, 1), generator=generator)
    whole = Samples(ids, mask, mask.clone(), 1000)
    return [whole.part(start, start + 24) for start in (0, 24, 48)]


def _in_a_row(model: LanguageModel, tasks: list[SaeTask], chunks: list[Samples]) -> list[ChunkResult]:
    """As a run computes them."""
    results, queued = list[ChunkResult](), list[QueuedForward]()
    for samples, coming in zip(chunks, [*chunks[1:], None], strict=True):

        def queue_next(coming: Samples | None = coming) -> None:
            if coming is not None:
                queued.append(queue_forward(forward_pass(model, coming, 8), GROUP, CUDA))

        first = queued.pop() if queued else None
        reader, batch = forward_pass(model, samples, 8), AdaptiveBatch(8)
        steps = chunk_steps(samples, reader, tasks, SETTINGS, batch, CUDA, [0, 7], first, queue_next)
        try:
            while True:
                next(steps)
        except StopIteration as done:
            results.append(done.value.result())
    return results


def test_chunks_in_a_row_give_what_each_gives_alone(
    model: LanguageModel, tasks: list[SaeTask], chunks: list[Samples]
) -> None:
    for found, samples in zip(_in_a_row(model, tasks, chunks), chunks, strict=True):
        reader = forward_pass(model, samples, 8)
        alone = run_chunk(samples, reader, tasks, SETTINGS, AdaptiveBatch(8), CUDA, [0, 7]).saes["relu"]
        ours = found.saes["relu"]
        for part in ("table", "statistics", "features", "draws"):
            assert_same(getattr(ours, part), getattr(alone, part))
        assert_same(ours.sampled.rows, alone.sampled.rows)  # type: ignore[union-attr]
        assert ours.variance_explained == alone.variance_explained
        assert all(torch.equal(dense, alone.probe[row]) for row, dense in ours.probe.items())


def test_seconds_of_a_queued_pass_are_its_own_chunks(
    model: LanguageModel, tasks: list[SaeTask], chunks: list[Samples]
) -> None:
    assert all(result.stage_seconds["forward"] > 0 for result in _in_a_row(model, tasks, chunks))


def test_queueing_the_next_chunk_waits_for_nothing(model: LanguageModel, chunks: list[Samples]) -> None:
    """But for what the model itself waits for."""
    hidden = torch.zeros(24, 16, 8, device=CUDA)
    with counted_synchronisations() as found:
        forward_pass(model, chunks[1], 8)
        queued = queue_forward(lambda start, stop: {"layers.0": hidden[start:stop]}, GROUP, CUDA)
        PassContext(chunks[1], SETTINGS, AdaptiveBatch(8), CUDA, set(), queued.clock)
    assert found == []


def test_samples_reach_the_device_without_a_wait() -> None:
    host = torch.arange(1 << 20)
    with counted_synchronisations() as found:
        device = to_device(host, CUDA)
    assert found == []
    assert torch.equal(device.cpu(), host)
