"""Commands on results in Parquet files: all that looks at the results works as on the other databases."""

from pathlib import Path

import pytest

from extraction_assets.database.backends.parquet import sessions
from extraction_assets.resources import ResultsResource
from extraction_assets_tests.command import declare, succeed
from extraction_assets_tests.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def module(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny extraction, its SAE ``relu`` merged into Parquet files in the chunk store."""
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", "parquet")
    merged = Project(project.settings, project.home, results=ResultsResource())
    merged.merge("relu")
    return declare(monkeypatch, project.settings)


def test_results_are_listed_and_shown(module: str) -> None:
    assert "relu" in succeed(module, "list")
    assert "sample" in succeed(module, "show", "tiny", "--sae", "relu")
    assert "feature_examples" in succeed(module, "status", "tiny")


def test_deleted_results_are_gone_and_clean_frees_their_files(
    module: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project.home / ".results"
    assert sizes(folder)
    said = succeed(module, "delete", "tiny", "--sae", "relu", typed="tiny/relu\n")
    assert "feature_example_lists" in said
    assert "replaced or deleted" not in succeed(module, "clean", "--yes")
    monkeypatch.setattr(sessions, "RETIRED_SECONDS", 0)
    assert "files of results that were replaced or deleted" in succeed(module, "clean", "--yes")
    assert set(sizes(folder)) == {"alembic_version"}


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of data files by table."""
    return {path.parent.name: path.stat().st_size for path in folder.glob("*/*.parquet")}
