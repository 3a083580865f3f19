"""``doctor``: reports what is wrong with this machine, and what to do."""

import functools
import json
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import command_line, explain, main
from extraction_assets.cli.terminal import echo, styled
from extraction_assets.cli.workspace import Workspace

if TYPE_CHECKING:
    from extraction_assets.doctor.examine import Check
    from extraction_assets.engine.findings import Finding
    from extraction_assets.resources import ChunkStoreResource, ResultsResource

_LEVELS = {"ok": "ok", "warning": "warning", "error": "problem"}
_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, for programs.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check this machine and this project, and say what to do; exit code 1 where there is a problem.

    Python, packages, torch, GPUs, disks, homes, port, Dagster's settings, daemon and runs, database, definitions.
    Changes nothing.
    """
    from extraction_assets.doctor.examine import examine

    findings = []
    for finding in examine(_checks(ctx.obj)):
        findings.append(finding)
        if not as_json:
            _echo(finding)
    if as_json:
        echo(*json.dumps([_as_json(finding) for finding in findings], indent=1).splitlines())
    ctx.exit(int(any(finding.severity == "error" for finding in findings)))


def _checks(module: str) -> "dict[str, Check]":
    from extraction_assets.doctor import folders, gpus, instance, machine, project

    @functools.cache
    def workspace() -> Workspace:
        return Workspace(module)

    def chunk_store() -> "ChunkStoreResource":
        return workspace().chunk_store if loads() else project.default_store()

    def results() -> "ResultsResource":
        return workspace().results if loads() else project.default_results()

    @functools.cache
    def loads() -> bool:
        """Whether the module loads; if not, a finding says why, and the default places are examined."""
        try:
            workspace()
        except BaseException:
            return False
        return True

    return {
        "python": machine.check_python,
        "packages": machine.check_packages,
        "torch": gpus.check_torch,
        "gpu": gpus.check_gpus,
        "homes": folders.check_homes,
        "disk": folders.check_space,
        "port": machine.check_port,
        "dagster": instance.check_dagster_home,
        "pools": instance.check_pools,
        "daemon": instance.check_daemon,
        "runs": instance.check_runs(f"{command_line(module)} recover"),
        "database": lambda: project.check_database(results),
        "resources": lambda: project.check_stores(chunk_store, results),
        "definitions": lambda: project.check_definitions(
            module, lambda: workspace().extractions, lambda: workspace().not_loaded, explain
        ),
        "estimate": lambda: project.check_estimate(lambda: workspace().extractions, chunk_store),
    }


def _as_json(finding: "Finding") -> dict[str, str]:
    return {
        "level": _LEVELS[finding.severity],
        "check": finding.check,
        "text": finding.message,
        "advice": finding.advice,
    }


def _echo(finding: "Finding") -> None:
    level = styled(f"{_LEVELS[finding.severity]:8}", fg=_COLOURS[finding.severity], bold=finding.severity != "ok")
    echo(f"{level} {finding.check:12} {' '.join(finding.message.split())}")
    if finding.advice:
        echo(f"{'':21} → {finding.advice}")
