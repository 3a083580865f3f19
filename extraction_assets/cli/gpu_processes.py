"""``run NAME --gpus N``: one process a GPU, which share the chunks; this one hands them out and shows how far all are.

Each process makes Dagster runs of its own and leases a GPU of its own. One that dies leaves the others at work, which
make its chunks; one with a failed run makes nothing more.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import dagster as dg

from extraction_assets.cli.gpu_worker import Work, make_runs
from extraction_assets.cli.new_processes import begin_preloading, handled, new_processes, wait_until_preloaded
from extraction_assets.cli.runner import RunFailed, Runner
from extraction_assets.cli.shared_chunks import SharedChunks
from extraction_assets.execution.damage import terminal
from extraction_assets.execution.progress import Progress, progress

PROCESSES: BaseContext = new_processes()

_PATIENCE_SECONDS = 10.0
"""How long a process may take to end once it has no more to do."""


def make_on_several_gpus(
    runner: Runner, load: Callable[[], dg.Definitions], keys: Sequence[str], count: int, *, only_missing: bool
) -> None:
    """Makes chunks in ``count`` processes; ``load`` gives them the definitions of the runner.

    Raises RunFailed, which says why, if chunks are left; KeyboardInterrupt after Ctrl-C.
    """

    def end_dead_runs() -> None:
        for dead in runner.recover():
            terminal.warning("%s", f"run {dead.run.run_id}: {dead.why}; it was marked as ended")

    settings, assets = runner.settings, runner.chunk_assets(keys, only_missing=only_missing)
    work = Work(load, settings.name, runner.options, assets, only_missing, runner.verbose)
    chunks = SharedChunks(keys, settings.chunk_keys, count, settings.partitions_per_run)
    samples = {key: settings.chunk(key).num_samples for key in keys}
    with GpuProcesses(work, chunks, samples, count) as processes:
        ended = processes.make_all(end_dead_runs)
    if chunks.left:
        why = "; ".join(ended.failures or ended.killed)
        raise RunFailed(f"{why} ({len(chunks.left)} of {len(keys)} chunks were not made: {', '.join(chunks.left[:3])})")


class Worker(NamedTuple):
    """A process and the pipe to it."""

    process: BaseProcess
    connection: Connection


class Ended(NamedTuple):
    """How the processes have ended."""

    failures: list[str]
    """What went wrong in each that did not end well, each sentence once."""
    killed: list[str]
    """One sentence for each that was killed or has crashed."""


class GpuProcesses:
    """Processes that share chunks, and how far they are; a context manager, at whose end no process is left."""

    def __init__(self, work: Work, chunks: SharedChunks, samples: dict[str, int], count: int) -> None:
        """``samples`` are the samples of each chunk."""
        self._work, self._chunks, self._samples, self._count = work, chunks, samples, count
        self._workers: dict[int, Worker] = {}
        self._waiting: set[int] = set()
        """Workers without a chunk, as long as others may leave some."""
        self._unfinished = dict.fromkeys(range(count), 0)
        """Samples of chunks that are not durable yet, as the progress has counted them."""
        self._ended = Ended([], [])
        self._interrupts = 0
        self._on_death: Callable[[], None] = lambda: None

    def __enter__(self) -> "GpuProcesses":
        begin_preloading(PROCESSES)
        wait_until_preloaded(PROCESSES)
        with handled(signal.SIG_IGN, signal.SIGINT):  # until the new process has its own handler
            for number in range(self._count):
                ours, theirs = multiprocessing.Pipe()
                arguments = (theirs, self._work, dict(os.environ), os.getcwd())
                process = PROCESSES.Process(target=make_runs, args=arguments, name=f"gpu {number}")  # type: ignore[attr-defined]
                process.start()
                theirs.close()
                self._workers[number] = Worker(process, ours)
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers.values():
            worker.connection.close()
        for worker in self._workers.values():
            worker.process.join(_PATIENCE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def make_all(self, on_death: Callable[[], None]) -> Ended:
        """Hands out chunks until none is left or no process; calls ``on_death`` after a process has died.

        Raises KeyboardInterrupt after Ctrl-C, once all processes have ended what they were at.
        """
        self._on_death = on_death
        total = sum(self._samples.values())
        with _noted_interrupts() as noted, progress("chunks", total, "samples", terminal) as update:
            while self._workers:
                numbers = {worker.connection: number for number, worker in self._workers.items()}
                for ready in wait([*numbers, noted]):
                    assert isinstance(ready, Connection)
                    if ready is noted:
                        noted.recv_bytes()
                        self._interrupt()
                    else:
                        self._hear(numbers[ready], update)
                self._serve_waiting()
        if self._interrupts:
            raise KeyboardInterrupt
        return self._ended

    def _hear(self, number: int, update: Progress) -> None:
        """Does what a process says, or notes its end."""
        try:
            name, *values = self._workers[number].connection.recv()
        except (EOFError, ConnectionError):
            self._part_with(number, update)
        else:
            getattr(self, f"_on_{name}")(number, update, *values)

    def _interrupt(self) -> None:
        """Has every process end as a single run does on Ctrl-C; kills them the second time."""
        self._interrupts += 1
        self._chunks.end()
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(worker.process.pid or 0), signal.SIGINT if self._interrupts == 1 else signal.SIGKILL)

    def _serve_waiting(self) -> None:
        """Answers those that wait for a run, where there is one or none will come."""
        for number in sorted(self._waiting):
            keys = self._chunks.next_run(number)
            if keys or self._chunks.is_over:
                self._waiting.discard(number)
                self._answer(number, keys or None)

    def _part_with(self, number: int, update: Progress) -> None:
        """A process has ended: it has closed its end of the pipe."""
        worker = self._workers.pop(number)
        worker.connection.close()
        worker.process.join(_PATIENCE_SECONDS)
        self._waiting.discard(number)
        self._take_back(number, update)
        lost = self._chunks.lose(number) if number in self._chunks.at_work else []
        if worker.process.exitcode != 0 and not self._interrupts:
            self._ended.killed.append(_how_it_ended(worker.process, lost))
            terminal.warning("%s", self._ended.killed[-1])
            self._on_death()

    def _take_back(self, number: int, update: Progress) -> None:
        """Samples of chunks that a process has begun and will not end do not count as done."""
        if self._unfinished[number]:
            update(-self._unfinished[number])
            self._unfinished[number] = 0

    def _answer(self, number: int, value: Any) -> None:
        with contextlib.suppress(OSError):  # a process that has just died: the pipe says so next
            self._workers[number].connection.send(value)

    # What processes say, by the names of gpu_worker.RemoteAssignment.

    def _on_next_run(self, number: int, _update: Progress) -> None:
        self._waiting.add(number)

    def _on_begin(self, number: int, update: Progress) -> None:
        self._take_back(number, update)  # where a step is tried again
        self._chunks.begin(number)

    def _on_take(self, number: int, _update: Progress, key: str) -> None:
        self._answer(number, self._chunks.take(number, key))

    def _on_take_another(self, number: int, _update: Progress) -> None:
        self._answer(number, self._chunks.take_another(number))

    def _on_durable(self, number: int, _update: Progress, key: str) -> None:
        self._chunks.durable(number, key)
        self._unfinished[number] = max(0, self._unfinished[number] - self._samples[key])

    def _on_fail(self, number: int, update: Progress, why: str) -> None:
        self._take_back(number, update)
        self._chunks.fail(number)
        if why not in self._ended.failures:
            self._ended.failures.append(why)
            if len(self._workers) > 1 and not self._interrupts:
                terminal.warning("%s", f"one of the processes ends, the others go on: {why}")

    def _on_begin_work(self, _number: int, update: Progress) -> None:
        update.begin()

    def _on_worked(self, number: int, update: Progress, count: int, note: str) -> None:
        self._unfinished[number] += count
        update(count, f"{_counted(len(self._workers))}, {note}")

    def _on_skipped(self, number: int, update: Progress, count: int) -> None:
        self._unfinished[number] += count
        update.skip(count)


def _counted(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def _how_it_ended(process: BaseProcess, lost: Sequence[str]) -> str:
    code = process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
    left = f"; {', '.join(lost)} are left to the others" if lost else ""
    return f"process {process.pid} {how}{left}"


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[Connection]:
    """In the block, Ctrl-C and SIGTERM raise nothing: the connection has one message more, and nothing is left half
    done."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    with handled(lambda _number, _frame: writer.send_bytes(b"interrupt"), signal.SIGINT, signal.SIGTERM):
        yield reader
    reader.close()
    writer.close()
