"""transformers looks into every batch for several sequences packed into one row: this asks it once a shape.

Without a mask it compares the positions of a batch on the device and waits for the answer, so the host cannot start one
forward pass while another runs. Here a batch comes without positions: those that a model makes follow from the shape,
and so does the answer. While a pass is recorded (``replay``) nobody may look, and the known answer is enough.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

_active = threading.local()


class PackedCheck:
    """The shapes of positions that were found to hold one sequence a row, of one model."""

    def __init__(self) -> None:
        self._single = set[tuple[int, ...]]()

    @contextlib.contextmanager
    def known_answers(self) -> Iterator[None]:
        """A model that runs inside is asked once for each shape, in this thread."""
        _install()
        before, _active.check = getattr(_active, "check", None), self
        try:
            yield
        finally:
            _active.check = before

    def answer(self, find: Any, position_ids: Any) -> Any:
        """What ``find`` gives for positions [B, T]: None for one sequence a row."""
        shape = tuple(position_ids.shape)
        if shape in self._single:
            return None
        found = find(position_ids)
        if found is None:
            self._single.add(shape)
        return found


@functools.cache
def _install() -> None:
    """Puts the check in place of that of transformers, which stays as it is outside ``known_answers``."""
    from transformers import masking_utils

    find = getattr(masking_utils, "find_packed_sequence_indices", None)
    if find is None:  # a version that does not look
        return

    @functools.wraps(find)
    def find_or_recall(position_ids: Any) -> Any:
        check: PackedCheck | None = getattr(_active, "check", None)
        return find(position_ids) if check is None else check.answer(find, position_ids)

    masking_utils.find_packed_sequence_indices = find_or_recall
