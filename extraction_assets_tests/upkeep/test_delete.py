"""`extraction-assets delete` on real stores and SQLite: all of one extraction, and nothing of another."""

import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import Result
from dagster._core.events import EngineEventData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.execution.keys import corpus_key, sae_key
from extraction_assets_tests.command import declare, invoke, succeed
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

TABLES = (
    "extractions",
    "features",
    "feature_example_lists",
    "sample_feature_lists",
    "strongest_token_lists",
    "samples",
    "corpora",
)


@pytest.fixture
def other(project: Project, tiny_folder: Path) -> Project:
    """A second extraction in the same home, of the same corpus, so that both name many of the same samples."""
    saes = {"relu": project.settings.model_dump()["saes"]["relu"]}
    few = {"top_k_examples": 2, "interval_examples": 0, "random_examples": 1}
    return Project(make_settings(tiny_folder, name="other", saes=saes, **few), project.home).everything()


def _all_rows(project: Project) -> dict[str, list[tuple[Any, ...]]]:
    return {table: project.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in TABLES}


def _rows_of(project: Project, name: str) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of one extraction, with the samples that its examples and draws name."""
    ids = f"(SELECT id FROM extractions WHERE name = '{name}')"
    named = f"(SELECT sample_index FROM sample_features WHERE extraction_id IN {ids})"
    return {
        "extractions": project.rows(f"SELECT * FROM extractions WHERE id IN {ids}"),
        "features": project.rows(f"SELECT * FROM features WHERE extraction_id IN {ids} ORDER BY 1, 2"),
        "examples": project.rows(f"SELECT * FROM feature_activations WHERE extraction_id IN {ids} ORDER BY 1, 2, 3"),
        "samples": project.rows(f"SELECT * FROM samples WHERE sample_index IN {named} ORDER BY 1, 2"),
    }


def test_another_extraction_of_the_same_corpus_keeps_every_row_and_byte(
    project: Project, other: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = declare(monkeypatch, project.settings, other.settings)
    rows, files = _rows_of(project, "other"), project.files("other/**/*") | project.files("corpora/**/*")
    assert len(rows["samples"]) < len(project.rows("SELECT 1 FROM samples"))
    succeed(module, "delete", "tiny", "--yes")
    assert _rows_of(project, "other") == rows
    assert len(project.rows("SELECT 1 FROM samples")) == len(rows["samples"])
    assert project.files() == files
    assert not (project.home / "tiny").exists()
    succeed(module, "delete", "other", "--yes")
    assert _all_rows(project) == {table: [] for table in TABLES}
    assert project.files() == {}


def test_what_is_shown_is_what_goes(project: Project, other: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, project.settings, other.settings)
    before, files = _all_rows(project), project.files("tiny/**/*")
    shown = succeed(module, "delete", "tiny", "--dry-run")
    assert _all_rows(project) == before
    assert project.files("tiny/**/*") == files
    done = succeed(module, "delete", "tiny", "--yes")
    after = _all_rows(project)
    for table in TABLES:
        lines = [line.split() for line in shown.splitlines() if line.split()[:1] == [table]]
        gone = len(before[table]) - len(after[table])
        assert lines == ([[table, str(gone)]] if gone else [])
    assert f"{sum(map(len, files.values())) / 1000:.1f} kB of files" in done
    assert "tiny is still declared" in done


def test_one_sae_goes_and_the_other_stays(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, project.settings)
    relu = {name: data for name, data in project.files().items() if "/topk/" not in name}
    examples = project.rows("SELECT * FROM feature_activations WHERE extraction_id = 1 ORDER BY 1, 2, 3")
    succeed(module, "delete", "tiny", "--sae", "topk", "--yes")
    assert project.rows("SELECT sae FROM extractions") == [("relu",)]
    assert project.rows("SELECT * FROM feature_activations ORDER BY 1, 2, 3") == examples
    assert project.files() == relu
    assert "6 chunks" not in succeed(module, "run", "tiny", "--missing")  # and comes back
    assert project.rows("SELECT sae FROM extractions ORDER BY 1") == [("relu",), ("topk",)]


def test_an_extraction_that_is_no_longer_declared_goes_by_its_name(
    project: Project, other: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = declare(monkeypatch, other.settings)
    assert "still declared" not in succeed(module, "delete", "tiny", "--yes")
    assert project.rows("SELECT name FROM extractions") == [("other",)]
    assert not (project.home / "tiny").exists()


@pytest.mark.parametrize("typed", ["", "y\n", "Tiny\n"])
def test_only_the_name_itself_is_a_yes(project: Project, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    before, files = _all_rows(project), project.files()
    result = invoke(declare(monkeypatch, project.settings), "delete", "tiny", typed=typed)
    assert "Type tiny to remove this" in result.output
    assert _all_rows(project) == before
    assert project.files() == files


def test_the_name_is_a_yes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed(declare(monkeypatch, project.settings), "delete", "tiny", typed="tiny\n")
    assert _all_rows(project) == {table: [] for table in TABLES}


def test_files_of_others_in_its_folder_are_named_and_stay(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = project.home / "tiny" / "relu" / "notes.txt"
    mine.write_text("mine")
    assert f"note: {mine} is not of this package" in succeed(declare(monkeypatch), "delete", "tiny", "--yes")
    assert list(project.files()) == ["tiny/relu/notes.txt"]


def test_an_error_on_the_way_leaves_all_rows_and_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from extraction_assets.database.writing import remove

    before, files = _all_rows(project), project.files()

    def fail(_connection: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(remove, "delete_unreferenced", fail)
    assert "the disk is full" in invoke(declare(monkeypatch, project.settings), "delete", "tiny", "--yes").output
    assert _all_rows(project) == before
    assert project.files() == files


def test_it_waits_for_a_merge_that_is_writing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module, results = declare(monkeypatch, project.settings), list[Result]()
    engine = open_database(project.url)
    with write_transaction(engine):
        thread = threading.Thread(target=lambda: results.append(invoke(module, "delete", "tiny", "--yes")))
        thread.start()
        thread.join(6)
        assert thread.is_alive()
        with engine.connect() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM extractions").scalar() == 2
    thread.join(60)
    engine.dispose()
    assert results[0].exit_code == 0
    assert _all_rows(project) == {table: [] for table in TABLES}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone has no files or rows; extractions with files or rows: tiny"),
        (["tiny", "--sae", "gone"], "tiny/gone has no files or rows; SAEs of tiny with files or rows: relu, topk"),
        (["../home/tiny"], "extraction name '../home/tiny' may hold letters, digits and underscores only"),
        (["tiny", "--sae", ".."], "SAE name '..' may hold letters"),
        (["corpora"], "'corpora' is no extraction"),
    ],
    ids=str,
)
def test_wrong_use_is_one_sentence_and_removes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    files = project.files()
    result = invoke(declare(monkeypatch, project.settings), "delete", "--yes", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert project.files() == files


# ---------------------------------------------------------------------------------------------- Dagster's own history


def test_history_goes_only_when_asked_for(tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(tiny_folder)
    module = declare(monkeypatch, settings, make_settings(tiny_folder, name="other"))
    succeed(module, "run", "tiny")
    succeed(module, "run", "other", "--chunks", ":1")
    table = sae_key(settings, "topk", "top_k_table")
    succeed(module, "delete", "tiny", "--sae", "relu", "--history", "--yes")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        assert not instance.get_materialized_partitions(sae_key(settings, "relu", "top_k_table"))
        assert len(instance.get_materialized_partitions(table)) == 3
    succeed(module, "delete", "tiny", "--yes")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        assert len(instance.get_materialized_partitions(table)) == 3
    assert "history of 8 assets" in succeed(module, "delete", "tiny", "--history", "--yes")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        assert {key.path[0] for key in instance.all_asset_keys()} == {"other"}


def _add_run(home: Path, status: dg.DagsterRunStatus, keys: set[dg.AssetKey]) -> str:
    (home / "dagster").mkdir(exist_ok=True)
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("anywhere"), "repository")
        run = dg.DagsterRun(
            job_name="__ASSET_JOB",
            status=status,
            asset_selection=frozenset(keys),
            remote_job_origin=RemoteJobOrigin(origin, "__ASSET_JOB"),  # a queued run has one
        )
        return instance.add_run(run).run_id


@pytest.mark.parametrize("status", ["QUEUED", "STARTING", "STARTED", "CANCELING"])
@pytest.mark.parametrize("command", ["delete", "clean"])
def test_a_run_that_is_alive_is_left_in_peace(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, status: str, command: str
) -> None:
    newer = make_settings(tiny_folder, top_k_examples=3)
    module, files = declare(monkeypatch, newer), project.files()
    run_id = _add_run(project.home, dg.DagsterRunStatus[status], {corpus_key(project.settings)})
    result = invoke(module, command, "tiny", "--yes")
    assert result.exit_code == 1
    assert result.output == (
        f"Error: run {run_id[:8]} of tiny is {status.lower()}: wait for it or cancel it, or use --force if no "
        "process works on it\n"
    )
    assert project.files() == files
    succeed(module, command, "tiny", "--dry-run")
    succeed(module, command, "tiny", "--yes", "--force")
    assert project.files() != files


def test_ended_runs_and_runs_of_other_extractions_are_in_nobodys_way(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add_run(project.home, dg.DagsterRunStatus.FAILURE, {corpus_key(project.settings)})
    _add_run(project.home, dg.DagsterRunStatus.STARTED, {dg.AssetKey(["other", "corpus"]), dg.AssetKey(["tiny"])})
    succeed(declare(monkeypatch, project.settings), "delete", "tiny", "--yes")


def test_a_run_whose_process_has_died_is_in_nobodys_way(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = _add_run(project.home, dg.DagsterRunStatus.STARTED, {corpus_key(project.settings)})
    module = declare(monkeypatch, project.settings)
    assert invoke(module, "delete", "tiny", "--yes").exit_code == 1
    with dg.DagsterInstance.from_config(str(_dagster(project.home))) as instance:
        run = instance.get_run_by_id(run_id)
        instance.report_engine_event(
            "works", run, EngineEventData(metadata={"pid": dg.MetadataValue.text("999999999")})
        )
    succeed(module, "delete", "tiny", "--yes")


def test_a_backfill_that_has_not_ended_is_left_in_peace(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, project.settings)
    with dg.DagsterInstance.from_config(str(_dagster(project.home))) as instance:
        instance.add_backfill(
            PartitionBackfill(
                backfill_id="abcdefgh",
                status=BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={},
                backfill_timestamp=0.0,
                asset_selection=[sae_key(project.settings, "relu", "top_k_table")],
            )
        )
    assert "backfill abcdefgh of tiny has not ended" in invoke(module, "delete", "tiny", "--yes").output
    assert project.files()


def _dagster(home: Path) -> Path:
    (home / "dagster").mkdir(exist_ok=True)
    return home / "dagster"


def test_a_run_without_a_selection_counts_by_the_assets_of_its_steps(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from extraction_assets.component import build_definitions
    from extraction_assets.upkeep.runs import RunAlive, refuse_while_alive

    resources = {"gpu": dg.ResourceDefinition.none_resource(), "chunk_store": dg.ResourceDefinition.none_resource()}
    resources["results"] = dg.ResourceDefinition.none_resource()
    job = dg.define_asset_job("whole", [corpus_key(project.settings)])
    defs = dg.Definitions.merge(build_definitions(project.settings), dg.Definitions(jobs=[job], resources=resources))
    with dg.DagsterInstance.from_config(str(_dagster(project.home))) as instance:
        run = instance.create_run_for_job(defs.resolve_job_def("whole"))
        assert run.asset_selection is None
        instance.report_engine_event("begins", run)
        instance.handle_new_event(_started(run.run_id))
        with pytest.raises(RunAlive, match="of tiny is started"):
            refuse_while_alive(instance, "tiny")
        refuse_while_alive(instance, "other")


def _started(run_id: str) -> dg.EventLogEntry:
    import time

    from dagster._core.events import DagsterEvent, DagsterEventType

    event = DagsterEvent(event_type_value=DagsterEventType.RUN_START.value, job_name="whole")
    return dg.EventLogEntry(
        error_info=None, level="debug", user_message="", run_id=run_id, timestamp=time.time(), dagster_event=event
    )
