"""Which process a process id names: the id alone is ambiguous if containers or hosts share files.

Containers of one host have ids of their own (a pid namespace each), and a container that is started again gets the same
ids for other processes. A *place* names the namespace and the boot of the kernel: ids are compared inside one place.
"""

import functools
import os
import socket
from pathlib import Path
from typing import NamedTuple

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")


class ProcessPlace(NamedTuple):
    """Where process ids mean the same thing."""

    host: str
    """Host name, for people: containers of one image may have the same."""
    boot: str
    """Id of this boot of the kernel; empty if the system has none."""
    namespace: str
    """Inode of the pid namespace; empty if the system has none."""
    machine: str = ""
    """What stays when this machine is booted again (``/etc/machine-id``); empty if it has none."""

    def is_here(self) -> bool:
        """Whether this process is in the same place, so that process ids can be looked up."""
        current = here()
        if self.boot and current.boot:
            return (self.boot, self.namespace) == (current.boot, current.namespace)
        return self.host == current.host

    def is_gone(self) -> bool:
        """Whether no process of it can live: this very machine was booted again since."""
        current = here()
        same = bool(self.machine) and (self.host, self.machine) == (current.host, current.machine)
        return same and bool(self.boot and current.boot) and self.boot != current.boot


@functools.lru_cache(maxsize=1)
def _place(pid: int) -> ProcessPlace:
    """By process, since a forked one may live in another namespace."""
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        namespace = ""
    return ProcessPlace(socket.gethostname(), _first_line(_BOOT_ID), namespace, _first_line(_MACHINE_ID))


def _first_line(file: Path) -> str:
    try:
        return file.read_text("ascii").partition("\n")[0].strip()
    except (OSError, ValueError):
        return ""


def here() -> ProcessPlace:
    """The place of this process."""
    return _place(os.getpid())


def is_running(pid: int, seen: float | None = None) -> bool:
    """Whether a process of this place lives. ``seen`` is the time of its last event (seconds since 1970): a process
    that began later has only the same number."""
    try:
        found = psutil.Process(pid)
        began_before = seen is None or found.create_time() <= seen + 1
        return bool(found.status() != psutil.STATUS_ZOMBIE and began_before)
    except psutil.NoSuchProcess:
        return False
