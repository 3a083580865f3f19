"""What the first pass of a process waits for on a GPU, done beside other work: libraries that are loaded, kernels that
are compiled."""

import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import stored_activations
from extraction_assets.engine.chunk_pass.one_chunk import run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.saes.activation import has_triton
from extraction_assets.engine.shapes import Samples

_SIDE = 128
_ODD_LENGTH = 97
"""For which cuDNN compiles a kernel: on an H100 the first one of a process takes 0.5 s, each later one 0.05 s."""
_MOST_RESERVED = 4 << 30


def prepare_device(device: torch.device) -> None:
    """Loads the libraries of products and attention, and beside them what Triton looks at before its first kernel: its
    own files, 0.5 s. For a thread of its own."""
    with ThreadPoolExecutor(1, "triton") as beside:
        looked_at = beside.submit(_prepare_triton)
        with torch.cuda.device(device):
            for dtype in (torch.bfloat16, torch.float32):
                matrix = torch.zeros(_SIDE, _SIDE, dtype=dtype, device=device)
                torch.mm(matrix, matrix)
                heads = matrix.view(1, 2, _SIDE, _SIDE // 2)
                for length in (_SIDE, _ODD_LENGTH):
                    part = heads[:, :, :length]
                    torch.nn.functional.scaled_dot_product_attention(part, part, part, is_causal=True)
        looked_at.result()


def _prepare_triton() -> None:
    if has_triton():
        with contextlib.suppress(ImportError):  # no public name: another version may have it elsewhere
            from triton.runtime.cache import triton_key

            triton_key()


def rehearse(
    samples: Samples, outputs: Mapping[str, Tensor], tasks: list[SaeTask], settings: PassSettings, device: torch.device
) -> dict[str, float]:
    """A pass over a few samples' hook outputs {hook: [n, T, D]}, in tiles of a real one's shape, whose results are
    dropped: the kernels of a real pass are compiled then. For a thread beside one that runs the model. Returns how many
    firings are kept of a sample, on average, by SAE.

    float32 products keep the precision that is set now: a precision is set for the whole process, and the model's own
    products are not to have another. The sequential loop has no kernels. Raises as ``chunk_steps``.
    """
    if not settings.vectorized:
        return {}
    settings = settings._replace(matmul_precision=torch.get_float32_matmul_precision(), keep_activations=False)
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        read, batch = stored_activations(outputs, device), AdaptiveBatch(len(samples.token_ids))
        results = run_chunk(samples, read, tasks, settings, batch, device, [0]).saes
    count = len(samples.token_ids)
    return {
        name: sum(len(part.values) for part in result.feature_parts or ()) / count for name, result in results.items()
    }


def pinned_sizes(
    firings: Mapping[str, float], chunk_samples: int, vectorization_batch_size: int, chunks: int
) -> list[int]:
    """Bytes of the pinned blocks that the kept features of ``chunks`` chunks take: ids and values of each batch, of 4
    bytes a firing. At most 4 GiB in all; what is missing is made when it is needed."""
    sizes = []
    for first in range(0, chunk_samples * chunks, vectorization_batch_size):
        count = min(vectorization_batch_size, chunk_samples * chunks - first)
        sizes += [int(4 * one * count) for one in firings.values() for _ in range(2) if one]
    return [size for size, total in zip(sizes, accumulate(sizes), strict=True) if total <= _MOST_RESERVED]
