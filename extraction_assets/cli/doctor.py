"""``doctor``: what is wrong with this machine, and what to do."""

import functools
import json
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import command_line, explain, main
from extraction_assets.cli.declared import declared_extractions, import_definitions
from extraction_assets.terminal import echo, styled

if TYPE_CHECKING:
    from extraction_assets.doctor.findings import Check, Finding
    from extraction_assets.settings import ExtractionSettings

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, for programs.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check this machine and this project, and say what to do; exit code 1 where there is a problem.

    Python, packages, torch, GPUs, disks, homes, port, Dagster's settings, daemon and runs, database, definitions.
    Changes nothing.
    """
    from extraction_assets.doctor.findings import examine

    findings = []
    for finding in examine(_checks(ctx.obj)):
        findings.append(finding)
        if not as_json:
            _echo(finding)
    if as_json:
        echo(*json.dumps([finding._asdict() for finding in findings], indent=1).splitlines())
    ctx.exit(any(finding.level == "problem" for finding in findings))


def _checks(module: str) -> "dict[str, Check]":
    from extraction_assets.doctor import instance, machine, project

    @functools.cache
    def declared() -> "dict[str, ExtractionSettings]":
        return declared_extractions(import_definitions(module))

    return {
        "python": machine.check_python,
        "packages": machine.check_packages,
        "torch": machine.check_torch,
        "gpu": machine.check_gpus,
        "homes": machine.check_homes,
        "disk": machine.check_space,
        "port": machine.check_port,
        "dagster": instance.check_dagster_home,
        "pools": instance.check_pools,
        "daemon": instance.check_daemon,
        "runs": instance.check_runs(f"{command_line(module)} recover"),
        "database": project.check_database,
        "definitions": lambda: project.check_definitions(module, declared, explain),
        "estimate": lambda: project.check_estimate(declared),
    }


def _echo(finding: "Finding") -> None:
    level = styled(f"{finding.level:8}", fg=_COLOURS[finding.level], bold=finding.level != "ok")
    echo(f"{level} {finding.check:12} {' '.join(finding.text.split())}")
    if finding.advice:
        echo(f"{'':21} → {finding.advice}")
