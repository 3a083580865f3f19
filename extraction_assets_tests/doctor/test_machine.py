"""What the doctor says of machines: real processes, sockets and locks; a driver and a torch that a test makes up."""

import http.server
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from extraction_assets.doctor import folders, gpus, machine
from extraction_assets.doctor.examine import examine
from extraction_assets.engine.findings import Finding
from extraction_assets.host.gpu_lease import lease
from extraction_assets_tests.fake_nvml import FakeGpu, FakeNvml, install

UUID = "11111111-2222-3333-4444-555555555555"
TWO_GPUS = [FakeGpu(UUID), FakeGpu("99999999-2222-3333-4444-555555555555", free_mib=100)]


@pytest.fixture(autouse=True)
def _fresh_probe() -> Iterator[None]:
    gpus.probe_torch.cache_clear()
    yield
    gpus.probe_torch.cache_clear()


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a torch of a test's making before the real one, for processes that begin later."""

    def install(source: str) -> None:
        (tmp_path / "site" / "torch").mkdir(parents=True)
        (tmp_path / "site" / "torch" / "__init__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    return install


def _fake_torch(cuda: str | None, devices: int) -> str:
    return (
        "from types import SimpleNamespace\n__version__ = '9.9'\n"
        f"version = SimpleNamespace(cuda={cuda!r}, hip=None)\n"
        f"cuda = SimpleNamespace(device_count=lambda: {devices})\n"
    )


def _only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_check_that_fails_exits_or_hangs_is_a_finding_and_the_others_go_on() -> None:
    def fails() -> Iterator[Finding]:
        yield Finding("ok", "so far", check="fails")
        raise ZeroDivisionError("by nothing\nand more lines")

    release = threading.Event()

    def hangs() -> list[Finding]:
        release.wait(30)
        return []

    checks = {
        "fails": fails,
        "exits": lambda: sys.exit(3),
        "hangs": hangs,
        "fine": lambda: [Finding("ok", "", check="fine")],
    }
    found = list(examine(checks, seconds=0.3))
    release.set()
    assert [(one.severity, one.check, one.message) for one in found] == [
        ("ok", "fails", "so far"),
        ("error", "fails", "could not be looked at: ZeroDivisionError: by nothing"),
        ("error", "exits", "could not be looked at: SystemExit: 3"),
        ("error", "hangs", "gave no answer in 0.3 seconds"),
        ("ok", "fine", ""),
    ]


def test_this_python_and_these_packages_are_fine() -> None:
    assert _only(machine.check_python()).severity == "ok"
    assert {one.severity for one in machine.check_packages()} == {"ok"}


def test_an_old_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = machine._version
    monkeypatch.setattr(machine, "_version", lambda name: "1.0" if name == "pyarrow" else right(name))
    problem = next(one for one in machine.check_packages() if one.severity == "error")
    assert "pyarrow is 1.0, >=18 is needed" in problem.message


@pytest.mark.parametrize(
    ("cuda", "devices", "visible", "level", "text"),
    [
        (None, 0, None, "error", "9.9 (CPU only), but this host has 2 GPU(s): runs would be computed on the CPU"),
        ("13.0", 0, None, "error", "9.9 (CUDA 13.0) sees none of 2 GPU(s), driver 550.1"),
        ("13.0", 0, "", "warning", "9.9 (CUDA 13.0); CUDA_VISIBLE_DEVICES='' hides 2 GPU(s)"),
        ("13.0", 2, None, "ok", "9.9 (CUDA 13.0); sees 2 GPU(s)"),
    ],
)
def test_torch_against_the_driver(
    torch: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    cuda: str | None,
    devices: int,
    visible: str | None,
    level: str,
    text: str,
) -> None:
    install(monkeypatch, FakeNvml(TWO_GPUS))
    torch(_fake_torch(cuda, devices))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    finding = _only(gpus.check_torch())
    assert (finding.severity, finding.message) == (level, text)
    assert bool(finding.advice) == (level != "ok")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise OSError('libcudart.so.13: cannot open shared object file')", "OSError: libcudart.so.13: cannot open"),
        ("import os\nos.kill(os.getpid(), 9)", "the process ended with -9"),
    ],
)
def test_a_torch_that_cannot_be_imported_does_not_take_the_doctor_down(
    torch: Callable[[str], None], source: str, text: str
) -> None:
    torch(source)
    finding = _only(gpus.check_torch())
    assert finding.severity == "error"
    assert text in finding.message


