"""A home in which the tiny extraction has run, made once and copied for every test."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

Age = Callable[..., None]


@pytest.fixture(scope="session")
def _merged_once(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged") / "home"
    (folder / "dagster").mkdir(parents=True)
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:  # the one that commands find
        Project(make_settings(tiny_folder), folder, instance=instance).everything()
    return folder


@pytest.fixture
def project(_merged_once: Path, tiny_folder: Path, home: Path) -> Project:
    """The tiny extraction, all of it done and merged, in this test's own home."""
    shutil.copytree(_merged_once, home)
    return Project(make_settings(tiny_folder), home)


@pytest.fixture
def age() -> Age:
    """Makes paths, and everything in them, two hours old."""

    def make_old(*paths: Path) -> None:
        then = time.time() - 7200
        for path in paths:
            for one in [*path.rglob("*"), path]:
                os.utime(one, (then, then))

    return make_old
