"""How long a call of storage that fails is repeated: a store that is away for a minute ends no run."""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from extraction_assets.stores.storage_urls import StorageError, plain_reason

logger = logging.getLogger("extraction_assets.storage")
"""Says that storage does not answer and is asked again, and nothing else."""

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 15.0
_FINAL = (
    StorageError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    MemoryError,
    ImportError,
    NotImplementedError,
    TypeError,
    LookupError,
    ValueError,
)
"""What another attempt does not change."""

_PASSING_STATUS = (408, 409, 425, 429)
_GO_ON = "What is durable stays: `run NAME --missing` goes on from there once the storage answers"

Answer = TypeVar("Answer")


class StorageAway(ConnectionError):
    """Storage did not answer for as long as it was asked."""


class Patience(NamedTuple):
    """For how long calls are repeated."""

    seconds: float

    def repeat(self, attempt: Callable[[], Answer], sentence: str) -> Answer:
        """What ``attempt`` gives, at once or when it no longer fails. Raises StorageAway, or an error that another
        attempt does not change; ``sentence`` says what cannot be done."""
        began, wait = time.monotonic(), _FIRST_WAIT_SECONDS
        while True:
            try:
                return attempt()
            except Exception as error:  # clients have error types of their own
                if not self.seconds or not _passes(error):
                    raise
                gone = time.monotonic() - began
                if gone + wait > self.seconds:
                    raise StorageAway(f"{plain_reason(error)} (asked again for {gone:.0f} s). {_GO_ON}") from error
                logger.warning("%s: %s; asked again in %.1f s", sentence, plain_reason(error), wait)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


IMPATIENT = Patience(0)
"""The first error counts: of commands with somebody waiting, who can repeat them."""


def _passes(error: Exception) -> bool:
    """Whether an error may be gone at another attempt."""
    if isinstance(error, _FINAL) or "Credential" in type(error).__name__:
        return False
    response = getattr(error.__cause__ or error, "response", None)
    if isinstance(response, dict):  # of S3
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        late = response.get("Error", {}).get("Code") == "RequestTimeout"
        return late or not 400 <= status < 500 or status in _PASSING_STATUS
    of_a_local_file = isinstance(error, OSError) and error.errno is not None and error.filename is not None
    return not of_a_local_file
