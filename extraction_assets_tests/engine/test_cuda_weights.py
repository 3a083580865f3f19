"""On a GPU: weights arrive there tensor by tensor, and are those of the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.saes.formats import read_checkpoint
from extraction_assets.engine.saes.sae import SAE
from extraction_assets_tests.engine.saes.test_memory import LAYOUTS, SIZE, WIDTH, Peak, parameters

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize("write", LAYOUTS)
def test_neither_host_nor_device_holds_a_second_copy(
    write: Callable[[Path, dict[str, Tensor]], None], tmp_path: Path
) -> None:
    write(tmp_path, parameters())
    torch.zeros(1, device=CUDA)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with Peak() as peak:
        sae = SAE(read_checkpoint(tmp_path, device=CUDA), CUDA)
    assert torch.cuda.max_memory_allocated() - before < 1.2 * SIZE
    assert peak.most < 0.5 * SIZE
    x = torch.rand(4, WIDTH)
    on_cpu = SAE(read_checkpoint(tmp_path)).encode(x)
    assert torch.allclose(sae.encode(x.to(CUDA)).cpu(), on_cpu, rtol=1e-3)
