"""Runs tests on a copy of a checkout with one fault in it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from extraction_assets_tests.mutations.listed import Mutation

PARTS = ("extraction_assets", "extraction_assets_tests", "benchmarks", "pyproject.toml")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (?:extraction_assets_tests/)?(\S+)", re.MULTILINE)


def copy_checkout(checkout: Path, folder: Path) -> Path:
    """Copies what the tests of the faults need; gives the folder."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = checkout / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".extraction"))
        else:
            shutil.copy2(source, folder / part)
    return folder


def failed_tests(checkout: Path, mutation: Mutation) -> list[str]:
    """The tests that fail first with the fault in place; none where all pass. The checkout is as before after it.

    RuntimeError where the tests could not run at all, which says nothing of the fault.
    """
    file = checkout / "extraction_assets" / mutation.file
    whole = file.read_text("utf-8")
    if whole.count(mutation.old) != 1:
        raise RuntimeError(
            f"the text of {mutation.name!r} occurs {whole.count(mutation.old)} times in {file}, not once"
        )
    file.write_text(whole.replace(mutation.old, mutation.new), "utf-8")
    try:
        return _run(checkout, mutation.tests)
    finally:
        file.write_text(whole, "utf-8")


def _run(checkout: Path, tests: tuple[str, ...]) -> list[str]:
    paths = [f"extraction_assets_tests/{test}" for test in tests]
    # No bytecode: a fault and its removal may fall into one second, by which Python tells old bytecode.
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-p", "no:cacheprovider", *paths]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)  # the summary is read
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=1800)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
    return _FAILED.findall(done.stdout)
