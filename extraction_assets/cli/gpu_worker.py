"""One of the processes of ``run NAME --gpus N``: makes runs of chunks, as the command hands them out.

It speaks with the command by one pipe: each message is a name and its values, and where an answer is due it waits.
"""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

from extraction_assets.execution.assignment import assigned
from extraction_assets.execution.progress import Progress

if TYPE_CHECKING:
    import dagster as dg

INTERRUPTED = 130
"""Exit code after an interrupt, as of a shell's commands."""


class Work(NamedTuple):
    """What all processes of a command make; every value can be sent to another process."""

    load: "Callable[[], dg.Definitions]"
    extraction: str
    options: Mapping[str, Any]
    """Of the GPU resource, as the command line has them."""
    assets: "Sequence[dg.AssetKey]"
    reuse: bool
    """Chunks with all files are recorded, not computed."""
    verbose: bool = False


def make_runs(connection: Connection, work: Work, environment: Mapping[str, str], folder: str) -> None:
    """The main program of the process; makes runs until the command has none for it.

    Its process group is its own, so that Ctrl-C reaches the command alone, which passes it on once.
    """
    os.setpgrp()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _make_runs(RemoteAssignment(connection), work)
    except BaseException as error:
        if is_interrupt(error):
            raise SystemExit(INTERRUPTED) from None
        raise


def is_interrupt(error: BaseException) -> bool:
    """Whether somebody has ended what raised this: Dagster has an error of its own for it."""
    return isinstance(error, KeyboardInterrupt) or type(error).__name__ == "DagsterExecutionInterruptedError"


def _make_runs(command: "RemoteAssignment", work: Work) -> None:
    from extraction_assets.cli.app import explain
    from extraction_assets.cli.declared_extractions import declared_extractions
    from extraction_assets.cli.runner import Runner

    os.environ["EXTRACTION_PROGRESS"] = "log"  # the command shows it
    try:
        definitions = work.load()
        settings = declared_extractions(definitions)[work.extraction]
        import extraction_assets.assets.chunks.step  # noqa: F401 - what a run imports, before Dagster's clock begins

        with Runner(definitions, settings, dict(work.options), verbose=work.verbose) as runner, assigned(command):
            while keys := command.next_run():
                runner.make_chunks(keys, work.assets, reuse=work.reuse)
    except Exception as error:
        command.fail(explain(error))


class RemoteAssignment:
    """The assignment of the process's runs, which the command keeps.

    Where the command has died, everything but ``durable`` raises KeyboardInterrupt, which ends the run as Ctrl-C does.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._taken: list[str] = []
        """Chunks that were taken and are not durable."""
        self._again: list[str] = []
        """Of these, chunks beyond the plan of a step that is tried again."""

    def next_run(self) -> list[str] | None:
        """Contiguous chunks; None once there are none. Waits while another process may leave some."""
        keys: list[str] | None = self._ask("next_run")
        return keys

    def fail(self, why: str) -> None:
        """A run has failed, which ends this process."""
        self._say("fail", why)

    def begin(self, keys: Sequence[str]) -> None:
        self._again = [key for key in self._taken if key not in keys]
        self._say("begin")

    def take(self, key: str) -> bool:
        given: bool = self._ask("take", key)
        if given and key not in self._taken:
            self._taken.append(key)
        return given

    def take_another(self) -> str | None:
        if self._again:
            return self._again.pop(0)
        key: str | None = self._ask("take_another")
        if key is not None:
            self._taken.append(key)
        return key

    def durable(self, key: str) -> None:
        if key in self._taken:
            self._taken.remove(key)
        with contextlib.suppress(OSError):  # a run that ends records all chunks that are durable, not the first alone
            self._connection.send(("durable", key))

    @contextlib.contextmanager
    def progress(self, total: int, logger: logging.Logger) -> Iterator[Progress]:
        """Progress that the command shows, together with that of the other processes."""
        yield _Forwarded(total, self._say)

    def _say(self, name: str, *values: Any) -> None:
        try:
            self._connection.send((name, *values))
        except OSError:
            raise KeyboardInterrupt from None

    def _ask(self, name: str, *values: Any) -> Any:
        self._say(name, *values)
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise KeyboardInterrupt from None


class _Forwarded(Progress):
    """Shows nothing itself."""

    def __init__(self, total: int, say: Callable[..., None]) -> None:
        super().__init__("chunks", total, "samples", lambda _progress, _count: None)
        self._say = say

    def begin(self) -> None:
        self._say("begin_work")

    def __call__(self, count: int, note: str = "") -> None:
        self._say("worked", count, note)

    def skip(self, count: int) -> None:
        self._say("skipped", count)
