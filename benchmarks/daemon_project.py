"""The benchmark's extraction as a project on disk, with a daemon of Dagster's beside it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from extraction_assets.settings import ExtractionSettings

MODULE = "benchmark_project"
_DEFINITIONS = """
import json
from pathlib import Path

import dagster as dg
from benchmarks.definitions import definitions
from extraction_assets.settings import ExtractionSettings

given = json.loads((Path(__file__).parent / "given.json").read_text())
defs = definitions(ExtractionSettings.model_validate(given["settings"]), given["gpu"])
"""
_PATIENCE_SECONDS = 600

Found = TypeVar("Found")


def write_project(home: Path, settings: ExtractionSettings, gpu: dict[str, Any]) -> dict[str, str]:
    """A module of the extraction with this GPU resource; the environment of processes that find it."""
    package = home / MODULE
    package.mkdir()
    (package / "__init__.py").write_text(_DEFINITIONS)
    given = {"settings": settings.model_dump(mode="json"), "gpu": gpu}
    (package / "given.json").write_text(json.dumps(given))
    path = os.pathsep.join([str(home), *(entry for entry in sys.path if entry), os.getcwd()])
    return {**os.environ, "DAGSTER_HOME": str(home / "dagster"), "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def command(environment: dict[str, str], module: str, *arguments: str) -> str:
    """What a module of Dagster's prints as a command. Raises RuntimeError if it fails."""
    return python(environment, "-m", module, *arguments)


def python(environment: dict[str, str], *words: str) -> str:
    """What Python prints. Raises RuntimeError if it fails."""
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def daemon(environment: dict[str, str], home: Path) -> Iterator[None]:
    """A daemon while the block runs."""
    with (home / "daemon.log").open("wb") as log:
        words = [sys.executable, "-m", "dagster._daemon", "run", "-m", MODULE]
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for(what: str, look: Callable[[], Found | None]) -> Found:
    """The first true value that ``look`` gives. Raises RuntimeError after ten minutes."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise RuntimeError(f"waited {_PATIENCE_SECONDS} s in vain for {what}")
