from collections.abc import Iterator
from pathlib import Path

import pytest

from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.daemon_lab import Lab
from extraction_assets_tests.kills.build import CHUNKS
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ExtractionSettings:
    folder = tmp_path_factory.mktemp("tiny")
    corpus = {"source": str(folder / "texts"), "max_length": 5}
    return make_settings(folder, corpus=corpus, chunk_size=1, evaluation_samples=CHUNKS, schedule="* * * * *")


@pytest.fixture(scope="module")
def uninterrupted(settings: ExtractionSettings, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(settings, tmp_path_factory.mktemp("uninterrupted")).everything()


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
