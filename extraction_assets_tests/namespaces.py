"""Machines on this machine: processes with a host name, process ids and perhaps a network of their own, and the files
of all. Linux alone has them, and not every user may make them."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from extraction_assets_tests import processes

NOT_HERE = "this user may not make namespaces here (unshare), so that one machine cannot be two hosts"

_LOOPBACK = """
import fcntl, socket, struct, sys
up, running, set_flags = 0x1, 0x40, 0x8914  # IFF_UP, IFF_RUNNING, SIOCSIFFLAGS
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up | running))
print("up", flush=True)
sys.stdin.read()
"""


def alone(*, network: bool = True) -> list[str]:
    """The command that gives what follows its own host name, process ids and, unless it says otherwise, network. All
    of its processes end with it."""
    more = ["--net"] if network else []
    return ["unshare", *_unprivileged(), *more, "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]


def may_make_hosts() -> bool:
    """Whether ``alone`` works, and the program ``hostname`` is there to name what it makes."""
    if shutil.which("unshare") is None or shutil.which("hostname") is None:
        return False
    return subprocess.run([*alone(), "true"], capture_output=True, check=False).returncode == 0


def named(name: str, command: list[str]) -> list[str]:
    """A command on a machine of that name, to be put behind ``alone``."""
    return ["sh", "-c", 'hostname "$0" && exec "$@"', name, *command]


def noted(command: list[str]) -> list[str]:
    """A command that ends with ``alone``'s, and tells what it starts which process it is: ``processes.MACHINE``."""
    return ["sh", "-c", f'export {processes.MACHINE}=$$; exec "$0" "$@"', *command]


def start_module(
    name: str,
    module: str,
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    streams: Path,
    network: int | None = None,
) -> BaseProcess:
    """``python -m MODULE ARGUMENTS`` on a machine of that name, as ``alone`` makes it, in a process that begins with
    everything imported: see ``processes.start_module``. Killing it kills all processes of the machine.

    ``network`` is a process whose network the machine is in; else it has its own.
    """
    given = name, module, list(arguments), folder, dict(environment), streams, network
    process = processes.forks().Process(target=_on_a_machine, args=given)
    process.start()
    return process


def enter(machine: int) -> None:
    """In a process that has just been forked: becomes one of the machine on which this process started another one.

    The process that enters waits outside for the one that is inside, and ends as that does; this returns in the latter.
    """
    _join(machine, "uts", "net", "pid_for_children", "mnt")
    _fork()


_NEW_MOUNTS, _NEW_NAME, _NEW_USERS, _NEW_IDS, _NEW_NETWORK = 0x20000, 0x4000000, 0x10000000, 0x20000000, 0x40000000
_RECURSIVE, _PRIVATE = 0x4000, 0x40000  # MS_REC, MS_PRIVATE
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def _on_a_machine(
    name: str,
    module: str,
    arguments: list[str],
    folder: Path,
    environment: dict[str, str],
    streams: Path,
    network: int | None,
) -> None:
    """In the new process: leaves this machine, and waits for the first process of the other one."""
    if network is not None:
        _join(network, "net")
    user, group, users = os.geteuid(), os.getegid(), _NEW_USERS if _unprivileged() else 0
    _call("unshare", _NEW_MOUNTS | _NEW_NAME | _NEW_IDS | (_NEW_NETWORK if network is None else 0) | users)
    if users:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    environment[processes.MACHINE] = str(os.getpid())
    _fork()
    socket.sethostname(name)
    _call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    _call("mount", b"proc", b"/proc", b"proc", 0, None)
    processes.become(module, arguments, folder, environment, streams)


def _join(process: int, *kinds: str) -> None:
    """The namespaces of a process, and first those of its users in which they were made."""
    first = ["user"] if _unprivileged() else []
    with contextlib.ExitStack() as open_files:
        folder = Path(f"/proc/{process}/ns")  # each is opened before one is joined, in which it may not be seen
        for file in [open_files.enter_context((folder / kind).open("rb")) for kind in (*first, *kinds)]:
            _call("setns", file.fileno(), 0)


def _fork() -> None:
    """Returns in a new process, without which this one ends: it waits for it, and ends as it does."""
    inside = os.fork()
    if inside:
        code = os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    _call("prctl", _DIE_WITH_PARENT, signal.SIGKILL)


def _call(function: str, *arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, function)(*arguments):
        raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")


class Network(NamedTuple):
    """A network with nothing but its loopback."""

    process: int
    """One that is in it."""
    inside: list[str]
    """The command that has what follows in it."""


@contextlib.contextmanager
def a_network() -> Iterator[Network]:
    """It is there until the block ends."""
    command = ["unshare", *_unprivileged(), "--net", sys.executable, "-c", _LOOPBACK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        user = ["--user", "--preserve-credentials"] if _unprivileged() else []
        yield Network(process.pid, ["nsenter", "--target", str(process.pid), *user, "--net"])
        process.stdin.close()


def _unprivileged() -> list[str]:
    return [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
