"""Whether what the database holds of an SAE is the merge of the current chunks."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database
from extraction_assets.database.tables import features
from extraction_assets.planning.stored_merge import stored_merge
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings, make_texts


def why_stale(project: Project) -> str | None:
    engine = open_database(project.url)
    try:
        with engine.connect() as connection:
            found = stored_merge(connection, project.plan, "relu")
    finally:
        engine.dispose()
    return "absent" if found is None else found.stale


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_texts(tmp_path_factory.mktemp("own") / "texts")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Project:
    folder = tmp_path_factory.mktemp("tiny")
    settings = make_settings(folder, corpus={"source": str(texts), "max_length": 16}, evaluation_samples=16)
    return Project(settings, tmp_path_factory.mktemp("home")).merged()


def test_a_merge_is_current_after_it(project: Project) -> None:
    assert why_stale(project) is None


def test_another_k_makes_it_stale(project: Project) -> None:
    other = Project(project.settings.model_copy(update={"top_k_examples": 3}), project.home)
    assert why_stale(other) == "made from other settings"


def test_another_name_of_a_document_makes_it_stale_though_no_chunk_is(project: Project, texts: Path) -> None:
    (texts / "first.txt").rename(texts / "first_of_all.txt")
    try:
        project.corpus()
        assert project.plan.missing_chunks() == []
        assert why_stale(project) == "its documents have other names or places now"
        project.merge("relu")
        assert why_stale(project) is None
        assert ("first_of_all.txt",) in project.rows("SELECT DISTINCT document_id FROM samples")
    finally:
        (texts / "first_of_all.txt").rename(texts / "first.txt")


def test_an_extraction_that_was_never_merged_has_none(project: Project) -> None:
    other = Project(project.settings.model_copy(update={"name": "other"}), project.home)
    other.corpus()
    assert why_stale(other) == "absent"


def test_a_merge_without_draws_is_stale_once_all_its_tables_have_some(project: Project) -> None:
    assert why_stale(project) is None
    engine = open_database(project.url)
    try:
        with engine.connect() as connection:
            connection.execute(sa.update(features).values(interval_samples=sa.null()))
            found = stored_merge(connection, project.plan, "relu")
            connection.rollback()
    finally:
        engine.dispose()
    assert found is not None
    assert found.stale == "its chunks were computed again, with more statistics"
