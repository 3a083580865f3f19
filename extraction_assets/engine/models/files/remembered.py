"""What a model's configuration alone decides is found once in a process, though runs ask for it again and again."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint

T = TypeVar("T")

_MOST = 64
"""Results that are kept. A process asks for those of a few models, with a few sets of hooks."""


class ByConfiguration(Generic[T]):
    """Results by the bytes of ``config.json``, wherever it lies; those of a model that runs code of its own, which may
    change beside it, are not kept."""

    def __init__(self) -> None:
        self._found: dict[Hashable, T] = {}

    def of(self, checkpoint: LocalCheckpoint, find: Callable[[], T], *arguments: Hashable) -> T:
        """What ``find`` gives for this configuration and these ``arguments``; an error of it is not kept."""
        if checkpoint.trust_remote_code:
            return find()
        key = ((checkpoint.folder / "config.json").read_bytes(), arguments)
        if key not in self._found:
            found = find()
            if len(self._found) >= _MOST:
                self._found.clear()
            self._found[key] = found
        return self._found[key]
