"""Dagster's code servers and runs as forks of the server in ``processes``, which has everything imported.

Dagster starts a Python process for each code server and each run, and each spends two to six CPU seconds on imports. In
a process of ``processes`` whose environment names the server, they are forked instead: apart from that they are the
processes that Dagster starts, and as easily killed; and its daemon looks for backfills every three seconds, not every
thirty. In ``cli/test_ui.py`` Dagster starts its processes itself, with its own waits.
"""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._daemon import controller
from dagster._grpc import server

from extraction_assets_tests import processes

NOTES = "EXTRACTION_TESTS_FORKS"
"""The variable with the folder in which each forked process notes its number."""


class Forked:
    """What Dagster uses of ``subprocess.Popen``, of a forked process."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired([], timeout or 0)
        return code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class _Runs(ForkServerContext):
    """In place of the context in which a code server spawns the processes of runs."""

    def Process(self, target: Callable[..., None], args: Sequence[Any]) -> BaseProcess:  # type: ignore[override]
        return super().Process(target=_run, args=(dict(os.environ), Path.cwd(), processes.streams(), target, args))


def prepare() -> None:
    """In a new process: notes its number, and starts its own processes as forks."""
    (Path(os.environ[NOTES]) / str(os.getpid())).touch()
    processes.reach(os.environ[processes.FORK_SERVER])
    resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined]  # as in a process that Dagster starts
    server.multiprocessing = SimpleNamespace(get_context=lambda _method: _Runs())  # type: ignore[attr-defined]
    server.open_ipc_subprocess = _start  # type: ignore[attr-defined, assignment]
    _shorten_waits()


def _shorten_waits() -> None:
    """Seconds between two looks of the daemon for backfills, and at the queue. Sensors keep theirs: each tick costs."""
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 3
    QueuedRunCoordinator.dequeue_interval_seconds = property(lambda _coordinator: 2)  # type: ignore[method-assign, assignment]


def _start(words: Sequence[str], cwd: str | None, env: Mapping[str, str]) -> Forked:
    """A code server: PYTHON -m dagster ..."""
    _python, option, module, *arguments = words
    assert option == "-m"
    return Forked(processes.start_module(module, arguments, Path(cwd or Path.cwd()), env, processes.streams()))


def _run(environment: dict[str, str], folder: Path, streams: Path, target: Callable[..., None], args: Any) -> None:
    """In the process of a run."""
    with processes.started(folder, environment, streams):
        target(*args)
