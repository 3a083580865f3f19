from collections.abc import Iterator
from pathlib import Path

import pytest

from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.daemon_lab import Lab
from extraction_assets_tests.kills.build import CHUNKS, make_chunks
from extraction_assets_tests.project import Project


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ExtractionSettings:
    return make_chunks(tmp_path_factory.mktemp("tiny"), CHUNKS)


@pytest.fixture(scope="module")
def uninterrupted(settings: ExtractionSettings, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(settings, tmp_path_factory.mktemp("uninterrupted")).merged()


@pytest.fixture
def lab_at_rest(settings: ExtractionSettings, tmp_path: Path) -> Iterator[Lab]:
    """A project with its corpus and one chunk, whose daemon has not been started: what is launched stays queued."""
    with Lab(tmp_path / "project", settings) as lab:
        lab.command("run", "tiny", "--chunks", "0:1")
        yield lab


@pytest.fixture
def lab(lab_at_rest: Lab) -> Lab:
    """The same, with its daemon."""
    lab_at_rest.start_daemon()
    return lab_at_rest
