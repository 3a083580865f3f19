"""Making the next pieces of a load while the database takes those before."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

K = TypeVar("K")
T = TypeVar("T")

THREADS = max(2, min(8, os.cpu_count() or 1))
"""Pieces that are made at once: of some 10 MB each."""

_END: object = object()
_WAIT = 0.05  # seconds between two looks whether the caller has given up


def in_order(work: Iterable[Callable[[], T]], threads: int = THREADS) -> Iterator[T]:
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


@contextlib.contextmanager
def made_ahead(parts: Mapping[K, Iterable[T]], ahead: int = 4) -> Iterator[Mapping[K, Iterator[T]]]:
    """The same parts, to be taken key after key in this order, the first of a key made while those of the key before
    are taken: up to ``ahead`` of them wait. An error comes in its turn."""
    made: Queue[tuple[Any, bool]] = Queue(ahead)
    given_up = Event()
    maker = Thread(target=_make, args=(parts.values(), made, given_up), name="load", daemon=True)
    maker.start()
    try:
        yield {key: _taken(made) for key in parts}
    finally:
        given_up.set()
        maker.join()


def _make(all_parts: Iterable[Iterable[Any]], made: "Queue[tuple[Any, bool]]", given_up: Event) -> None:
    def put(item: object, *, is_error: bool = False) -> bool:
        while not given_up.is_set():
            with contextlib.suppress(Full):
                made.put((item, is_error), timeout=_WAIT)
                return True
        return False

    try:
        for parts in all_parts:
            for part in chain(parts, [_END]):
                if not put(part):
                    return
    except BaseException as error:  # raised where it is taken
        put(error, is_error=True)


def _taken(made: "Queue[tuple[Any, bool]]") -> Iterator[Any]:
    while True:
        item, is_error = made.get()
        if is_error:
            raise item
        if item is _END:
            return
        yield item
