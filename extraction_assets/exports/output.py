"""What an export writes into its folder, and the manifest that says what its files were made from."""

import contextlib
import datetime as dt
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from extraction_assets.catalog import FEATURE_EXPORTS, asset_row
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.folders import ExportFolder

MANIFEST = asset_row(FEATURE_EXPORTS).files[0]


class Progress(Protocol):
    """How far an export is, in features: ``execution.progress`` shows it."""

    def __call__(self, count: int) -> object:
        """So many more are written."""

    def skip(self, count: int) -> object:
        """So many are there already."""


class Output:
    """The folder that a format writes into. A file that is there is whole, and is not written again."""

    def __init__(self, folder: ExportFolder, progress: Progress) -> None:
        self.folder, self._progress = folder, progress
        self.written = 0
        """Files that were written, not found."""

    def has(self, name: str, features: int = 0) -> bool:
        """Whether a file is there; its ``features`` then count as done."""
        there = self.folder.holds(name)
        if there and features:
            self._progress.skip(features)
        return there

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A temporary path, whose file is flushed and gets its name at the end of the block; folders are made."""
        with self.folder.file(name) as temporary:
            yield temporary
        self.written += 1
        gc.collect(0)  # statements are circles, and looked for rarely meanwhile: 100 bytes a feature would stay

    def write_text(self, name: str, text: str) -> None:
        """A small file, unless it is there."""
        if not self.has(name):
            with self.file(name) as path:
                path.write_text(text, "utf-8")

    def open(self, name: str) -> BinaryIO:
        """A file that is there, to read from any place of it."""
        return self.folder.open(name)

    def remove(self, name: str) -> None:
        """Removes a file that is no part of the finished export, if it is there, and its folder once that is empty."""
        self.folder.remove(name)

    def advance(self, features: int = 1) -> None:
        """So many features are written."""
        self._progress(features)


def begin(folder: ExportFolder, made_from: dict[str, Any]) -> None:
    """Starts an export in a folder, or goes on with one of the same result and options.

    Raises ExportError if the folder holds something else.
    """
    folder = _inside(folder, made_from)
    there = _manifest(folder)
    if there is None:
        if folder.entries():
            raise ExportError(f"{folder} is not empty, and holds no export: give a new folder")
        _write_manifest(folder, {"made_from": made_from, "finished_at": None})
        return
    before = there.get("made_from")
    if before != made_from:
        raise ExportError(
            f"{folder} holds another export ({_difference(before, made_from)}): give another folder, or remove this one"
        )
    folder.remove_unfinished()  # no other writes here


def finish(folder: ExportFolder, made_from: dict[str, Any]) -> None:
    """Marks an export as whole."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    _write_manifest(_inside(folder, made_from), {"made_from": made_from, "finished_at": now})


class ExportState(NamedTuple):
    """How far the export of an asset is, by its manifest."""

    merge: str
    """Fingerprint of the merge that it is of."""
    finished_at: dt.datetime | None
    """When its last file was written; None of one that is not whole."""


def export_state(folder: ExportFolder) -> ExportState | None:
    """What the manifest of one SAE's export says, at the top or in the folder inside that the format has for it; None
    where no manifest can be read."""
    for name in sorted(folder.sizes()):
        if name.rpartition("/")[2] != MANIFEST:
            continue
        try:
            manifest = json.loads(folder.read(name) or b"")
            finished = manifest["finished_at"]
            at = None if finished is None else dt.datetime.fromisoformat(finished)
            return ExportState(manifest["made_from"]["examples"], at)
        except (OSError, ValueError, LookupError, TypeError):
            return None
    return None


def holds(folder: ExportFolder, made_from: dict[str, Any]) -> bool:
    """Whether a folder holds this export, or a part of it."""
    there = _manifest(_inside(folder, made_from))
    return there is not None and there.get("made_from") == made_from


def is_finished(folder: ExportFolder, made_from: dict[str, Any]) -> bool:
    """Whether a folder holds all of this export."""
    there = _manifest(_inside(folder, made_from))
    return there is not None and there.get("made_from") == made_from and there.get("finished_at") is not None


def _inside(folder: ExportFolder, made_from: dict[str, Any]) -> ExportFolder:
    """Where an export writes all of its files: in a folder of its own inside, if its format puts several into one."""
    return folder.inside(str(made_from.get("inside", "")))


def _manifest(folder: ExportFolder) -> dict[str, Any] | None:
    text = folder.read(MANIFEST)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ExportError(
            f"{folder}/{MANIFEST} is not the manifest of an export: give another folder, or remove this one"
        )
    return found


def _write_manifest(folder: ExportFolder, manifest: dict[str, Any]) -> None:
    with folder.file(MANIFEST) as temporary:
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
