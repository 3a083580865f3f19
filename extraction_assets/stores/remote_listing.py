"""What lies at a URL, listed folder by folder of the top and kept for a moment: asking for every file of ten thousand
chunks would be as many requests."""

import threading
import time
from typing import NamedTuple

from extraction_assets.stores.remote_folder import Entry, RemoteFolder

_SHORTEST_SECONDS = 0.2
_TIMES_AS_LONG = 5
"""A listing is used so many times as long as it took."""

Folder = dict[str, Entry | None]
"""Name -> what it is; None of a folder."""


class _Listed(NamedTuple):
    """All that lies under a name of the top."""

    folders: dict[str, Folder]
    until: float
    """By the monotonic clock."""


class RemoteListing:
    """Files and folders by their names in a folder at a URL; what this process changes is known at once."""

    def __init__(self, folder: RemoteFolder) -> None:
        self._folder = folder
        self._known: dict[str, _Listed] = {}
        self._lock = threading.RLock()

    def inside(self, name: str) -> Folder:
        """What lies in a folder, the top for an empty name."""
        if not name:
            return self._folder.top()
        with self._lock:
            return dict(self._of(name).get(name, {}))

    def find(self, name: str) -> Entry | None:
        """A file; None if it is not there, or a folder."""
        above, _, last = name.rpartition("/")
        return self._of(name).get(above, {}).get(last)

    def is_folder(self, name: str) -> bool:
        return name in self._of(name)

    def files(self, name: str) -> dict[str, Entry]:
        """All files in a folder and in those inside it."""
        with self._lock:
            found = self._of(name)
            inside = [folder for folder in found if folder == name or folder.startswith(f"{name}/")]
            return {f"{one}/{last}": entry for one in inside for last, entry in found[one].items() if entry is not None}

    def add(self, name: str, size: int) -> None:
        """A file has been written."""
        with self._lock:
            known = self._known.get(_top(name))
            if known is not None:
                _put(known.folders, name, Entry(size, time.time()))

    def discard(self, name: str) -> None:
        """A file has been removed."""
        above, _, last = name.rpartition("/")
        with self._lock:
            known = self._known.get(_top(name))
            if known is not None:
                known.folders.get(above, {}).pop(last, None)
                _drop_empty(known.folders, above)

    def forget(self) -> None:
        """What is asked for next is listed again."""
        with self._lock:
            self._known.clear()

    def _of(self, name: str) -> dict[str, Folder]:
        top = _top(name)
        with self._lock:
            known = self._known.get(top)
            if known is None or time.monotonic() > known.until:
                known = self._known[top] = self._list(top)
            return known.folders

    def _list(self, top: str) -> _Listed:
        began = time.monotonic()
        folders: dict[str, Folder] = {}
        for name, entry in self._folder.entries(top).items():
            if not any(part in ("", ".", "..") for part in name.split("/")):  # would lead out of the folder
                _put(folders, name, entry)
        ended = time.monotonic()
        return _Listed(folders, ended + max(_SHORTEST_SECONDS, _TIMES_AS_LONG * (ended - began)))


def _top(name: str) -> str:
    return name.partition("/")[0]


def _put(folders: dict[str, Folder], name: str, entry: Entry | None) -> None:
    """Notes a file, and the folders that it lies in."""
    above, _, last = name.rpartition("/")
    if above and above not in folders:
        folders[above] = {}
        _put(folders, above, None)
    folders.setdefault(above, {})[last] = entry


def _drop_empty(folders: dict[str, Folder], name: str) -> None:
    """A folder in object storage ends with its last file."""
    while name and not folders.get(name):
        folders.pop(name, None)
        above, _, last = name.rpartition("/")
        folders.get(above, {}).pop(last, None)
        name = above
