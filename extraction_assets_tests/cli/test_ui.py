"""``extraction-assets ui`` with real processes: what it refuses, what it serves, how it ends."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from extraction_assets_tests.daemon_lab import wait_for
from extraction_assets_tests.serving import free_port, serving
from extraction_assets_tests.tiny import make_settings

ENDS_WITHIN = 60

DEFINITIONS = """
import dagster as dg
from extraction_assets import default_resources
from extraction_assets.component import build_definitions
from extraction_assets.settings import ExtractionSettings

SETTINGS = ExtractionSettings.model_validate_json({settings!r})
defs = dg.Definitions.merge(build_definitions(SETTINGS), dg.Definitions(resources=default_resources()))
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with a module ``lab_definitions`` that is not installed, in a Dagster project called ``lab``."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    settings = make_settings(tmp_path / "tiny").model_dump_json()
    (folder / "lab_definitions.py").write_text(DEFINITIONS.format(settings=settings))
    (folder / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\n'
        'root_module = "lab_definitions"\ncode_location_name = "lab"\n'
    )
    return folder


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "extraction_assets.cli", "--module", "lab_definitions", *arguments]


def _environment() -> dict[str, str]:
    """Without a DAGSTER_HOME; this package is found from any working directory."""
    return {**os.environ, "DAGSTER_HOME": "", "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.slow
def test_commands_see_a_module_of_the_working_directory(lab: Path) -> None:
    script = [str(Path(sys.executable).parent / "extraction-assets"), "--module", "lab_definitions", "list"]
    done = subprocess.run(script, cwd=lab, env=_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "tiny" in done.stdout


@pytest.mark.slow
def test_a_port_in_use_is_one_sentence_before_anything_starts(lab: Path, home: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        command = _command("ui", "--port", str(port))
        done = subprocess.run(command, cwd=lab, env=_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"Error: port {port} is in use by another program: choose another with --port\n"
    assert done.stdout == ""
    assert not home.exists()


@pytest.mark.slow
def test_a_module_that_is_not_there_is_one_sentence_before_anything_starts(tmp_path: Path) -> None:
    command = _command("ui", "--port", str(free_port()))
    done = subprocess.run(command, cwd=tmp_path, env=_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"Error: no module 'lab_definitions' in {tmp_path} or among the installed packages\n"


@pytest.fixture
def served(lab: Path, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """The running command and its output."""
    log, port = tmp_path / "ui.log", free_port()
    with serving(_command("ui", "--port", str(port)), port, log, lab, _environment()) as process:
        yield process, log


@pytest.mark.slow
def test_the_browser_runs_beside_page_and_daemon_and_ctrl_c_ends_all_without_a_trace(
    served: tuple["subprocess.Popen[bytes]", Path],
) -> None:
    process, log = served
    _wait_for_the_features(log)
    children = psutil.Process(process.pid).children(recursive=True)
    assert {"dagster-webserver", "dagster-daemon"} <= {Path(child.cmdline()[1]).name for child in children}
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=ENDS_WITHIN) == 0, log.read_text()
    _, alive = psutil.wait_procs(children, timeout=ENDS_WITHIN)
    assert alive == []
    assert "Traceback" not in log.read_text()
    assert "code_location_name" not in log.read_text()


def _wait_for_the_features(log: Path) -> None:
    """Until the page that shows them answers, which says that there are none."""
    address = log.read_text().split("(the features)")[0].split()[-1]

    def shown() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10) as answer:
            return b"Nothing is merged yet" in answer.read()
        return False

    wait_for("the browser", shown)


TOGETHER = """
import sys
import click
from extraction_assets.cli.ui import _run_together
click.command()(lambda: _run_together([[program, "600"] for program in sys.argv[1:]]))(args=[])
"""


@pytest.fixture
def together(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", list[psutil.Process]]]:
    """Two programs that the command keeps together, by the names of page and daemon; they wait, as those do."""
    programs = [tmp_path / name for name in ("dagster-daemon", "dagster-webserver")]
    for program in programs:
        program.symlink_to(str(shutil.which("sleep")))
    command = [sys.executable, "-c", TOGETHER, *map(str, programs)]
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        names = {program.name for program in programs}
        running = psutil.Process(process.pid)
        wait_for("both programs", lambda: {Path(one.cmdline()[0]).name for one in running.children()} == names)
        yield process, sorted(running.children(), key=lambda child: child.cmdline())
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda asked: asked.name)
def test_being_asked_to_end_ends_what_runs_together_without_a_trace(
    together: tuple["subprocess.Popen[bytes]", list[psutil.Process]], asked: signal.Signals
) -> None:
    process, children = together
    process.send_signal(asked)
    output, _ = process.communicate(timeout=ENDS_WITHIN)
    assert (process.returncode, output) == (0, b"ending\n")
    assert psutil.wait_procs(children, timeout=ENDS_WITHIN)[1] == []


@pytest.mark.slow
def test_a_daemon_that_dies_ends_the_page_and_is_named(
    together: tuple["subprocess.Popen[bytes]", list[psutil.Process]],
) -> None:
    process, children = together
    children[0].kill()
    output, _ = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 1
    assert output == b"Error: dagster-daemon ended by itself with code -9; its message stands above\n"
    assert psutil.wait_procs(children, timeout=ENDS_WITHIN)[1] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_page_and_daemon_are_asked_to_end_where_the_command_itself_is_killed(
    together: tuple["subprocess.Popen[bytes]", list[psutil.Process]],
) -> None:
    """By the same signal as where Ctrl-C ends them, after which nothing of theirs is left."""
    process, children = together
    process.kill()
    assert psutil.wait_procs(children, timeout=ENDS_WITHIN)[1] == []
