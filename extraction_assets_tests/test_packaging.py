"""The package as it is installed: by itself, without the checkout around it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import extraction_assets

PACKAGE = Path(extraction_assets.__file__).parent


def installed_files() -> set[Path]:
    """What setuptools takes of the package: modules, and the files that pyproject.toml names."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    patterns = ["**/*.py", *project["tool"]["setuptools"]["package-data"]["extraction_assets"]]
    return {path for pattern in patterns for path in PACKAGE.glob(pattern) if path.is_file()}


def test_every_file_of_the_package_is_installed() -> None:
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {str(path.relative_to(PACKAGE)) for path in there - installed_files()} == set()


@pytest.mark.slow
def test_an_installed_package_finds_its_extractions(tmp_path: Path, home: Path) -> None:
    for file in installed_files():
        copy = tmp_path / "site" / "extraction_assets" / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "EXTRACTION_HOME": str(home)}
    command = [sys.executable, "-m", "extraction_assets.cli", "list"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"demo  {tmp_path}/site/extraction_assets/demo/language_model" in done.stdout
