"""``extraction-assets browse`` as a real process, and the addresses that it takes."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

from extraction_assets.browser.server import AddressError, address_of, is_loopback, listen
from extraction_assets_tests.project import Project
from extraction_assets_tests.serving import free_port

STARTS_WITHIN = 30


@pytest.fixture
def browsing(project: Project) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The running command and its address."""
    command = [sys.executable, "-m", "extraction_assets.cli", "browse", "--port", str(free_port())]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "EXTRACTION_DATABASE_URL": project.url}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout
        yield process, process.stdout.readline().split()[0]
        process.kill()


@pytest.mark.slow
def test_it_serves_the_results_and_ends_without_a_trace(browsing: tuple["subprocess.Popen[str]", str]) -> None:
    process, address = browsing
    began = time.monotonic()
    with urllib.request.urlopen(f"{address}/", timeout=STARTS_WITHIN) as answer:
        assert "/tiny/relu/" in answer.read().decode()
    assert time.monotonic() - began < STARTS_WITHIN
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=STARTS_WITHIN)
    assert (process.returncode, output) == (0, "")


def test_a_used_port_is_one_sentence() -> None:
    with (
        listen() as first,
        pytest.raises(AddressError, match="is in use by another program: choose another with --port"),
    ):
        listen(port=first.getsockname()[1])


def test_without_a_port_a_free_one_is_chosen() -> None:
    with listen() as first, listen() as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_a_host_that_is_none_is_one_sentence() -> None:
    with pytest.raises(AddressError, match="is not a name or an address of this machine"):
        listen("no such host")


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_address_of_ipv6_stands_in_brackets() -> None:
    try:
        listening = listen("::1")
    except AddressError:
        pytest.skip("this machine has no IPv6 loopback")
    with listening:
        assert address_of(listening).startswith("http://[::1]:")
        assert is_loopback(listening.getsockname()[0])
