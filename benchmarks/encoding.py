"""Encode down to the non-zeros beside the matrix product alone, for every architecture and several shapes.

    python -m benchmarks.encoding [--device cuda] [--shapes 768x16384,2304x16384] [--architectures relu,topk] [--k 64]
    python -m benchmarks.encoding --selection [--shapes 768x16384] [--counts 1,64,4096]

Random tokens and directions; of ReLU, JumpReLU and gated about 64 features fire on a token. The product runs in the
same tiles as encode, in one piece a tile. The second form is the table of k and F: TopK on the same products, and
whether it equals a stable sort.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.measure import GB, timed
from extraction_assets.engine.chunk_pass.sae_pass import tile_samples
from extraction_assets.engine.saes.formats import SAEWeights
from extraction_assets.engine.saes.formats.shared.weights import Architecture
from extraction_assets.engine.saes.products import part_columns, products
from extraction_assets.engine.saes.sae import SAE, matmul_precision

ARCHITECTURES = ("relu", "jumprelu", "gated", "topk")
_SHAPES = "768x16384,2304x16384,768x131072,4096x131072"
_FIRING = 64
_POSITIONS = 128
_COMPARED = 128
_NAMES: dict[str, Architecture] = {"relu": "standard", "jumprelu": "jumprelu", "gated": "gated", "topk": "topk"}


class Shape(NamedTuple):
    """Sizes of one measurement."""

    width: int
    features: int
    samples: int
    """Encoded at once, of 128 tokens."""

    @property
    def tokens(self) -> int:
        return self.samples * _POSITIONS

    @property
    def tile(self) -> int:
        """Tokens of one product."""
        return tile_samples(self.samples, _POSITIONS, self.features) * _POSITIONS


def main() -> int:
    """Prints the conditions and a table; 1 if TopK does not equal the sort."""
    options = _options()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    shapes = [_shape(text, options.samples) for text in options.shapes.split(",")]
    tera, copied = _ceilings(device)
    print(f"{name}, torch {torch.__version__}, {options.samples} samples of {_POSITIONS} tokens at once")
    print(f"ceilings: product {tera:,.4g} TFLOP/s, copy {copied:,.4g} GB/s (bytes read and written)")
    if options.selection:
        return _print_selection(shapes, [int(k) for k in options.counts.split(",")], device)
    print("| D | F | tokens a product | product alone, us a sample | TFLOP/s | of the ceiling |", end="")
    print("".join(f" {architecture} |" for architecture in options.architectures.split(",")))
    print("|" + " ---: |" * (6 + len(options.architectures.split(","))))
    for shape in shapes:
        print(_row(shape, options.architectures.split(","), options.k, tera, device), flush=True)
    return 0


def _shape(text: str, samples: int) -> Shape:
    """Of ``DxF``."""
    width, features = text.split("x")
    return Shape(int(width), int(features), samples)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", default=_SHAPES, metavar="DxF,…")
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES), metavar="NAME,…")
    parser.add_argument("--samples", type=int, default=256, help="encoded at once")
    parser.add_argument("--k", type=int, default=_FIRING, help="of TopK")
    parser.add_argument("--selection", action="store_true", help="the table of k and F")
    parser.add_argument("--counts", default="1,16,64,256,1024,4096", metavar="K,…")
    return parser.parse_args()


def _row(shape: Shape, architectures: list[str], k: int, tera: float, device: torch.device) -> str:
    x, directions = _inputs(shape, device)
    ratios = []
    for architecture in architectures:
        sae = _sae(architecture, directions, k, x)
        seconds, alone = _alternating(device, partial(encode, sae, x, shape), partial(product, directions, x, shape))
        ratios.append(seconds / alone)
        del sae
    rate = 2 * shape.tokens * shape.width * shape.features / alone / 1e12
    sizes = [f"{shape.width:,}", f"{shape.features:,}", f"{shape.tile:,}", f"{alone / shape.samples * 1e6:,.4g}"]
    cells = [*sizes, f"{rate:,.3g}", f"{rate / tera:.2f}", *(f"{ratio:.2f}" for ratio in ratios)]
    return "| " + " | ".join(cells) + " |"


def encode(sae: SAE, x: Tensor, shape: Shape) -> object:
    """As the pass over a chunk calls it: down to the non-zeros of all tokens."""
    with matmul_precision("high"):
        return sae.encode_sparse(x, shape.tile)


def product(directions: Tensor, x: Tensor, shape: Shape) -> None:
    """The dense products alone, one tile after the other, each in one piece and in the same memory."""
    with matmul_precision("high"):
        for _ in products(x, directions, shape.tile):
            pass


def _inputs(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens [N, D], and directions [D, F] in the order of memory that an SAE keeps."""
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(shape.tokens, shape.width, generator=generator, device=device)
    directions = torch.randn(shape.features, shape.width, generator=generator, device=device) / shape.width**0.5
    return x, directions.t() if device.type == "cuda" else directions.t().contiguous()


