"""Workers of pytest-xdist that begin with everything imported and collected.

A worker spends 13 CPU seconds on its imports and on collecting ten thousand tests. Here one process does it for all of
them, and forks each: what a worker then collects again takes a second, as its modules are there. Apart from that a
worker is what pytest-xdist starts, with streams and a main module of its own.

The controller starts this file as a module, which forks; pytest-xdist starts it as a program, in the place of each
worker's interpreter, which has a worker forked and passes its streams on.
"""

import gc
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

STREAMS = 3
"""Standard input, by which a worker is told what to do, output, by which it answers, and errors."""

GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""A process that has asked one of them for its devices, as tests do while they are collected, is not to be forked."""


def can_fork() -> bool:
    return sys.platform == "linux" and not any(driver.exists() for driver in GPU_DRIVERS)


@contextmanager
def server(folder: Path, arguments: Sequence[str]) -> Iterator[str]:
    """A process that collects what pytest collects with these arguments, and then forks workers as long as this one
    lives. What is given is the command that pytest-xdist takes for a worker's interpreter."""
    address = folder / "workers"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()  # workers that come before all is collected wait for it
        number = listening.fileno()
        command = [sys.executable, "-m", "extraction_assets_tests.forked_workers", str(number), *arguments]
        forking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[number])
    try:
        yield shlex.join([sys.executable, "-I", "-S", __file__, "--pass-on", str(address)])
    finally:
        forking.communicate()


def pass_on(address: str) -> None:
    """Has a worker forked that takes the streams of this process over, and lives as long as the worker does. Where this
    process is killed, so is the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the worker hears of it
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"fork"], range(STREAMS))
        for number in range(STREAMS):  # which are to end with the worker
            os.close(number)
        connection.recv(1)


def serve(listening: socket.socket, arguments: Sequence[str]) -> None:
    """Collects, and then forks a worker for each process that passes its streams on, until the standard input ends.
    Returns in each worker too, once it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect(arguments)
    while listening in select.select([sys.stdin, listening], [], [])[0]:
        connection, _ = listening.accept()
        _, streams, _, _ = socket.recv_fds(connection, 16, STREAMS)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of the threads of OpenBLAS
            worker = os.fork()
        if not worker:
            listening.close()
            _work(connection, streams)
            return
        connection.close()
        for stream in streams:
            os.close(stream)
    with suppress(ChildProcessError):
        while True:
            os.wait()  # so that their CPU time counts as this process's, and in the end as pytest's


def collect(arguments: Sequence[str]) -> None:
    """Imports the tests with their assertions rewritten. What fails here the workers report: it fails again there."""
    import pytest

    environment = dict(os.environ)
    # Without capture, as what is imported may keep the stream that it finds, such as transformers for its warnings.
    pytest.main([*arguments, "--collect-only", "--numprocesses", "0", "--dist", "no", "--capture", "no"])
    os.environ.clear()
    os.environ.update(environment)
    gc.collect()
    gc.freeze()
    gc.disable()  # until the worker has collected


def _work(connection: socket.socket, streams: Sequence[int]) -> None:
    """What ``python -u -c`` does of the line of code that execnet gives each interpreter."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    sys.modules["__main__"] = main = ModuleType("__main__")  # processes that tests start would import this one
    sys.argv = ["-c"]
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    exec(eval(line), vars(main))


def _end_with(connection: socket.socket) -> None:
    connection.recv(1)  # comes back once the process at the other end is gone, which says nothing
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == "--pass-on":
        pass_on(sys.argv[2])
    else:
        serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
