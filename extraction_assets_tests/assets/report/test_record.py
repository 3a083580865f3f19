"""Checks and speed in the report: what chunk files and the history of Dagster hold, else that it is not known."""

import re
import shutil
from pathlib import Path

import dagster as dg
import pytest

from extraction_assets.assets.report.record import recorded, recorded_speed
from extraction_assets.execution.keys import sae_key
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


@pytest.fixture(scope="module")
def ran(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny extraction, its SAE relu merged. Not to be changed."""
    project = Project(make_settings(tiny_folder), tmp_path_factory.mktemp("recorded") / "home")
    project.corpus()
    project.chunks()
    project.merge("relu")
    project.execute([sae_key(project.settings, "relu", "feature_report")])
    return project


def test_every_check_of_every_chunk_is_counted(ran: Project) -> None:
    found = recorded(ran.plan, "relu", ran.plan.merge_fingerprint("relu"))
    outcomes = {check.name: (check.chunks, check.of) for check in found.checks}
    assert outcomes["vectorized_matches_legacy"] == (3, 3)
    assert outcomes["sae_is_sparse"][1] == 3
    assert outcomes["no_chunk_is_missing"] == (None, 0)
    assert found.unknown is None


def test_chunks_computed_alike_have_one_numerics_record(ran: Project) -> None:
    (numerics,) = recorded(ran.plan, "relu", ran.plan.merge_fingerprint("relu")).numerics
    assert numerics["batch_size"] == 128


def test_the_variance_explained_is_a_range(ran: Project) -> None:
    explained = recorded(ran.plan, "relu", ran.plan.merge_fingerprint("relu")).variance_explained
    assert explained is not None
    assert explained[0] <= explained[1] < 1


def test_of_another_result_the_chunks_on_disk_say_nothing(ran: Project) -> None:
    found = recorded(ran.plan, "relu", "of other settings")
    assert [check.name for check in found.checks] == ["no_chunk_is_missing", "examples_match_chunk_tables"]
    assert found.unknown == "the chunks on disk are of other settings than this result"


def test_a_chunk_table_that_is_gone_is_counted_as_unknown(tokenized: Project) -> None:
    project = tokenized
    project.chunks(0, 1)
    found = recorded(project.plan, "relu", project.plan.merge_fingerprint("relu"))
    assert found.unknown == "1 of 3 chunk tables are not on disk"


def test_the_times_of_all_chunks_add_up(ran: Project) -> None:
    speed = recorded_speed(ran.instance, ran.settings, "relu", ran.plan.merge_fingerprint("relu"))
    assert speed is not None
    assert (speed.chunks, speed.samples) == (3, 23)
    seconds = []
    for record in ran.instance.fetch_materializations(sae_key(ran.settings, "relu", "top_k_table"), limit=10).records:
        assert record.asset_materialization is not None
        seconds.append(record.asset_materialization.metadata["seconds"].value)
    assert speed.seconds == pytest.approx(sum(map(float, seconds)))  # type: ignore[arg-type]
    assert sum(speed.stage_shares.values()) == pytest.approx(1)


def test_the_merge_has_its_own_time(ran: Project) -> None:
    speed = recorded_speed(ran.instance, ran.settings, "relu", ran.plan.merge_fingerprint("relu"))
    assert speed is not None
    assert speed.merge_seconds is not None
    assert speed.merge_seconds > 0
    other = recorded_speed(ran.instance, ran.settings, "relu", "of other settings")
    assert other is not None
    assert other.merge_seconds is None


def test_without_a_history_there_is_no_speed(ran: Project) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert recorded_speed(instance, ran.settings, "relu", "") is None


@pytest.mark.parametrize("asset", ["feature_examples", "feature_report"])
def test_an_asset_for_people_links_to_the_browser(ran: Project, asset: str) -> None:
    event = ran.instance.get_latest_materialization_event(sae_key(ran.settings, "relu", asset))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["browser"] == dg.MetadataValue.url("http://127.0.0.1:3080/tiny/relu/")


def test_the_report_says_what_was_run_how_fast_and_whether_it_holds(ran: Project) -> None:
    page = (ran.home / "tiny" / "relu" / "feature_report" / "report.html").read_text("utf-8")
    for said in (
        "3 of 3 chunks",
        "when it was merged",
        "samples/s",
        "numerics record",
        "&#34;evaluation_samples&#34;: 23",
    ):
        assert said in page
    assert 'href="http://127.0.0.1:3080/tiny/relu/"' in page


def test_the_report_has_features_worth_a_look_each_with_a_reason(ran: Project) -> None:
    page = (ran.home / "tiny" / "relu" / "feature_report" / "report.html").read_text("utf-8")
    assert "<h3>Clear</h3>" in page
    assert "<h3>Dense</h3>" in page
    assert re.search(r"fires on [0-9.]+% of the tokens", page)


def test_a_report_of_files_that_are_gone_is_of_what_was_merged(project: Project, home: Path) -> None:
    page = home / "tiny" / "relu" / "feature_report" / "report.html"
    page.unlink()
    shutil.rmtree(home / "corpora")
    project.execute([sae_key(project.settings, "relu", "feature_report")])
    text = page.read_text("utf-8")
    assert "What chunks say:" in text
    assert "<h3>Clear</h3>" in text
