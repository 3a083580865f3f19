"""Where the processes of ``run NAME --gpus N`` come from: forks of one that has imported what all need.

To import torch, transformers and Dagster takes each process several seconds. CUDA does not work in forks of a process
that has used it, such as the command itself may be; the one that is forked never does.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from typing import Any

PRELOADED = "extraction_assets.cli.preloaded"


def new_processes() -> BaseContext:
    """The kind of processes of this platform: where forks are none or unsafe, each imports everything itself."""
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def begin_preloading(processes: BaseContext) -> None:
    """Has the imports begin in the process that others are forked from, and does not wait for them."""
    if processes.get_start_method() == "forkserver":
        processes.set_forkserver_preload([PRELOADED])
        with handled(signal.SIG_IGN, signal.SIGINT):  # the server passes it on, and Ctrl-C is the command's
            forkserver.ensure_running()


def wait_until_preloaded(processes: BaseContext) -> None:
    """Returns once a new process starts at once. Raises KeyboardInterrupt after Ctrl-C."""
    if processes.get_start_method() == "forkserver":
        first = processes.Process(target=os.getpid)  # type: ignore[attr-defined]
        first.start()
        first.join()


@contextlib.contextmanager
def handled(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    """Signals of the main thread have a handler of their own in the block."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
