"""Arrays of npz files, in whatever order of memory they were saved."""

from pathlib import Path

import numpy as np
import pytest
import torch

from extraction_assets.engine.file_boundary import CheckpointFile
from extraction_assets.engine.file_boundary.npz import read_npz


@pytest.mark.parametrize("shape", [(), (5,), (3, 3), (3, 7), (7, 3), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
def test_an_array_is_the_same_in_any_order_of_memory(
    tmp_path: Path, shape: tuple[int, ...], order: str, dtype: str
) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype, order=order)
    np.savez(tmp_path / "a.npz", W_enc=array)
    read = read_npz(CheckpointFile("SAE", tmp_path, "a.npz"), ["W_enc"], "cpu")["W_enc"]
    assert torch.equal(read, torch.from_numpy(array.astype(np.float32)))
