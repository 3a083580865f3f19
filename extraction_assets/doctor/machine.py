"""Python, packages, torch, GPUs, disks, folders and ports."""

import fcntl
import http.client
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

from extraction_assets.engine.findings import Finding, Severity
from extraction_assets.host.disk import is_read_only, nearest, says_no_room
from extraction_assets.host.locations import dagster_home, extraction_home, gpu_lease_folder
from extraction_assets.host.nvml import DriverError, Gpu, NoDriver, list_gpus

LEAST_PYTHON = (3, 11)
SECONDS_OF_TORCH = 50.0
PORT = 3000
LITTLE_SPACE, TOO_LITTLE_SPACE = 5e9, 1e9
_PACKAGES = ("dagster", "torch", "transformers", "safetensors", "sqlalchemy", "alembic", "pyarrow", "numpy", "pydantic")
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "lustre", "glusterfs", "ceph", "beegfs")

# In a process of its own: a broken build can end the process that imports it.
_TORCH_PROBE = """
import json, torch
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
    "devices": torch.cuda.device_count(),
}))
"""


def check_python() -> Iterator[Finding]:
    version, where = platform.python_version(), sys.executable
    if sys.version_info < LEAST_PYTHON:
        yield Finding("error", f"{version} at {where}", check="python", advice="install Python 3.11 or newer")
    else:
        yield Finding("ok", f"{version} at {where}", check="python")


def check_packages() -> Iterator[Finding]:
    """Versions of the main packages, compared with the requirements of this package."""
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    wrong = [text for requirement in _requirements() if (text := _unmet(requirement))]
    if wrong:
        yield Finding(
            "error", "; ".join(wrong), check="packages", advice="pip install -U extraction-assets, in this environment"
        )
    yield Finding("ok", ", ".join(f"{name} {version}" for name, version in versions.items()), check="packages")
    server, core = _version("dagster-webserver"), _version("dagster")
    if server is None:
        yield Finding(
            "warning",
            "dagster-webserver is not installed, so there is no UI",
            check="packages",
            advice="pip install 'extraction-assets[ui]'",
        )
    elif server != core:
        advice = f"pip install dagster-webserver=={core}"
        yield Finding("warning", f"dagster-webserver is {server} and dagster {core}", check="packages", advice=advice)


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


def check_homes() -> Iterator[Finding]:
    """Where files, history and temporary files go, and whether these folders can be used."""
    for variable, ask in (("EXTRACTION_HOME", extraction_home), ("DAGSTER_HOME", dagster_home)):
        try:
            folder = ask()
        except ValueError as error:
            yield Finding("error", str(error), check="homes", advice=f"set {variable} to a full path")
            continue
        by = f"set by {variable}" if os.environ.get(variable) else f"default; {variable} moves it"
        yield from check_folder(variable, folder, by)
    yield from check_folder("TMPDIR", Path(tempfile.gettempdir()), "temporary files and GPU leases")


def check_space() -> Iterator[Finding]:
    """Free space where things are written."""
    for what, ask in (("files and results", extraction_home), ("Dagster's history", dagster_home), ("TMPDIR", _tmp)):
        yield check_free(what, ask())


def check_free(what: str, folder: Path) -> Finding:
    """How much is free on a folder's disk."""
    folder = nearest(folder)
    free = shutil.disk_usage(folder).free
    severity: Severity = "error" if free < TOO_LITTLE_SPACE else "warning" if free < LITTLE_SPACE else "ok"
    advice = "make room: extraction-assets clean, or move the home to another disk" if severity != "ok" else ""
    return Finding(severity, f"{free / 1e9:.1f} GB free for {what} ({folder})", check="disk", advice=advice)


def check_port() -> Iterator[Finding]:
    """Whether the UI can listen, or does already."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", PORT))
        except OSError as error:
            reason = error.strerror
        else:
            yield Finding("ok", f"{PORT} is free for the UI", check="port")
            return
    if _is_dagster(PORT):
        yield Finding("ok", f"{PORT}: Dagster's UI answers there", check="port")
    else:
        advice = f"extraction-assets ui --port {PORT + 1}"
        yield Finding("warning", f"{PORT} cannot be used by the UI: {reason}", check="port", advice=advice)


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


def _tmp() -> Path:
    return Path(tempfile.gettempdir())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> list[Requirement]:
    try:
        requirements = importlib.metadata.requires("extraction-assets") or []
    except importlib.metadata.PackageNotFoundError:
        return []  # run from a checkout that was not installed
    return [one for one in map(Requirement, requirements) if one.marker is None or one.marker.evaluate({"extra": ""})]


def _unmet(requirement: Requirement) -> str | None:
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} is {version}, {requirement.specifier} is needed"
    return None


def check_folder(variable: str, folder: Path, by: str) -> Iterator[Finding]:
    """Whether a folder can be written to, and has what stores and databases rely on."""
    existing, text = nearest(folder), f"{variable} is {folder} ({by})"
    if any(part.exists() and not part.is_dir() for part in (folder, *folder.parents)):
        yield Finding("error", f"{text}: a file is in the way", check="homes", advice=f"set {variable} to a folder")
        return
    try:
        missing = _missing_feature(existing)
    except OSError as error:
        if is_read_only(existing):
            advice = f"mount its disk writable, or set {variable} to another folder"
        elif says_no_room(error):
            advice = f"make room: extraction-assets clean works on a full disk; or set {variable} to another folder"
        else:
            advice = f"make it writable for this user, or set {variable} to another folder"
        yield Finding("error", f"{text}: cannot be written to ({error.strerror})", check="homes", advice=advice)
        return
    kind = _file_system(existing)
    if missing:
        advice = f"set {variable} to a folder on a local disk"
        yield Finding("error", f"{text}: its file system ({kind}) has no {missing}", check="homes", advice=advice)
    elif kind.startswith(_NETWORK_FILE_SYSTEMS):
        advice = "keep SQLite files on a local disk, or use PostgreSQL; chunk files may stay there"
        yield Finding(
            "warning", f"{text}: on a network file system ({kind}), where SQLite may fail", check="homes", advice=advice
        )
    else:
        yield Finding("ok", text if folder.is_dir() else f"{text}, not made yet", check="homes")


def _missing_feature(folder: Path) -> str:
    """The required feature that the file system does not have; OSError if nothing can be written."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as temporary:
        first, second = Path(temporary) / "first", Path(temporary) / "second"
        second.write_text("old")
        with first.open("w") as file:
            file.write("new")
            file.flush()
            os.fsync(file.fileno())
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return "file locks (flock)"
        os.replace(first, second)
        return "" if second.read_text() == "new" and not first.exists() else "renames that replace a file"


def _file_system(folder: Path) -> str:
    """Type of the file system that a folder lies on, or ``unknown``."""
    mounts = [mount for mount in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(mount.mountpoint)]
    return str(max(mounts, key=lambda mount: len(mount.mountpoint)).fstype) if mounts else "unknown"


def _is_dagster(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=3) as answer:
            reply = json.loads(answer.read(1 << 20))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return False  # whatever listens there may answer anything
    return isinstance(reply, dict) and "dagster_webserver_version" in reply


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
