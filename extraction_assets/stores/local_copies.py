"""Copies of remote files on this machine: those that were read last stay, up to a number of bytes; of files that are
read several times in the same order, those that were read first."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class _Copy:
    """A copy, and how many read it now."""

    def __init__(self, stamp: object) -> None:
        self.stamp, self.size, self.readers, self.lock = stamp, 0, 0, threading.Lock()


class WantedFile(NamedTuple):
    """A file to be read."""

    path: Path
    """Of its copy."""
    stamp: object
    """Changes with the file: then it is copied again."""
    fetch: Callable[[Path], None]
    """Makes the copy."""


class LocalCopies:
    """Any number of threads read copies; none is removed while it is read."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._copies = most_bytes, OrderedDict[Path, _Copy]()
        self._lock = threading.Lock()
        self._passes: list[Callable[[], int]] = []
        """Of the blocks of ``several_passes`` that run: by how many bytes more may stay."""

    @contextlib.contextmanager
    def several_passes(self, room: Callable[[], int]) -> Iterator[None]:
        """While the block runs, copies stay where there is ``room``, asked after each: for so many bytes more, or for
        so many less. It is the copies that were made first that stay: of files that are read in the same order again
        and again, those that were read last would all be removed before their turn."""
        with self._lock:
            self._passes.append(room)
        try:
            yield
        finally:
            with self._lock:
                self._passes.remove(room)
                self._remove_some()

    @contextlib.contextmanager
    def reading(self, wanted: WantedFile) -> Iterator[Path]:
        """The path of a copy, which is there for the block."""
        copy = self._taken(wanted)
        try:
            with copy.lock:  # one of several readers makes it
                if not wanted.path.exists():
                    wanted.path.parent.mkdir(parents=True, exist_ok=True)
                    wanted.fetch(wanted.path)
                    copy.size = wanted.path.stat().st_size
            yield wanted.path
        finally:
            with self._lock:
                copy.readers -= 1
                self._remove_some()

    def drop(self, path: Path) -> None:
        """Removes a copy; what is mapped of it stays until it is let go of."""
        with self._lock:
            self._copies.pop(path, None)
            path.unlink(missing_ok=True)

    def _taken(self, wanted: WantedFile) -> _Copy:
        with self._lock:
            copy = self._copies.get(wanted.path)
            if copy is None or (copy.stamp != wanted.stamp and not copy.readers):
                wanted.path.unlink(missing_ok=True)
                copy = self._copies[wanted.path] = _Copy(wanted.stamp)
            copy.readers += 1
            self._copies.move_to_end(wanted.path)
            return copy

    def _remove_some(self) -> None:
        """Removes those that were read longest ago; the last one stays, for it is the likeliest to be read again. In
        several passes, it is those that were read last that go."""
        too_many = sum(copy.size for copy in self._copies.values()) - self._most
        if self._passes and too_many > 0:
            too_many = min(too_many, -max(room() for room in self._passes))
        order = list(self._copies.items())
        for path, copy in reversed(order) if self._passes else order[:-1]:
            if too_many <= 0:
                return
            if not copy.readers:
                too_many -= copy.size
                del self._copies[path]
                path.unlink(missing_ok=True)
