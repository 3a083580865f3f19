"""On a GPU: weights arrive there tensor by tensor, and are those of the CPU."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.saes.formats import read_checkpoint
from extraction_assets.engine.saes.sae import SAE
from extraction_assets_tests.engine.saes.test_memory import (
    FEATURES,
    LAYOUTS,
    SIZE,
    WIDTH,
    Peak,
    parameters,
    printed_by_own_process,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)


def print_peaks_on_gpu() -> None:
    """As JSON: the name of each layout, and the peaks of reading it, in bytes of host and of device, once it was read
    before, which imports and loads CUDA's libraries."""
    peaks = {}
    for write in LAYOUTS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, parameters())
            x = torch.rand(4, WIDTH)
            on_cpu = SAE(read_checkpoint(folder)).encode(x)
            on_gpu = SAE(read_checkpoint(folder, device=CUDA), CUDA).encode(x.to(CUDA)).cpu()
            assert torch.allclose(on_gpu, on_cpu, rtol=1e-3), write.__name__
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            with Peak() as peak:
                sae = SAE(read_checkpoint(folder, device=CUDA), CUDA)
            assert sae.latent_dim == FEATURES
            peaks[write.__name__] = [peak.most, torch.cuda.max_memory_allocated() - before]
            del sae
    print(json.dumps(peaks))


@pytest.fixture(scope="module")
def peaks() -> dict[str, list[int]]:
    return printed_by_own_process(print_peaks_on_gpu)


@pytest.mark.parametrize("write", LAYOUTS)
def test_neither_host_nor_device_holds_a_second_copy(
    write: Callable[[Path, dict[str, Tensor]], None], peaks: dict[str, list[int]]
) -> None:
    host, device = peaks[write.__name__]
    assert 0.9 * SIZE < device < 1.2 * SIZE
    assert host < 0.52 * SIZE  # one of two matrices, where the file is no safetensors
