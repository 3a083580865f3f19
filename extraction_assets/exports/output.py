"""The folder of an export: files that arrive whole, and a manifest that says what they were made from."""

import contextlib
import datetime as dt
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from extraction_assets.catalog import FEATURE_EXPORTS, asset_row
from extraction_assets.exports.errors import ExportError
from extraction_assets.stores.sealed import durable_path

MANIFEST = asset_row(FEATURE_EXPORTS).files[0]
_LOCK = ".export.lock"
_TEMPORARIES = ".*.tmp"


class Progress(Protocol):
    """How far an export is, in features: ``execution.progress`` shows it."""

    def __call__(self, count: int) -> object:
        """So many more are written."""

    def skip(self, count: int) -> object:
        """So many are there already."""


class Output:
    """The folder that a format writes into. A file that is there is whole, and is not written again."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self._progress = folder, progress
        self.written = 0
        """Files that were written, not found."""

    def has(self, name: str, features: int = 0) -> bool:
        """Whether a file is there; its ``features`` then count as done."""
        there = (self.folder / name).is_file()
        if there and features:
            self._progress.skip(features)
        return there

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A temporary path, whose file is flushed and gets its name at the end of the block; folders are made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_path(path) as temporary:
            yield temporary
        self.written += 1

    def write_text(self, name: str, text: str) -> None:
        """A small file, unless it is there."""
        if not self.has(name):
            with self.file(name) as path:
                path.write_text(text, "utf-8")

    def remove(self, name: str) -> None:
        """Removes a file that is no part of the finished export, if it is there, and its folder once that is empty."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or never made
            path.parent.rmdir()

    def advance(self, features: int = 1) -> None:
        """So many features are written."""
        self._progress(features)


def begin(folder: Path, made_from: dict[str, Any]) -> None:
    """Starts an export in a folder, or goes on with one of the same result and options.

    Raises ExportError if the folder holds something else.
    """
    there, folder = _manifest(folder, made_from), _inside(folder, made_from)
    if there is None:
        if folder.is_dir() and any(path.name != _LOCK for path in folder.iterdir()):
            raise ExportError(f"{folder} is not empty, and holds no export: give a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        _write_manifest(folder, {"made_from": made_from, "finished_at": None})
        return
    before = there.get("made_from")
    if before != made_from and not any(path.name not in (_LOCK, MANIFEST) for path in folder.iterdir()):
        _write_manifest(folder, {"made_from": made_from, "finished_at": None})  # the one before wrote nothing
        return
    if before != made_from:
        raise ExportError(
            f"{folder} holds another export ({_difference(before, made_from)}): give another folder, or remove this one"
        )
    for temporary in folder.rglob(_TEMPORARIES):  # of an export that was killed: no other writes here
        temporary.unlink(missing_ok=True)


def finish(folder: Path, made_from: dict[str, Any]) -> None:
    """Marks an export as whole."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    _write_manifest(_inside(folder, made_from), {"made_from": made_from, "finished_at": now})


def holds(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether a folder holds this export, or a part of it."""
    there = _manifest(folder, made_from)
    return there is not None and there.get("made_from") == made_from


def is_finished(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether a folder holds all of this export."""
    there = _manifest(folder, made_from)
    return there is not None and there.get("made_from") == made_from and there.get("finished_at") is not None


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keeps other exports out of a folder, which is made; the kernel lets go of it if the process dies. Raises
    ExportError if another one is at work."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file: give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"another export is writing into {folder}: wait for it, or give another folder") from None
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)
    finally:
        os.close(handle)


def _inside(folder: Path, made_from: dict[str, Any]) -> Path:
    """Where an export writes all of its files: in a folder of its own inside, if its format puts several into one."""
    return folder / str(made_from.get("inside", ""))


def _manifest(folder: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    path = _inside(folder, made_from) / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ExportError(f"{path} is not the manifest of an export: give another folder, or remove this one")
    return found


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with durable_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _difference(before: Any, after: dict[str, Any]) -> str:
    """The first things that differ, by name."""
    if not isinstance(before, dict):
        return "of an unknown form"
    names = [name for name in after if before.get(name) != after[name]] or sorted(before.keys() - after.keys())
    return ", ".join(f"{name}: {_short(before.get(name))}, not {_short(after.get(name))}" for name in names[:2])


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
