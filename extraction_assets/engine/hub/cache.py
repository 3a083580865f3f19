"""The part of the hub's cache that is one repository's, in the layout that all tools of Hugging Face share."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

MAIN = "main"


class RepositoryCache:
    """``models--OWNER--NAME`` in the cache: ``blobs/ETAG``, ``snapshots/COMMIT/FILE`` (links to blobs), ``refs/BRANCH``
    (its commit), and empty files ``.no_exist/COMMIT/FILE``."""

    def __init__(self, repository: str) -> None:
        from huggingface_hub import constants

        cache, name = Path(constants.HF_HUB_CACHE).expanduser(), "models--" + repository.replace("/", "--")
        self.root, self._locks = cache / name, cache / ".locks" / name

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit, whether it is there or not."""
        return self.root / "snapshots" / commit

    def commit_of(self, revision: str) -> str | None:
        """What a branch or tag meant when it was last asked for."""
        with contextlib.suppress(OSError):
            return (self.root / "refs" / revision).read_text("utf-8").strip() or None
        return None

    def keep_commit(self, revision: str, commit: str) -> None:
        """Notes what a branch or tag means now; a cache that cannot be written is left as it is."""
        path = self.root / "refs" / revision
        if self.commit_of(revision) == commit:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
            beside.write_text(commit, "utf-8")
            beside.replace(path)

    def has(self, commit: str, name: str) -> bool:
        """Whether the file is there, whole."""
        return (self.snapshot(commit) / name).is_file()

    def is_absent(self, commit: str, name: str) -> bool:
        """Whether the hub said earlier that the commit has no such file."""
        return (self.root / ".no_exist" / commit / name).is_file()

    def keep_absent(self, commit: str, name: str) -> None:
        """Notes that the commit has no such file; a cache that cannot be written is left as it is."""
        path = self.root / ".no_exist" / commit / name
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def blob(self, etag: str) -> Path:
        """Where the content of a file lies."""
        return self.root / "blobs" / etag

    def lock(self, etag: str) -> Path:
        """The lock of a blob, which all tools take."""
        self._locks.mkdir(parents=True, exist_ok=True)
        return self._locks / f"{etag}.lock"

    def link(self, etag: str, commit: str, name: str) -> None:
        """Lets the snapshot have a file; a copy where the file system has no links."""
        from huggingface_hub import constants

        blob, pointer = self.blob(etag), self.snapshot(commit) / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        beside = pointer.with_name(f"{pointer.name}.{uuid.uuid4().hex[:8]}")
        try:
            if constants.HF_HUB_DISABLE_SYMLINKS:
                raise OSError("links are disabled")
            beside.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            shutil.copyfile(blob, beside)
        beside.replace(pointer)