def _sae(architecture: str, directions: Tensor, k: int, x: Tensor) -> SAE:
    """An SAE that encodes only, with a bias at which about 64 features fire on a token."""
    features = directions.shape[1]
    zeros = torch.zeros(features, device=x.device)
    with matmul_precision("high"):
        level = float((x[:_COMPARED] @ directions).topk(_FIRING, dim=1).values[:, -1].mean())
    extra = {
        "jumprelu": {"threshold": zeros + level},
        "gated": {"r_mag": zeros, "b_mag": zeros},
    }.get(architecture, {})
    bias = zeros if architecture in ("jumprelu", "topk") else zeros - level
    b_dec = torch.zeros(x.shape[1], device=x.device)
    weights = SAEWeights(_NAMES[architecture], directions, bias, None, b_dec, extra=extra, k=min(k, features))
    return SAE(weights, x.device)


def _alternating(
    device: torch.device, ours: Callable[[], object], alone: Callable[[], object], limit: float = 1.5
) -> tuple[float, float]:
    """Median seconds of both, one after the other and again, so that both meet the same clocks."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for work in (ours, alone):
        timed(device, work)
        timed(device, work)
    started = time.perf_counter()
    while len(seconds[0]) < 3 or time.perf_counter() - started < limit:
        for work, times in zip((ours, alone), seconds, strict=True):
            times.append(timed(device, work))
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _print_selection(shapes: list[Shape], counts: list[int], device: torch.device) -> int:
    print("| D | F | " + " | ".join(f"k = {k:,}" for k in counts) + " | equal to the sort |")
    print("|" + " ---: |" * (3 + len(counts)))
    exact = True
    for shape in shapes:
        ratios = []
        same = True
        for ratio, equal in _selection(shape, counts, device):
            ratios.append(f"{ratio:.2f}")
            same &= equal
        exact &= same
        print(
            f"| {shape.width:,} | {shape.features:,} | " + " | ".join(ratios) + f" | {'yes' if same else 'NO'} |",
            flush=True,
        )
    return 0 if exact else 1


def _selection(shape: Shape, counts: list[int], device: torch.device) -> Iterator[tuple[float, bool]]:
    """For each k how long TopK takes beside the product, and whether its first tile is what a stable sort gives."""
    x, directions = _inputs(shape, device)
    for k in counts:
        sae = _sae("topk", directions, k, x)
        seconds, alone = _alternating(
            device, partial(encode, sae, x, shape), partial(product, directions, x, shape), 0.5
        )
        yield seconds / alone, _equals_sort(sae, directions, x, shape, min(k, shape.features))


def _equals_sort(sae: SAE, directions: Tensor, x: Tensor, shape: Shape, k: int) -> bool:
    rows = x[: shape.tile]
    columns = part_columns(shape.tile, directions) if x.device.type == "cuda" else None
    with matmul_precision("high"):
        found = sae.encode_sparse(rows, shape.tile)
        # By the same products: one over more features may have other last bits.
        parts = [one.values.clone() for one in products(rows, directions, shape.tile, columns)]
    part = torch.cat(parts, dim=1)[:_COMPARED]
    values, features = part.sort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(part, dtype=torch.bool).scatter_(1, features[:, :k], values[:, :k] > 0)
    tokens, expected = kept.nonzero(as_tuple=True)
    first = found.tokens < len(part)
    pairs = ((found.features[first], expected), (found.tokens[first], tokens), (found.values[first], part[kept]))
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


def _ceilings(device: torch.device) -> tuple[float, float]:
    """TFLOP/s of a large product at the same precision, GB/s of a copy within the device."""
    side, size = (8192, 1 << 30) if device.type == "cuda" else (1024, 1 << 27)
    matrix = torch.randn(side, side, device=device)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    room, target = torch.empty_like(matrix), torch.empty_like(source)
    with matmul_precision("high"):
        multiplied = min(timed(device, lambda: torch.mm(matrix, matrix, out=room)) for _ in range(10))
    copied = min(timed(device, lambda: target.copy_(source)) for _ in range(10))
    return 2 * side**3 / multiplied / 1e12, 2 * size / GB / copied


if __name__ == "__main__":
    raise SystemExit(main())
