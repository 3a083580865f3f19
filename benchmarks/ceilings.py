"""The limits of the hardware: copies, matrix products, the disk."""

import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.lines import Line
from benchmarks.measure import GB, metered, repeated, timed
from benchmarks.options import Options
from benchmarks.work import MATMUL
from extraction_assets.engine.saes.sae import matmul_precision

_SHARE_OF_LIMIT = 0.1
_DISK_SHARE = 4


def ceilings(options: Options, folder: Path) -> Iterator[Line]:
    """Copies in GB/s (bytes read and written, on the disk written), matrix products in TFLOP/s."""
    device, size = options.torch_device, options.copy_mib * 2**20
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    where = "device" if device.type == "cuda" else "host"
    yield _line(options, f"copy, {where} to {where}", "GB/s", 2 * size / GB, lambda: target.copy_(source))
    if device.type == "cuda":
        pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        yield _line(options, "copy, device to pinned host", "GB/s", size / GB, lambda: pinned.copy_(source))
        yield _line(options, "copy, pinned host to device", "GB/s", size / GB, lambda: target.copy_(pinned))
    yield _disk(options, folder)
    yield _matmul(options, torch.bfloat16, "bf16")
    tf32 = device.type == "cuda" and options.matmul_precision != "highest"
    yield _matmul(options, torch.float32, "TF32" if tf32 else "float32")


def _matmul(options: Options, dtype: torch.dtype, name: str) -> Line:
    side = options.matmul_size
    a = torch.randn(side, side, device=options.torch_device).to(dtype)
    product = torch.empty_like(a)
    with matmul_precision(options.matmul_precision):
        work = 2 * side**3 / 1e12
        line = _line(options, f"{MATMUL}{name}", "TFLOP/s", work, lambda: torch.mm(a, a, out=product))
    line.notes["size"] = f"{side} x {side}"
    return line


def _disk(options: Options, folder: Path) -> Line:
    """Writes a file and waits until it is durable."""
    size = max(1, options.copy_mib // _DISK_SHARE) * 2**20
    data, path = os.urandom(2**20) * (size // 2**20), folder / "disk.bin"

    def write() -> None:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    with metered(options.torch_device) as usage:
        seconds = statistics.median(timed(options.torch_device, write) for _ in range(3))
    path.unlink()
    return Line("ceilings", "disk, written and synced", size / GB / seconds, "GB/s", None, seconds, 3, usage)


def _line(options: Options, name: str, unit: str, amount: float, work: Callable[[], Any]) -> Line:
    device = options.torch_device
    with metered(device) as usage:
        runs = repeated(device, work, options.time_limit * _SHARE_OF_LIMIT)
    seconds = statistics.median(runs)
    return Line("ceilings", name, amount / seconds, unit, None, seconds, len(runs), usage)
