"""``ui``: Dagster's pages and its daemon, and the browser of features beside them."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from extraction_assets.cli.app import main
from extraction_assets.cli.declared_extractions import see_working_directory
from extraction_assets.cli.terminal import echo
from extraction_assets.dagster_instance.home import prepare_dagster_home
from extraction_assets.host.locations import BROWSER_PORT, BROWSER_URL_VARIABLE
from extraction_assets.host.regular_files import read_text

HOST = "127.0.0.1"
_SECONDS_TO_END = 30.0
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@main.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--browser-port",
    type=click.IntRange(1, 65535),
    help="Port of the browser of features; by default 3080, or a free one.",
)
@click.option("--workspace", type=click.Path(exists=True, dir_okay=False), help="workspace.yaml to serve.")
@click.pass_obj
def ui(module: str, port: int, browser_port: int | None, workspace: str | None) -> None:
    """Serve Dagster's UI on 127.0.0.1 together with its daemon and the browser of features, until Ctrl-C."""
    programs = Path(sys.executable).parent
    if not (programs / "dagster-webserver").is_file():
        raise click.ClickException("dagster-webserver is not installed: pip install 'extraction-assets[ui]'")
    _refuse_used_port(port)
    features = browser_port or _free_port(taken=port)
    if browser_port is not None:
        _refuse_used_port(browser_port)
    home = prepare_dagster_home()
    _create_storage()
    with contextlib.ExitStack() as stack:
        served = workspace or str(stack.enter_context(_workspace_of(module)))
        commands = [
            [str(programs / "dagster-daemon"), "run", "-w", served],
            [str(programs / "dagster-webserver"), "-w", served, "-h", HOST, "-p", str(port)],
            [sys.executable, "-m", "extraction_assets.cli", "--module", module, "browse", "--port", str(features)],
        ]
        os.environ.setdefault(BROWSER_URL_VARIABLE, f"http://{HOST}:{features}")  # where links of the assets lead
        echo(f"http://{HOST}:{port}  (Dagster home {home}; Ctrl-C ends it)")
        echo(f"http://{HOST}:{features}  (the features)")
        _run_together(commands)


def _refuse_used_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a closed one does not count
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise click.ClickException(f"port {port} needs an administrator: choose another with --port") from error
        except OSError as error:
            raise click.ClickException(
                f"port {port} is in use by another program: choose another with --port"
            ) from error


def _free_port(taken: int) -> int:
    """The browser's usual port, or any free one if that is in use or Dagster's."""
    for port in (BROWSER_PORT, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            if port != taken:
                return int(probe.getsockname()[1])
    raise click.ClickException("no port is free for the browser: choose one with --browser-port")


def _create_storage() -> None:
    """Make the tables of a new Dagster home now: page and daemon, started together, would both try, and one fail."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        instance.get_runs_count()
        instance.event_log_storage.get_maximum_record_id()
        if instance.schedule_storage is not None:
            instance.schedule_storage.all_instigator_state()


@contextlib.contextmanager
def _workspace_of(module: str) -> Iterator[Path]:
    """A workspace file for a module, seen from the working directory, under the name that its project gives itself."""
    see_working_directory()
    spec = find_spec(module)
    if spec is None:
        raise click.ClickException(f"no module {module!r} in {Path.cwd()} or among the installed packages")
    location = _location_name(Path(spec.origin)) if spec.origin else None
    target: dict[str, Any] = {"module_name": module, "working_directory": str(Path.cwd())}
    with tempfile.TemporaryDirectory(prefix="extraction-assets-") as folder:
        path = Path(folder) / "workspace.yaml"
        loaded = {"python_module": {**target, "location_name": location or module}}
        path.write_text(json.dumps({"load_from": [loaded]}), "utf-8")  # JSON is YAML
        yield path


def _location_name(source: Path) -> str | None:
    """The code location's name as Dagster reads it from a project's pyproject.toml; under any other it would warn."""
    for folder in source.parents:
        with contextlib.suppress(FileNotFoundError):
            project = tomllib.loads(read_text(folder / "pyproject.toml"))
            named = project.get("tool", {}).get("dg", {}).get("project")
            if named is not None:
                return str(named.get("code_location_name") or folder.name)
    return None


def _run_together(commands: list[list[str]]) -> None:
    """Run commands until one of them ends, or this process is stopped, then end them all."""
    # SIGINT too: a shell that starts a command in the background has it ignored.
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop_signal, signal.default_int_handler)
    # Sessions of their own: a terminal's Ctrl-C reaches this process alone, which then ends them in order.
    processes = [subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent) for command in commands]
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.2)
    except KeyboardInterrupt:
        echo("ending")
        _end(processes)
        return
    command, code = next(
        (c, p.returncode) for c, p in zip(commands, processes, strict=True) if p.returncode is not None
    )
    _end(processes)
    raise click.ClickException(f"{_program(command)} ended by itself with code {code}; its message stands above")


def _program(command: list[str]) -> str:
    """What a command is called in a message."""
    return "the browser" if command[0] == sys.executable else Path(command[0]).name


def _end_with_parent() -> None:
    """Let Linux end a child if its parent is killed: a daemon left behind would run beside the next one."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(processes: "list[subprocess.Popen[bytes]]") -> None:
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop_signal, signal.SIG_IGN)  # a second Ctrl-C must not leave one of them behind
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _SECONDS_TO_END
    for process in processes:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
