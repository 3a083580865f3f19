"""Making the next pieces of a load while the database takes those before."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END: object = object()


def in_order(work: Iterable[Callable[[], T]], threads: int = 2) -> Iterator[T]:
    """The results of calls in their order, ``threads`` of them made at once while the caller works on those before."""
    with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
        coming: deque[Future[T]] = deque()
        for call in work:
            coming.append(pool.submit(call))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


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
