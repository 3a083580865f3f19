"""A line to a server on 127.0.0.1 that can be cut: what is connected is lost, and nobody is connected."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class CutLine:
    """Forwards what comes to ``url`` to a server; a context manager."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._whole = threading.Event()
        self._whole.set()
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def cut(self, seconds: float | None = None) -> None:
        """Until ``mend``, or for so many seconds."""
        self._whole.clear()
        for end in self._ends:
            _close(end)
        self._ends.clear()
        if seconds is not None:
            threading.Timer(seconds, self.mend).start()

    def mend(self) -> None:
        self._whole.set()

    @contextlib.contextmanager
    def open(self) -> Iterator["CutLine"]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self.cut()
            _close(self._listening)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                here, _ = self._listening.accept()
                if not self._whole.is_set():
                    _close(here)
                    continue
                there = socket.create_connection(self._server)
                self._ends += [here, there]
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=_forward, args=ends, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    _close(source)
    _close(target)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
