"""What is closed at the end of a ``with``."""

from types import TracebackType
from typing import Self


class Closing:
    """A context manager that closes itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of what is held."""
        raise NotImplementedError
