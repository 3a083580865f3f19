"""Who makes which chunk, where several processes share them: knows neither processes nor Dagster."""

import itertools
from collections.abc import Mapping, Sequence


class SharedChunks:
    """Chunks, shared by workers that are numbered from 0.

    Each worker has a part: contiguous chunks, as many as another's. It makes them one after the other, and once it has
    made its part, it takes the last chunk of whoever has most left. So no worker waits while another has a chunk that
    it has not begun, and a chunk is made twice only where its worker died over it.
    """

    def __init__(self, keys: Sequence[str], every: Sequence[str], workers: int, most: int | None = None) -> None:
        """``every`` are the keys of all chunks in order; a run makes at most ``most`` chunks."""
        self._number = {key: number for number, key in enumerate(every)}
        self._most, self._keys = most, list(keys)
        self._untaken = dict(enumerate(_parts(list(keys), workers)))
        self._taken: dict[int, set[str]] = {worker: set() for worker in self._untaken}
        self._durable: dict[int, set[str]] = {worker: set() for worker in self._untaken}
        self._in_run = dict.fromkeys(self._untaken, 0)
        self._planned: dict[int, set[str]] = {worker: set() for worker in self._untaken}
        """Chunks of a run that is about to begin. Another's run may make them once Dagster has planned them."""
        self._at_work = set(self._untaken)

    @property
    def left(self) -> list[str]:
        """Chunks that are not durable."""
        done = set().union(*self._durable.values())
        return [key for key in self._keys if key not in done]

    @property
    def at_work(self) -> frozenset[int]:
        """Workers that were not lost."""
        return frozenset(self._at_work)

    @property
    def is_over(self) -> bool:
        """Whether no chunk is left to be made, nor may come back from a worker."""
        return not any(self._untaken.values()) and not any(self._taken.values())

    def next_run(self, worker: int) -> list[str]:
        """The contiguous chunks of the worker's next run; none while the others have nothing to give."""
        if not self._untaken[worker]:
            self._move_half(worker)
        part = self._untaken[worker]
        block = part[: self._contiguous(part)]
        self._planned[worker], self._in_run[worker] = set(block), 0
        return block

    def begin(self, worker: int) -> None:
        """The worker's run has begun: others may take what it has planned and not begun."""
        self._planned[worker] = set()

    def take(self, worker: int, key: str) -> bool:
        """Whether the worker makes a chunk of its run: not if another has taken it."""
        if key in self._untaken[worker]:
            self._give(worker, worker, key)
        return key in self._taken[worker] or key in self._durable[worker]

    def take_another(self, worker: int) -> str | None:
        """A chunk beyond the plan of the worker's run."""
        if self._most is not None and self._in_run[worker] >= self._most:
            return None
        if self._untaken[worker]:
            return self._give(worker, worker, self._untaken[worker][0])
        other = self._richest(worker)
        return None if other is None else self._give(worker, other, self._untaken[other][-1])

    def durable(self, worker: int, key: str) -> None:
        self._taken[worker].discard(key)
        self._durable[worker].add(key)

    def lose(self, worker: int) -> list[str]:
        """A worker has died: others make what it has not made, also the chunks that it was at, which are returned."""
        unfinished = self._give_up(worker)
        self._untaken[worker] = sorted([*unfinished, *self._untaken[worker]], key=self._number.__getitem__)
        return unfinished

    def fail(self, worker: int) -> list[str]:
        """A worker's run has failed: others make the rest of its part, but not the chunks that it was at, one of which
        it may have failed over; these are returned."""
        return self._give_up(worker)

    def end(self) -> None:
        """Nothing more is taken."""
        for part in self._untaken.values():
            part.clear()

    def _give_up(self, worker: int) -> list[str]:
        unfinished = sorted(self._taken[worker], key=self._number.__getitem__)
        self._taken[worker], self._planned[worker] = set(), set()
        self._at_work.discard(worker)
        return unfinished

    def _give(self, worker: int, other: int, key: str) -> str:
        self._untaken[other].remove(key)
        self._taken[worker].add(key)
        self._in_run[worker] += 1
        return key

    def _free(self, worker: int) -> list[str]:
        return [key for key in self._untaken[worker] if key not in self._planned[worker]]

    def _richest(self, worker: int) -> int | None:
        """The other with most to give. Those that are not planned lie after those that are."""
        free: Mapping[int, int] = {other: len(self._free(other)) for other in self._untaken if other != worker}
        most = max(free, key=free.__getitem__, default=None)
        return most if most is not None and free[most] else None

    def _move_half(self, worker: int) -> None:
        """Moves to a worker the later half of what another has to give."""
        other = self._richest(worker)
        if other is not None:
            moved = self._free(other)
            moved = moved[len(moved) // 2 :]
            self._untaken[other] = [key for key in self._untaken[other] if key not in set(moved)]
            self._untaken[worker] = moved

    def _contiguous(self, keys: Sequence[str]) -> int:
        """How many of the first keys follow each other, and fit one run."""
        length = min(len(keys), 1)
        while length < len(keys) and length != self._most:
            if self._number[keys[length]] != self._number[keys[length - 1]] + 1:
                break
            length += 1
        return length


def _parts(keys: list[str], count: int) -> list[list[str]]:
    """Contiguous parts that differ in length by at most one."""
    size, more = divmod(len(keys), count)
    bounds = [part * size + min(part, more) for part in range(count + 1)]
    return [keys[start:stop] for start, stop in itertools.pairwise(bounds)]
