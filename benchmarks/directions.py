"""What features write: how long the logit lens and the nearest decoder rows take, beside the matrix product alone.

    python -m benchmarks.directions [--features 16384] [--vocabulary 50257] [--width 768] [--device cuda]

Random weights. On a GPU the top tokens are compared with the CPU's for some features: exit status 1 if more than one
in a hundred differs.
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import timed
from extraction_assets.engine.directions.final_norm import FinalNorm
from extraction_assets.engine.directions.logit_lens import logit_lens
from extraction_assets.engine.directions.nearest import nearest_rows, unit_rows
from extraction_assets.engine.directions.products import products
from extraction_assets.engine.directions.unembedding import Unembedding

_COMPARED = 256
_MOST_DIFFERENT = 1e-2


def products_alone(rows: Tensor, matrix: Tensor) -> None:
    """Rows [F, D] times a matrix [N, D], block by block."""
    for _ in products(rows, matrix):
        pass


def different_from_cpu(decoder: Tensor, unembedding: Unembedding) -> float:
    """The share of top tokens of some features that are not those of the CPU."""
    ours = logit_lens(decoder[:_COMPARED], unembedding)
    theirs = logit_lens(decoder[:_COMPARED].cpu(), unembedding._replace(weight=unembedding.weight.cpu()))
    return float((ours.top_tokens != theirs.top_tokens).float().mean())


def main() -> int:
    """Prints the conditions and a line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--vocabulary", type=int, default=50_257)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device, sizes = torch.device(options.device), (options.features, options.vocabulary, options.width)
    torch.manual_seed(0)
    decoder = torch.randn(options.features, options.width).to(device)
    norm = FinalNorm(torch.rand(options.width) + 0.5, True, "weight", False)
    unembedding = Unembedding(torch.randn(options.vocabulary, options.width).to(device), norm, "")
    rows = unit_rows(decoder)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    print("F={}, V={}, D={}".format(*sizes), "on", name, "with torch", torch.__version__)
    logit_lens(decoder[:32], unembedding)  # libraries are loaded by the first call
    stages: dict[str, Callable[[], Any]] = {
        "products with the unembedding alone": lambda: products_alone(decoder, unembedding.weight),
        "logit lens": lambda: logit_lens(decoder, unembedding),
        "products of decoder rows alone": lambda: products_alone(rows, rows),
        "nearest decoder rows": lambda: nearest_rows(rows, rows, 0, is_itself=True),
    }
    for stage, work in stages.items():
        print(f"{stage:<40} {timed(device, work):8.2f} s", flush=True)
    if device.type != "cuda":
        return 0
    print(f"peak memory of the GPU {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
    share = different_from_cpu(decoder, unembedding)
    print(f"top tokens that are not the CPU's: {share:.2%}")
    return int(share > _MOST_DIFFERENT)


if __name__ == "__main__":
    sys.exit(main())
