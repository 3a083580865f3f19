"""What the tests of chunks start from."""

from pathlib import Path
from typing import NamedTuple

import dagster as dg
import pytest

from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


class Done(NamedTuple):
    """All chunks of the tiny extraction, computed once. Not to be changed."""

    project: Project
    result: dg.ExecuteInProcessResult


@pytest.fixture(scope="session")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    project = Project(make_settings(tiny_folder), tmp_path_factory.mktemp("done") / "home")
    project.corpus()
    return Done(project, project.chunks())


@pytest.fixture
def project(tokenized: Project) -> Project:
    """The tiny extraction with its corpus, in this test's own home."""
    return tokenized
