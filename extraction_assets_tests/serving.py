"""``extraction-assets ui`` and ``browse`` as real processes, each on a port of its own."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

HOST = "127.0.0.1"
STARTS_WITHIN = 180


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    port: int,
    log: Path,
    folder: Path,
    environment: Mapping[str, str],
    page: str = "server_info",
) -> Iterator["subprocess.Popen[bytes]"]:
    """The running command, once ``page`` answers on ``port``; it and its children are gone at the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for_page(process, f"http://{HOST}:{port}/{page}", log)
        yield process
    finally:
        _end(process)


def _wait_for_page(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no page within {STARTS_WITHIN} s:\n{log.read_text()}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, alive = psutil.wait_procs([*children, psutil.Process(process.pid)], timeout=60)
        for left in alive:
            left.kill()
    process.wait()
