"""Commands in processes of their own that begin with everything imported.

A Python process spends four CPU seconds on importing torch, transformers and Dagster. These are forked from one server
that has imported them and used nothing: apart from that they are what ``python -m MODULE`` starts, with a process id,
environment, working directory and standard streams of their own.
"""

import atexit
import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

_PRELOAD = [
    "dagster._cli",
    "extraction_assets.assets.chunks.run",
    "extraction_assets.assets.corpus.run",
    "extraction_assets.assets.examples.run",
    "extraction_assets.assets.report.run",
    "extraction_assets.cli.runner",
    "extraction_assets.early_checks.extraction",
    "extraction_assets_tests.project",
    "transformers.models.llama.modeling_llama",
]


@functools.cache
def forks() -> ForkServerContext:
    """Its ``Process`` begins with everything imported and nothing used."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def run_module(
    module: str,
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> "subprocess.CompletedProcess[str]":
    """What ``subprocess.run`` of ``python -m MODULE ARGUMENTS`` gives, with both streams captured as text.

    Raises subprocess.TimeoutExpired; the process is killed then.
    """
    words = [module, *arguments]
    with tempfile.TemporaryDirectory() as streams:
        target = (module, list(arguments), folder or Path.cwd(), dict(environment or os.environ), Path(streams))
        process = forks().Process(target=_become, args=target)
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        output, errors = ((Path(streams) / name).read_text("utf-8", "replace") for name in ("stdout", "stderr"))
    code = process.exitcode
    assert code is not None
    return subprocess.CompletedProcess(words, code, output, errors)


def _become(module: str, arguments: list[str], folder: Path, environment: dict[str, str], streams: Path) -> None:
    """In the new process: takes on what a process is started with, then runs the module as its main program."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(streams / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
        setattr(sys, name, os.fdopen(os.dup(number), "w", 1, "utf-8"))
    sys.stdin = open(os.devnull)  # noqa: SIM115
    named = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [str(folder), *named]
    sys.argv = [module, *arguments]
    _set_threads()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _set_threads() -> None:
    import torch

    torch.set_num_threads(1)  # as in the process of the tests: the number is part of a chunk's record
