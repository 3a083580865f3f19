"""Machines on this machine: processes with a host name, process ids and perhaps a network of their own, and the files
of all. Linux alone has them, and not every user may make them."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

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


@contextlib.contextmanager
def a_network() -> Iterator[list[str]]:
    """A network with nothing but its loopback, until the block ends: the command that has what follows in it."""
    command = ["unshare", *_unprivileged(), "--net", sys.executable, "-c", _LOOPBACK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        user = ["--user", "--preserve-credentials"] if _unprivileged() else []
        yield ["nsenter", "--target", str(process.pid), *user, "--net"]
        process.stdin.close()


def _unprivileged() -> list[str]:
    return [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
