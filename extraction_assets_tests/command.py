"""The command line on extractions that a test declares."""

import sys
from types import ModuleType

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from extraction_assets import cli, default_resources
from extraction_assets.component import build_definitions
from extraction_assets.settings import ExtractionSettings


def declare(monkeypatch: pytest.MonkeyPatch, *extractions: ExtractionSettings, module: str = "tiny_definitions") -> str:
    """A module whose definitions hold these extractions; declared again, it holds the new ones."""
    made = ModuleType(module)
    shared = dg.Definitions(resources=default_resources(), executor=dg.in_process_executor)
    made.defs = dg.Definitions.merge(*map(build_definitions, extractions), shared)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, made)
    monkeypatch.setenv("EXTRACTION_PROGRESS", "log")
    monkeypatch.setenv("DAGSTER_HOME", "")
    return module


def invoke(module: str, *arguments: str, typed: str | None = None) -> Result:
    """Runs a command of this process; ``typed`` is what the user answers."""
    return CliRunner().invoke(cli.main, ["--module", module, *arguments], input=typed)


def succeed(module: str, *arguments: str, typed: str | None = None) -> str:
    """Output of a command that has to succeed."""
    result = invoke(module, *arguments, typed=typed)
    assert result.exit_code == 0, result.output
    return result.output
