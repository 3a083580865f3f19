"""Commands in processes of their own that begin with everything imported.

A Python process spends four CPU seconds on importing torch, transformers and Dagster. These are forked from one server
that has imported them and used nothing, and have Dagster's storage of ``quick_dagster``: apart from that they are what
``python -m MODULE`` starts, with a process id, environment, working directory and standard streams of their own.
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib.util
import multiprocessing
import os
import pickle
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess, _children
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

_PRELOAD = [
    "dagster._cli",
    "dagster._core.definitions.external_asset",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.execute_in_process",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.storage.asset_check_state",
    "dagster._core.storage.migration.utils",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.system_config.composite_descent",
    "dagster._core.workspace.autodiscovery",
    "dagster._daemon.cli",
    "dagster._grpc.server",
    *(
        ["dagster_postgres", "dagster_postgres.event_log", "dagster_postgres.run_storage", "psycopg2.extras"]
        if importlib.util.find_spec("dagster_postgres")
        else []
    ),
    "extraction_assets.assets.chunks.asset",
    "extraction_assets.assets.chunks.run",
    "extraction_assets.assets.chunks.step",
    "extraction_assets.assets.corpus.asset",
    "extraction_assets.assets.corpus.run",
    "extraction_assets.assets.directions.asset",
    "extraction_assets.assets.directions.run",
    "extraction_assets.assets.examples.asset",
    "extraction_assets.assets.examples.run",
    "extraction_assets.assets.exports.asset",
    "extraction_assets.assets.relations.asset",
    "extraction_assets.assets.relations.run",
    "extraction_assets.assets.report.asset",
    "extraction_assets.assets.report.run",
    "extraction_assets.cli.runner",
    "extraction_assets.defs_yaml.folder",
    "extraction_assets.early_checks.extraction",
    "extraction_assets.exports.write_export",
    "extraction_assets.planning.changes",
    "extraction_assets.python_api",
    "extraction_assets.stores.chunk_shapes",
    "extraction_assets_tests.forked_dagster",
    "extraction_assets_tests.project",
    "extraction_assets_tests.quick_dagster",
    "pandas",
    "pyarrow.pandas_compat",
    "sentencepiece",
    "structlog",
    "tabulate",
    "tomlkit",
    "transformers.convert_slow_tokenizer",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "upath.implementations.local",
    "extraction_assets_tests.preloaded",
]
"""What the processes would else import, each for itself, in half a second of the CPU."""


STREAMS = ("stdout", "stderr")

FORK_SERVER = "EXTRACTION_TESTS_FORK_SERVER"
"""The variable with the address of the server, for processes in which Dagster's own are forks: ``forked_dagster``."""


SHARED = "EXTRACTION_TESTS_SHARED_SERVER"
"""The variable with the folder in which the workers of pytest-xdist find the one server of all."""

MACHINE = "EXTRACTION_TESTS_MACHINE"
"""The variable with the process whose machine a new one is put on: ``namespaces``."""

STORAGE = "EXTRACTION_TESTS_DAGSTER_STORAGE"
"""The variable with the folder in which processes find the databases that one of them has made: ``copied_storage``."""

OBJECTS_BEFORE_GARBAGE = 20_000
"""Objects made since the last garbage collection at which the next one begins; Python's 700 give 30 times as many."""

ROOT = Path(__file__).parent.parent


@functools.cache
def forks() -> ForkServerContext:
    """Its ``Process`` begins with everything imported and nothing used."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    if SHARED in os.environ:
        _share(Path(os.environ[SHARED]))
    else:
        _start_server()
    return context


def _share(folder: Path) -> None:
    """Joins the server that another worker has started, or starts it for all: importing takes 6 CPU seconds."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _join(folder):
            _start_server()
            (folder / "socket").unlink(missing_ok=True)
            os.link(_server._forkserver_address, folder / "socket")  # the other name goes with this process
            (folder / "alive").write_text(f"/proc/{os.getpid()}/fd/{_server._forkserver_alive_fd}")
    _server._forkserver_address = str(folder / "socket")


def _join(folder: Path) -> bool:
    """Whether there is a server. It lives as long as any process that has its pipe open, as this one has then."""
    try:
        _server._forkserver_alive_fd = os.open((folder / "alive").read_text(), os.O_WRONLY)
    except FileNotFoundError:  # the worker that has started it is gone, or none has
        return False
    _start_no_other()
    return True


def _start_no_other() -> None:
    """The server is another process's child, which this one cannot wait for. The module has a name of its own for what
    looks whether it runs, and ``run NAME --gpus N`` calls it by that."""
    _server.ensure_running = forkserver.ensure_running = lambda: None


_server: Any = forkserver._forkserver  # type: ignore[attr-defined]


