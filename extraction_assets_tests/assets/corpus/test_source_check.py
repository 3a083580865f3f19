"""The check that warns where a corpus source has changed."""

from pathlib import Path

import dagster as dg
import pytest

from extraction_assets.execution.keys import corpus_key
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "texts" / "a.txt"
    path.parent.mkdir()
    path.write_text("the quick brown fox " * 200)
    return path


@pytest.fixture
def project(tiny_folder: Path, text: Path, tmp_path: Path) -> Project:
    project = Project(make_settings(tiny_folder, corpus={"source": str(text.parent), "max_length": 16}), tmp_path)
    project.corpus()
    return project


def _check(project: Project) -> dg.AssetCheckEvaluation:
    """The check alone, as *Execute* in the UI runs it."""
    key = dg.AssetCheckKey(corpus_key(project.settings), "source_has_not_changed")
    (found,) = project.checks_alone([key]).get_asset_check_evaluations()
    assert found.severity == dg.AssetCheckSeverity.WARN
    return found


def test_an_unchanged_source_passes(project: Project) -> None:
    assert _check(project).passed


def test_a_grown_source_is_reported_with_both_sizes(project: Project, text: Path) -> None:
    (text.parent / "b.txt").write_text("x" * 50)
    found = _check(project)
    assert not found.passed
    assert found.description == (
        "the source has grown from 1 documents of 4000 characters to 2 of 4050: materialize tiny/corpus to run on it; "
        "more than 23 samples are run only where evaluation_samples is raised"
    )


def test_another_text_is_a_change_not_a_growth(project: Project, text: Path) -> None:
    text.write_text("the lazy dog " * 200)
    assert "the source has changed from 1 documents of 4000 characters to 1 of 2600" in str(_check(project).description)


def test_materializing_the_corpus_again_makes_it_pass(project: Project, text: Path) -> None:
    text.write_text("the lazy dog " * 200)
    assert not _check(project).passed
    project.corpus()
    assert _check(project).passed


def test_it_is_part_of_the_schedules_tick(tiny_folder: Path) -> None:
    from extraction_assets.component import build_definitions

    key = dg.AssetCheckKey(dg.AssetKey(["tiny", "corpus"]), "source_has_not_changed")
    for cron in (None, "0 2 * * *"):
        assets = build_definitions(make_settings(tiny_folder, schedule=cron)).assets or []
        (spec,) = [spec for own in assets for spec in getattr(own, "check_specs", []) if spec.key == key]
        assert (spec.automation_condition is not None) is (cron is not None)