def test_gpus_are_listed_with_their_memory_and_who_leased_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(TWO_GPUS))
    monkeypatch.setattr(gpus, "gpu_lease_folder", lambda: tmp_path / "leases")
    with lease([UUID], logging.getLogger("test"), tmp_path / "leases"):
        first, second = gpus.check_gpus()
    assert first.severity == "ok"
    assert first.message.startswith("0: NVIDIA Test 9000, 78.1 of 80.0 GiB free, leased by ")
    if Path("/proc/locks").is_file():
        assert f"process {os.getpid()} of " in first.message
    assert (second.severity, second.advice) == ("warning", "another program fills it: see nvidia-smi")
    first, _ = gpus.check_gpus()
    assert first.message.endswith("not leased")


def test_a_driver_that_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml([], refuses=FakeNvml.NVML_ERROR_UNKNOWN, text="Driver/library version mismatch"))
    finding = _only(gpus.check_gpus())
    assert (finding.severity, finding.message) == ("warning", "NVML fails: Driver/library version mismatch")


def test_a_host_without_a_driver_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml([], refuses=FakeNvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    finding = _only(gpus.check_gpus())
    assert (finding.severity, finding.message) == ("ok", "no NVIDIA driver on this host")


def test_homes_say_which_variable_sets_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [one.message for one in folders.check_homes()]
    assert texts[0] == f"EXTRACTION_HOME is {home} (set by EXTRACTION_HOME), not made yet"
    assert texts[1] == f"DAGSTER_HOME is {home}/dagster (default; DAGSTER_HOME moves it), not made yet"
    assert not home.exists()


@pytest.mark.parametrize(
    ("where", "text"),
    [("/proc/nowhere", "cannot be written to"), ("{file}/home", "a file is in the way"), ("here", "every working dir")],
)
def test_a_home_that_cannot_be_used_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, text: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXTRACTION_HOME", where.format(file=tmp_path / "file"))
    first = next(iter(folders.check_homes()))
    assert first.severity == "error"
    assert text in first.message
    assert "EXTRACTION_HOME" in first.advice


def test_a_file_system_without_locks_or_on_the_network_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_file_system", lambda _folder: "nfs4")
    assert "on a network file system (nfs4)" in next(iter(folders.check_homes())).message

    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folders.fcntl, "flock", no_locks)
    first = next(iter(folders.check_homes()))
    assert (first.severity, "has no file locks" in first.message) == ("error", True)


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {one.check for one in folders.check_space()} == {"disk"}
    monkeypatch.setattr(folders, "TOO_LITTLE_SPACE", 1e18)
    assert {one.severity for one in folders.check_space()} == {"error"}


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    monkeypatch.setattr(machine, "PORT", free)
    return free


def test_a_free_port_is_fine_and_one_of_another_program_is_not(port: int) -> None:
    assert _only(machine.check_port()).severity == "ok"
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        finding = _only(machine.check_port())
    assert finding.severity == "warning"
    assert finding.advice == f"extraction-assets ui --port {port + 1}"


def test_a_port_at_which_dagster_answers_is_fine(port: int) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"dagster_webserver_version": "1"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        finding = _only(machine.check_port())
        server.shutdown()
        thread.join()
    assert (finding.severity, "Dagster's UI answers there" in finding.message) == ("ok", True)


@pytest.mark.parametrize("answer", [b"3", b"[" * 200_000, b"\xff", b"no HTTP at all"], ids=range(4))
def test_whatever_listens_on_the_port_may_answer_anything(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = b"" if answer.startswith(b"no") else b"HTTP/1.0 200 OK\r\n\r\n"

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(head + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert machine._is_dagster(server.getsockname()[1]) is False
        thread.join()
