"""``ui``: Dagster's pages and its daemon."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from extraction_assets.cli.app import main
from extraction_assets.home import prepare_dagster_home


@main.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workspace", type=click.Path(exists=True, dir_okay=False), help="workspace.yaml to serve.")
@click.pass_obj
def ui(module: str, port: int, workspace: str | None) -> None:
    """Serve Dagster's UI on 127.0.0.1 together with its daemon, until Ctrl-C."""
    home = prepare_dagster_home()
    programs = Path(sys.executable).parent
    if not (programs / "dagster-webserver").is_file():
        raise click.ClickException("dagster-webserver is not installed: pip install 'extraction-assets[ui]'")
    target = ["-w", workspace] if workspace else ["-m", module]
    commands = [
        [str(programs / "dagster-daemon"), "run", *target],
        [str(programs / "dagster-webserver"), *target, "-h", "127.0.0.1", "-p", str(port)],
    ]
    click.echo(f"http://127.0.0.1:{port}  (Dagster home {home}; Ctrl-C ends it)")
    _run_together(commands)


def _run_together(commands: list[list[str]]) -> None:
    """Run commands until one of them ends, or this process is asked to, then end them all."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes = [subprocess.Popen(command) for command in commands]
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    except KeyboardInterrupt:
        click.echo("ending")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)
