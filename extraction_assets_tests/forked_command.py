"""``python -S -m extraction_assets_tests.forked_command MODULE ARGUMENTS`` is ``python -m MODULE ARGUMENTS``, for what
starts a program by its name. A fork of the server in ``processes`` does it, with the folder, environment, output and
machine of this process; signals that this one gets do not reach it."""

import os
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

from extraction_assets_tests import processes


def main(module: str, *arguments: str) -> int:
    """The command's exit code."""
    processes.reach(os.environ[processes.FORK_SERVER])
    _, forkserver._forkserver._forkserver_alive_fd = os.pipe()  # type: ignore[attr-defined]  # others keep it alive
    with tempfile.TemporaryDirectory() as streams:
        for number, name in enumerate(processes.STREAMS, 1):
            (Path(streams) / name).symlink_to(os.readlink(f"/proc/self/fd/{number}"))
        process = processes.start_module(module, arguments, Path.cwd(), os.environ, Path(streams))
        process.join()
    assert process.exitcode is not None
    return process.exitcode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
