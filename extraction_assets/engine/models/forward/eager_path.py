"""A forward pass that is recorded takes the same path as one that is not.

transformers asks whether a CUDA stream is being recorded, and then avoids what would look at numbers. Version 5.17 also
builds a mask then for causal attention, which needs none: that takes other kernels, slower by half, for which cuDNN
compiles for 0.5 s on an H100. A model that looks at numbers is not recorded at all (``replay``), so the answer is no.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator

_recording = threading.local()


@contextlib.contextmanager
def as_if_eager() -> Iterator[None]:
    """A model that runs inside, in this thread, is not told that its pass is recorded."""
    _install()
    before, _recording.hidden = getattr(_recording, "hidden", False), True
    try:
        yield
    finally:
        _recording.hidden = before


@functools.cache
def _install() -> None:
    """Puts an answer in place of that of transformers, which stays as it is outside ``as_if_eager``."""
    from transformers.utils import import_utils

    is_capturing = getattr(import_utils, "is_cuda_stream_capturing", None)
    if is_capturing is None:  # a version that does not ask
        return

    @functools.wraps(is_capturing)
    def is_capturing_visibly() -> bool:
        return not getattr(_recording, "hidden", False) and is_capturing()

    import_utils.is_cuda_stream_capturing = is_capturing_visibly
