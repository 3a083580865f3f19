"""Commands that use the files of an extraction: ``run NAME`` for its whole duration, ``clean`` and ``delete`` while
they remove. Holders lie in ``.in_use`` under the store's root, so that every host that shares the store sees them."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from extraction_assets.host.holders import Holder, holding, living

RUN, REMOVE = "run", "remove"


class InUseError(ValueError):
    """Files of an extraction are in use by another command; the message names its process."""


def runs_of(root: Path, extraction: str) -> list[Holder]:
    """Other commands ``run`` of an extraction that have not ended."""
    return living(root / ".in_use", f"{extraction}@{RUN}")


@contextlib.contextmanager
def running(root: Path, extraction: str) -> Iterator[None]:
    """Marks an extraction as run while the block runs; any number of runs at once.

    Raises InUseError while ``clean`` or ``delete`` removes files of it.
    """
    with holding(root / ".in_use", f"{extraction}@{RUN}"):
        for other in living(
            root / ".in_use", f"{extraction}@{REMOVE}"
        ):  # after the mark: one of the two sees the other
            raise InUseError(f"{other} removes files of {extraction} at this moment: run it again once that is done")
        yield


@contextlib.contextmanager
def removing(root: Path, extractions: Iterable[str], *, force: bool = False) -> Iterator[None]:
    """Marks extractions as being removed from. Raises InUseError if a command runs one of them, unless ``force``.

    If no file can be made, on a full disk, it only checks.
    """
    names = list(extractions)
    with contextlib.ExitStack() as stack:
        for name in names:
            with contextlib.suppress(OSError):
                stack.enter_context(holding(root / ".in_use", f"{name}@{REMOVE}"))
        for name in names if not force else ():
            for other in runs_of(root, name):
                raise InUseError(
                    f"{other} runs {name}: wait for it or end it, or use --force if no such process is there any more"
                )
        yield
