"""Processes that tests fork instead of starting them."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from dagster._core.storage.runs.sqlite import sqlite_run_storage

from extraction_assets_tests import processes, quick_dagster

MODULE = """
import os, sys
print(os.getpid(), os.getcwd(), os.environ.get("EXTRACTION_TESTS_GIVEN"), sys.argv[1:], "torch" in sys.modules)
print("to the other stream", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("module", processes._PRELOAD)
def test_what_a_process_begins_with_is_there(module: str) -> None:
    assert find_spec(module) is not None  # multiprocessing says nothing of one that is not


def test_a_forked_module_has_folder_environment_arguments_and_streams_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "spoken.py").write_text(MODULE)
    done = processes.run_module("spoken", ["a", "b"], folder=tmp_path, environment={"EXTRACTION_TESTS_GIVEN": "yes"})
    number, rest = done.stdout.split(" ", 1)
    assert int(number) != os.getpid()
    assert rest == f"{tmp_path} yes ['a', 'b'] True\n"
    assert (done.returncode, done.stderr) == (3, "to the other stream\n")
    assert "spoken" not in sys.modules


def _note_threads(path: Path) -> None:
    hurried = sqlite_run_storage.create_engine is quick_dagster._create_engine
    path.write_text(f"{torch.get_num_threads()} {hurried}")


def test_a_hurried_process_computes_with_one_thread_and_has_the_quick_storage(tmp_path: Path) -> None:
    process = processes.Hurried().Process(target=_note_threads, args=(tmp_path / "noted",))
    process.start()
    process.join()
    assert (tmp_path / "noted").read_text() == "1 True"


WORKER = """
import os, sys
from extraction_assets.cli.new_processes import begin_preloading
from extraction_assets_tests import processes

processes._PRELOAD.clear()
print(processes.address(), flush=True)
sys.stdin.readline()
begin_preloading(processes.forks())  # as ``run NAME --gpus N`` does
process = processes.forks().Process(target=os.getppid)
process.start()
process.join()
print(process.exitcode, processes.address(), flush=True)
"""


def _worker(folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(processes.ROOT), processes.SHARED: str(folder)}
    words = [sys.executable, "-c", WORKER]
    return subprocess.Popen(words, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _says(worker: "subprocess.Popen[str]", to_it: str = "") -> str:
    """The next line of a worker, once it has read a line itself."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(to_it)
    worker.stdin.flush()
    return worker.stdout.readline()


def test_workers_share_a_server_that_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    with _worker(tmp_path) as first, _worker(tmp_path) as second:
        address = _says(first)
        assert _says(second) == address
        starter, other = sorted((first, second), key=lambda one: f"/{one.pid}/" not in (tmp_path / "alive").read_text())
        assert _says(starter, "\n") == f"0 {address}"
        assert starter.wait() == 0
        assert _says(other, "\n") == f"0 {address}"


def test_a_worker_that_comes_after_the_server_ended_starts_another(tmp_path: Path) -> None:
    for _ in range(2):
        with _worker(tmp_path) as worker:
            assert _says(worker) == f"{tmp_path}/socket\n"
            assert f"/{worker.pid}/" in (tmp_path / "alive").read_text()
            assert _says(worker, "\n") == f"0 {tmp_path}/socket\n"
