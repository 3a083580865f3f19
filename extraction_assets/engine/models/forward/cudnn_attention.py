"""Attention without cuDNN, for passes of shapes that no other pass has."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Torch's other kernels of attention inside the block, in the whole process: cuDNN compiles one for each shape,
    0.05 s on an H100, the first of a process 0.5 s. For a pass that only looks at the model: last bits differ."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
