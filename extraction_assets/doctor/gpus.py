"""Torch, GPUs, and who has leased them."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from extraction_assets.engine.findings import Finding
from extraction_assets.host.locations import gpu_lease_folder
from extraction_assets.host.nvml import DriverError, Gpu, NoDriver, list_gpus

SECONDS_OF_TORCH = 50.0

# In a process of its own: a broken build can end the process that imports it.
_TORCH_PROBE = """
import json, torch
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
    "devices": torch.cuda.device_count(),
}))
"""


def check_torch() -> Iterator[Finding]:
    """Whether torch can be imported and uses the GPUs of this machine."""
    torch, gpus = probe_torch(), _gpus_or_none()
    if "error" in torch:
        yield Finding("error", f"cannot be imported: {torch['error']}", check="torch", advice="install torch again")
        return
    build = f"CUDA {torch['cuda']}" if torch["cuda"] else f"ROCm {torch['hip']}" if torch["hip"] else "CPU only"
    text = f"{torch['version']} ({build})"
    if not gpus or torch["devices"]:
        seen = f"; sees {torch['devices']} GPU(s)" if torch["devices"] else "; runs are computed on the CPU"
        yield Finding("ok", text + seen, check="torch")
    elif not torch["cuda"]:
        yield Finding(
            "error",
            f"{text}, but this host has {len(gpus)} GPU(s): runs would be computed on the CPU",
            check="torch",
            advice="install a CUDA build of torch: https://pytorch.org/get-started/locally",
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1", "none"):
        hidden = os.environ["CUDA_VISIBLE_DEVICES"]
        yield Finding(
            "warning",
            f"{text}; CUDA_VISIBLE_DEVICES={hidden!r} hides {len(gpus)} GPU(s)",
            check="torch",
            advice="unset CUDA_VISIBLE_DEVICES to use them",
        )
    else:
        yield Finding(
            "error",
            f"{text} sees none of {len(gpus)} GPU(s), driver {gpus[0].driver}",
            check="torch",
            advice="update the driver, or install torch for an older CUDA",
        )


def check_gpus() -> Iterator[Finding]:
    """Every GPU: memory, and which process has leased it."""
    try:
        gpus = list_gpus()
    except NoDriver:
        yield Finding("ok", "no NVIDIA driver on this host", check="gpu")
        return
    except DriverError as error:
        yield Finding("warning", str(error), check="gpu", advice="repair or remove the NVIDIA driver")
        return
    for gpu in gpus:
        holder = _lease_holder(gpu.uuid)
        free = f"{gpu.free_mib / 1024:.1f} of {gpu.total_mib / 1024:.1f} GiB free"
        text = f"{gpu.number}: {gpu.name}, {free}, " + (f"leased by {holder}" if holder else "not leased")
        if not holder and gpu.free_mib < 0.1 * gpu.total_mib:
            yield Finding("warning", text, check="gpu", advice="another program fills it: see nvidia-smi")
        else:
            yield Finding("ok", text, check="gpu")


@lru_cache(maxsize=1)
def probe_torch() -> dict[str, Any]:
    """Version and build of torch and the number of GPUs that it sees, or ``error``."""
    done = subprocess.run(
        [sys.executable, "-c", _TORCH_PROBE], capture_output=True, text=True, timeout=SECONDS_OF_TORCH
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"the process ended with {done.returncode}"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _gpus_or_none() -> list[Gpu]:
    try:
        return list_gpus()
    except DriverError:
        return []  # check_gpus says why


def _lease_holder(uuid: str) -> str | None:
    """Describes the process that has leased a GPU; None if no process has."""
    path = gpu_lease_folder() / f"{uuid}.lock"
    if not path.is_file():
        return None
    locks = Path("/proc/locks")
    if locks.is_file():  # looked up, not tried: a lock that is tried could make a run miss it
        pid = _locking_process(locks.read_text(), path.stat().st_ino)
        return None if pid is None else _described(pid)
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "another process"
    return None


def _locking_process(locks: str, inode: int) -> int | None:
    """Process id in ``/proc/locks`` of the lock on an inode: ``1: FLOCK ADVISORY WRITE 4711 08:01:123 0 EOF``."""
    for line in locks.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return int(fields[4])
    return None


def _described(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"process {pid} of {process.username()}: {' '.join(process.cmdline())[:80]}"
    except psutil.Error:
        return f"process {pid}"
