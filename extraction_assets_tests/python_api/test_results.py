"""Opening results, what they hold, and how they end."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

import extraction_assets
from extraction_assets import open_results
from extraction_assets.database.connect import opened_database
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.queries.extractions import UnknownResultError
from extraction_assets.python_api.errors import ClosedError
from extraction_assets.python_api.results import Results
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.test_migrations import at_revision
from extraction_assets_tests.project import Project


def test_by_default_the_results_of_this_installation_are_opened(results: Results) -> None:
    assert results.names() == ["tiny/relu", "tiny/topk"]


def test_a_path_opens_a_sqlite_file(project: Project) -> None:
    with open_results(project.home / "results.sqlite") as found:
        assert list(found) == ["tiny/relu", "tiny/topk"]


def test_the_chunk_files_are_looked_for_beside_a_sqlite_file(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACTION_HOME", str(tmp_path / "elsewhere"))
    with open_results(str(project.home / "results.sqlite")) as found:
        assert found.store.root == project.home


def test_the_variable_names_the_database(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_HOME", "/nowhere")
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", project.url)
    with open_results() as found:
        assert "tiny/relu" in found


def test_a_url_opens_each_kind_of_database(small_url: str) -> None:
    with open_results(small_url) as found:
        assert found.names() == ["other/one", "small/one", "small/two"]


def test_every_merged_sae_is_a_row(small_url: str) -> None:
    with open_results(small_url) as found:
        frame = found.extractions()
    assert frame[["name", "sae"]].to_numpy().tolist() == [["other", "one"], ["small", "one"], ["small", "two"]]
    assert frame["latent_dim"].tolist() == [6, 6, 6]


def test_an_extraction_with_one_sae_needs_no_name_of_it(small_url: str) -> None:
    with open_results(small_url) as found:
        assert found["other"].name == "other/one"


def test_an_unknown_extraction_says_what_there_is(small_url: str) -> None:
    with open_results(small_url) as found, pytest.raises(UnknownResultError) as error:
        found["demo/layer1"]
    assert str(error.value).startswith("'demo/layer1': there are no such results; ")
    assert str(error.value).endswith(" holds: other/one, small/one, small/two")


def test_an_extraction_of_several_saes_asks_for_one(small_url: str) -> None:
    with open_results(small_url) as found, pytest.raises(UnknownResultError, match="'small': name one of its SAEs"):
        found["small"]


def test_a_database_that_is_not_there_yet_holds_nothing() -> None:
    with open_results() as found:
        assert (len(found), len(found.extractions())) == (0, 0)
        with pytest.raises(UnknownResultError, match="holds: nothing is merged yet"):
            found["demo"]


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=f"there is no results database {re.escape(str(tmp_path))}/no.sqlite"):
        open_results(tmp_path / "no.sqlite")
    assert not (tmp_path / "no.sqlite").exists()


def test_an_empty_file_is_no_database_and_stays_empty(tmp_path: Path) -> None:
    file = tmp_path / "empty.sqlite"
    file.touch()
    with pytest.raises(DatabaseError, match="there is no results database"):
        open_results(file)
    assert file.stat().st_size == 0


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(DatabaseError, match=r"text\.sqlite"):
        open_results(tmp_path / "text.sqlite").names()


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(DatabaseError, match="begins with mysql"):
        open_results("mysql://localhost/results")


def test_a_password_is_not_shown(postgres_url: str) -> None:
    password = str(sa.make_url(postgres_url).password)
    with open_results(postgres_url) as found:
        assert "127.0.0.1" in found.url
        assert password not in repr(found)


def test_what_is_closed_says_so(results: Results) -> None:
    relu = results["tiny/relu"]
    results.close()
    with pytest.raises(ClosedError, match="were closed: open them again"):
        relu.features()
    assert "closed" in repr(results)


def _wait_for_others(connection: sa.Connection, count: int) -> None:
    """Until so many other clients are connected: the server's process ends a moment after its client."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    deadline = time.monotonic() + 60
    while (found := connection.scalar(sa.text(others))) != count:
        assert time.monotonic() < deadline, f"{found} others are connected"
        connection.rollback()
        time.sleep(0.02)


def test_closing_leaves_no_connection_to_a_server(postgres_url: str) -> None:
    with opened_database(postgres_url):
        pass
    with open_results(postgres_url) as found, opened_database(postgres_url) as engine, engine.connect() as connection:
        found.names()
        _wait_for_others(connection, 1)
        found.close()
        _wait_for_others(connection, 0)


def test_a_new_merge_is_seen_without_opening_again(results: Results, project: Project) -> None:
    before = results["tiny/relu"].description()["finished_at"]
    project.merge("relu")
    assert results["tiny/relu"].description()["finished_at"] > before


def test_importing_the_package_stays_light() -> None:
    code = "import sys, extraction_assets; from extraction_assets import open_results; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"dagster", "torch", "pandas", "transformers", "scipy"}


def test_the_names_are_those_of_the_package() -> None:
    assert extraction_assets.open_results is open_results
    assert "open_results" in dir(extraction_assets)


def test_types_are_declared_to_other_programs() -> None:
    assert (Path(extraction_assets.__file__).parent / "py.typed").is_file()


@kinds.empty_sql
def test_a_database_of_an_earlier_version_is_migrated_once(empty_url: str, caplog: pytest.LogCaptureFixture) -> None:
    at_revision(empty_url, "0006").dispose()
    for _ in range(2):
        with open_results(empty_url) as results:
            assert results.names() == []
    (said,) = caplog.messages
    assert "is migrated once, from schema 0006" in said
