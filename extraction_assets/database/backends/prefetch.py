"""Making the next piece of a load while the database takes the one before."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END: object = object()


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """The items, each of them made in a thread while the caller works on the one before; an error comes in its turn.

    Arrow, SQLite and the driver of PostgreSQL let other threads run while they work.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        coming = pool.submit(next, iterator, _END)
        while (item := coming.result()) is not _END:
            coming = pool.submit(next, iterator, _END)
            yield item  # type: ignore[misc]
