"""A file of a checkpoint by its name, and the one error for whatever is wrong with it."""

import contextlib
import errno
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from extraction_assets.host.regular_files import KINDS

_SHOWN = 200
"""Characters of another library's message that are repeated."""
NOT_THE_FILES_FAULT = {errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOSPC, errno.EMFILE}
"""Error numbers of a missing permission, disk or network."""
_LINK_TO_NOTHING = "a link to nothing"


class CheckpointError(ValueError):
    """A checkpoint of an SAE or a model that is missing, unknown, cut or unusable; the message names the file and says
    why."""


class CheckpointFile(NamedTuple):
    """One file of a checkpoint."""

    owner: str
    """What the checkpoint is, at the beginning of every message: ``SAE`` or ``language model``."""
    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def error(self, text: str) -> CheckpointError:
        """``text`` about this file as an error: one sentence that names it."""
        return CheckpointError(f"{self.owner} {self.folder}: {self.name} {text}")

    def irregular(self) -> str | None:
        """What stands in place of a regular file, such as ``a folder``; None if it is one or nothing is there."""
        try:
            mode = self.path.stat().st_mode
        except (OSError, ValueError):
            return _LINK_TO_NOTHING if self.path.is_symlink() else None
        return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "something else")

    def size(self, most: int | None = None) -> int:
        """Bytes of the file. Raises CheckpointError if it is missing, no regular file, or larger than ``most``."""
        kind = self.irregular()
        if kind:
            raise self.error(f"is {kind}, expected a file")
        if not self.path.is_file():
            raise self.error("is missing")
        size = self.path.stat().st_size
        if most is not None and size > most:
            raise self.error(f"has {size:,} bytes, more than the {most:,} that such a file may have")
        return size

    @contextlib.contextmanager
    def reading(self, doubt: str = "is it cut short?") -> Iterator[None]:
        """Turns what a reader raises into a CheckpointError; errors of disks and permissions stay as they are."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NOT_THE_FILES_FAULT:
                raise
            raise self.error(f"cannot be read ({one_line(error)}); {doubt}") from error


def one_line(error: BaseException) -> str:
    """The beginning of an error's message, on one line and without control characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    text = text or type(error).__name__
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"


def shown(value: object) -> str:
    """A value of a file, for a message: escaped, and not longer than a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"