def _start_server() -> None:
    with contextlib.chdir(ROOT):  # where it finds what it imports, whatever the folder of the test that needs it first
        _server.ensure_running()  # which does nothing in a process that has joined another one's server


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
        process = start_module(module, arguments, folder or Path.cwd(), environment or os.environ, Path(streams))
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        output, errors = ((Path(streams) / name).read_text("utf-8", "replace") for name in STREAMS)
    code = process.exitcode
    assert code is not None
    return subprocess.CompletedProcess(words, code, output, errors)


def run_code(code: str, *arguments: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
    """What ``python -c CODE ARGUMENTS`` gives, as ``run_module``. Not for a code that is to load little."""
    return run_module(CODE, [code, *arguments], timeout=timeout)


def forget(*packages: str) -> None:
    """In a new process: it has not imported these any more, and imports them anew where something needs them."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def start_code(code: str, *arguments: str, streams: Path) -> BaseProcess:
    """The process of ``python -c CODE ARGUMENTS``, as ``start_module``."""
    return start_module(CODE, [code, *arguments], Path.cwd(), os.environ, streams)


CODE = "extraction_assets_tests.run_code"
"""The module that runs the code that is its first argument."""


def start_module(
    module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], streams: Path
) -> BaseProcess:
    """The process of ``python -m MODULE ARGUMENTS``, with its streams in files; this process may end before it."""
    process = forks().Process(target=begin, args=(module, list(arguments), folder, dict(environment), streams))
    process.start()
    _children.discard(process)  # those that are left would be waited for at exit
    return process


def streams() -> Path:
    """The folder with the streams of this process, which ``start_module`` started."""
    return Path(os.readlink("/proc/self/fd/1")).parent


def address() -> str:
    """Where other processes reach the server that forks."""
    forks()
    return str(_server._forkserver_address)


def reach(address: str) -> None:
    """In a process that has neither started the server nor joined it: has it forked all the same."""
    _server._forkserver_address = address
    _start_no_other()


class Hurried(ForkServerContext):
    """Its ``Process`` begins as those of ``start_module`` do: with one thread, and the storage of ``quick_dagster``."""

    def Process(  # type: ignore[override]
        self, target: Callable[..., Any], args: Sequence[Any] = (), name: str | None = None
    ) -> BaseProcess:
        forks()
        return super().Process(target=_hurry_and_call, args=(target, args), name=name)


def _hurry_and_call(target: Callable[..., Any], arguments: Sequence[Any]) -> None:
    _hurry()
    target(*arguments)


class Anew(ForkServerContext):
    """Its ``Process`` begins with the libraries imported and nothing of this package, as what it imports is to be tried
    at a tenth of the time that a fresh Python takes."""

    def Process(  # type: ignore[override]
        self, target: Callable[..., Any], args: Sequence[Any] = (), name: str | None = None
    ) -> BaseProcess:
        forks()
        return super().Process(target=_call, args=(_ReadAnew(target, args),), name=name)


class _ReadAnew:
    """A function and its arguments, for which the process that reads them imports the package anew."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        return _read_anew, (bytes(ForkingPickler.dumps(self._parts)),)


def _read_anew(parts: bytes) -> Any:
    tests = Path(__file__).parent.name
    forget(tests, tests.removesuffix("_tests"))
    return pickle.loads(parts)  # noqa: S301 - of the process that starts this one


def _call(parts: tuple[Callable[..., Any], Sequence[Any]]) -> None:
    target, arguments = parts
    target(*arguments)


def begin(module: str, arguments: list[str], folder: Path, environment: dict[str, str], streams: Path) -> None:
    """In the new process: goes to its machine, and runs the module as its main program."""
    if MACHINE in environment:
        from extraction_assets_tests import namespaces

        namespaces.enter(int(environment[MACHINE]))
    become(module, arguments, folder, environment, streams)


def become(module: str, arguments: list[str], folder: Path, environment: dict[str, str], streams: Path) -> None:
    """In the new process: runs the module as its main program."""
    with started(folder, environment, streams):
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextlib.contextmanager
def started(folder: Path, environment: dict[str, str], streams: Path) -> Iterator[None]:
    """In a forked process: begins and ends as one that was started, with a working directory, environment, import path
    and streams of its own."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(STREAMS, 1):
        file = os.open(streams / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
        setattr(sys, name, os.fdopen(os.dup(number), "w", 1, "utf-8"))
    sys.stdin = open(os.devnull)  # noqa: SIM115
    named = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [str(folder), *named]
    _hurry()
    if FORK_SERVER in environment:
        from extraction_assets_tests import forked_dagster

        forked_dagster.prepare()
    try:
        yield
    finally:  # multiprocessing leaves them out
        atexit._run_exitfuncs()
        gc.collect()


def _hurry() -> None:
    import torch

    from extraction_assets_tests import quick_dagster

    torch.set_num_threads(1)  # as in the process of the tests: the number is part of a chunk's record
    gc.set_threshold(OBJECTS_BEFORE_GARBAGE)
    quick_dagster.hurry()
