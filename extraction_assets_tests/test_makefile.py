"""What the targets of the Makefile install: each what it needs, once."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(target: str, venv: Path) -> str:
    """What ``make TARGET`` would run with this virtual environment."""
    make = ["make", "--dry-run", target, f"VENV={venv}"]
    return subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize(
    ("target", "extras"),
    [
        ("demo", {"ui"}),
        ("ui", {"ui"}),
        ("docs", {"ui"}),
        ("lint", {"ui", "dev"}),
        ("test-ui", {"ui", "dev", "ui-test"}),
        ("test-fast", {"ui", "dev", "postgres", "datasets", "s3", "kubernetes", "oracle", "ray"}),
        ("test", {"ui", "dev", "postgres", "datasets", "s3", "kubernetes", "oracle", "ray"}),
        ("mutations", {"ui", "dev", "postgres", "datasets", "s3", "kubernetes", "oracle", "ray"}),
    ],
)
def test_a_target_installs_what_it_needs(target: str, extras: set[str], tmp_path: Path) -> None:
    installed = re.findall(r"-e '\.\[([^]]*)\]'", commands(target, tmp_path / "venv"))
    assert {extra for one in installed for extra in one.split(",")} == extras


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", ".installed-demo"):
        (tmp_path / name).touch()
    assert "pip install" not in commands("demo", tmp_path)


@pytest.mark.parametrize(("seed", "option"), [("", ""), ("random", " --seed random")])
def test_a_seed_reaches_pytest(tmp_path: Path, seed: str, option: str) -> None:
    make = ["make", "--no-print-directory", "--dry-run", "test-fast", f"VENV={tmp_path}", f"SEED={seed}"]
    printed = subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    assert printed.rstrip().endswith(f'-m "not slow"{option}')
