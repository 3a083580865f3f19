"""Folders that files, history and temporary files go to, their disks and file systems."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from extraction_assets.engine.findings import Finding, Severity
from extraction_assets.host.disk import is_read_only, nearest, says_no_room
from extraction_assets.host.locations import dagster_home, extraction_home

LITTLE_SPACE, TOO_LITTLE_SPACE = 5e9, 1e9

_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "lustre", "glusterfs", "ceph", "beegfs")


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


def _tmp() -> Path:
    return Path(tempfile.gettempdir())


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
