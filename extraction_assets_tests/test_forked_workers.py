"""Workers of pytest-xdist that are forked."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import execnet
import pytest

from extraction_assets_tests import forked_workers
from extraction_assets_tests.processes import ROOT

TEST = """
import sys
sys.collected = True  # in the process that this module was imported in
"""

FACTS = """
import os, sys
main = sys.modules["__main__"]
channel.send((os.getpid(), os.getppid(), getattr(sys, "collected", False), getattr(main, "__file__", None)))
channel.send((os.getcwd(), os.environ.get("EXTRACTION_TESTS_GIVEN"), sys.stdin.read()))
"""


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[execnet.Group, str]]:
    """Interpreters to be forked behind the collection of one module."""
    (tmp_path / "test_one.py").write_text(TEST)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("EXTRACTION_TESTS_GIVEN", "yes")
    monkeypatch.chdir(tmp_path)
    with forked_workers.server(tmp_path, ["-n", "3", "-p", "no:cacheprovider", "test_one.py"]) as interpreter:
        made = execnet.Group()
        yield made, f"popen//python={interpreter}"
        made.terminate(5)


@pytest.mark.slow
def test_workers_begin_with_what_was_collected_once(group: tuple[execnet.Group, str], tmp_path: Path) -> None:
    made, spec = group
    channels = [made.makegateway(spec).remote_exec(FACTS) for _ in range(2)]
    facts = [channel.receive() for channel in channels]
    assert len({own for own, *_ in facts}) == 2
    assert len({parent for _, parent, *_ in facts} - {os.getpid()}) == 1
    assert [rest for _, _, *rest in facts] == [[True, None]] * 2
    assert [channel.receive() for channel in channels] == [(str(tmp_path), "yes", "")] * 2


@pytest.mark.slow
def test_a_worker_that_is_given_up_is_killed(group: tuple[execnet.Group, str]) -> None:
    made, spec = group
    gateway = made.makegateway(spec)
    worker = os.pidfd_open(gateway.remote_exec("import os; channel.send(os.getpid())").receive())
    gateway.remote_exec("import time; time.sleep(60)")
    gateway._io.kill()
    ended, _, _ = select.select([worker], [], [], 20)
    os.close(worker)
    assert ended == [worker]


@pytest.mark.skipif(not forked_workers.can_fork(), reason="workers are not forked on this machine")
def test_this_worker_is_forked() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # not a mark: a worker's module was imported before the worker began
        pytest.skip("pytest runs without workers")
    assert forked_workers.__name__ in Path(f"/proc/{os.getppid()}/cmdline").read_text()


def test_no_worker_is_forked_beside_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked_workers, "GPU_DRIVERS", (tmp_path / "no", tmp_path))
    assert not forked_workers.can_fork()
