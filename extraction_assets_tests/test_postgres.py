"""Whole extractions with results and Dagster's own storage on PostgreSQL, and what becomes of passwords."""

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from extraction_assets import cli
from extraction_assets.resources import ResultsResource
from extraction_assets_tests.cli.test_cli import module
from extraction_assets_tests.postgres import Server
from extraction_assets_tests.project import Project
from extraction_assets_tests.rows import all_rows, differences

pytestmark = pytest.mark.slow

__all__ = ["module"]

HARD = "p@ss/w:rd%20 +x"
"""A password whose every special character means something in a URL."""


def _invoke(module: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["--module", module, *arguments])


@pytest.fixture
def on_postgres(postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Both databases named by the environment, as in production: (results, Dagster's)."""
    urls = postgres_server.new_database(), postgres_server.new_database()
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", urls[0])
    monkeypatch.setenv("EXTRACTION_DAGSTER_POSTGRES_URL", urls[1])
    return urls


def test_everything_on_postgres_gives_the_rows_of_sqlite(
    module: str, home: Path, on_postgres: tuple[str, str], completed_once: Path
) -> None:
    """Set-up and run by command, as people do it; the plain URLs name no driver."""
    made = _invoke(module, "setup", "--storage", "postgres", "--gpus", "2")
    assert made.output.splitlines() == [
        f"made {home}/dagster/dagster.yaml, storage postgres",
        "pool gpu: at most 2 run(s) at once",
    ]
    result = _invoke(module, "run", "tiny")
    assert result.exit_code == 0, result.output
    rows = all_rows(on_postgres[0])
    assert differences(all_rows(f"sqlite:///{completed_once / 'results.sqlite'}"), rows) == ""
    assert len(rows["features"]) == 2 * 48
    with dg.DagsterInstance.get() as instance:
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 5
        assert len(instance.get_materialized_partitions(dg.AssetKey(["tiny", "relu", "top_k_table"]))) == 3
    assert not list(home.rglob("*.sqlite")), "nothing is kept beside PostgreSQL"
    status = _invoke(module, "status", "tiny").output
    assert re.search(r"relu/feature_examples +merged 20\d\d-\d\d-\d\d \d\d:\d\d UTC\n", status), status
    assert "feature 3" in _invoke(module, "show", "tiny", "3", "--sae", "topk").output


def test_a_resource_may_name_the_variable_that_holds_the_url(
    postgres_url: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_RESULTS", postgres_url)
    on_postgres = Project(project.settings, project.home, results=ResultsResource(url=dg.EnvVar("MY_RESULTS")))
    on_postgres.merge("relu")
    on_postgres.merge("topk")
    assert len(all_rows(postgres_url)["extractions"]) == 2


def _role(server: Server, password: str) -> None:
    server.execute("CREATE ROLE secretive SUPERUSER LOGIN PASSWORD '{}'".format(password.replace(":", "\\:")))


def _dump(server: Server, urls: tuple[str, str]) -> str:
    """Every value of every table of both databases, as text."""
    parts = []
    for name in (url.rpartition("/")[2] for url in urls):
        for (table,) in server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name):
            parts += [str(row) for row in server.execute(f'SELECT * FROM "{table}"', name)]
    return "\n".join(parts)


@pytest.fixture
def _kept_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster's storage keeps a connection for the next use: each is a process, and an event opens six."""
    from dagster_postgres.event_log import event_log
    from dagster_postgres.run_storage import run_storage
    from dagster_postgres.schedule_storage import schedule_storage

    def create(url: str, token_provider: object, isolation_level: Any, poolclass: type) -> sa.Engine:
        assert (token_provider, poolclass) == (None, sa.pool.NullPool)
        return sa.create_engine(url, isolation_level=isolation_level, pool_size=1, max_overflow=-1)

    for storage in (event_log, run_storage, schedule_storage):
        monkeypatch.setattr(storage, "create_pg_engine", create)


@pytest.mark.usefixtures("_kept_connections")
def test_no_password_is_kept_or_shown_by_runs_that_succeed_or_fail(
    module: str, home: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _role(postgres_server, HARD)
    names = [postgres_server.new_database().rpartition("/")[2] for _ in range(2)]
    address = f"127.0.0.1:{postgres_server.port}"
    urls = tuple(f"postgresql://secretive:{quote(HARD, safe='')}@{address}/{name}" for name in names)
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", urls[0])
    monkeypatch.setenv("EXTRACTION_DAGSTER_POSTGRES_URL", urls[1])
    said = [_invoke(module, "run", "tiny").output]
    assert "2 merges" in said[0]
    for wrong in (
        f"postgresql://secretive:WrongSecret@{address}/{names[0]}",
        f"postgresql://secretive:WrongSecret@127.0.0.1:1/{names[0]}",
        f"postgresql://secretive@{address}/{names[0]}?password=WrongSecret",
        f"postgresql://secretive:Begun@WrongSecret@{address}/{names[0]}",
        f"mysql://secretive:WrongSecret@{address}/{names[0]}",
    ):
        monkeypatch.setenv("EXTRACTION_DATABASE_URL", wrong)
        result = _invoke(module, "run", "tiny", "--missing")
        assert result.exit_code == 1
        assert result.output.splitlines()[-1].startswith("Error: "), result.output
        said += [result.output, _invoke(module, "show", "tiny").output]
    kept = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    dumped = _dump(postgres_server, (urls[0], urls[1]))
    assert "postgresql://secretive:***@" in dumped, "the metadata of the merge are there"
    assert "Connection refused" in dumped, "the failures are there"
    everywhere = [*(text.encode() for text in [*said, dumped]), *kept]
    for secret in (HARD, quote(HARD, safe=""), "WrongSecret"):
        assert not [text for text in everywhere if secret.encode() in text]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://tester:WrongSecret@{address}/x", "password authentication failed"),
        ("postgresql://tester:WrongSecret@127.0.0.1:1/x", "Connection refused"),
        ("postgresql://tester:Begun@WrongSecret@{address}/x", "is not a database's URL"),
        ("postgresql://tester:Begun@Wrong:WrongSecret@{address}/x", "is not a database's URL"),
        ("postgresql://tester:WrongSecret", "is not a database's URL"),
        ("tester:WrongSecret@{address}/x", "is not a database's URL"),
        ("postgresql+psycopg://tester:WrongSecret@{address}/x", "write postgresql://"),
        ("mysql://tester:WrongSecret@{address}/x", "must name a SQLite, PostgreSQL or Parquet database"),
    ],
)
@pytest.mark.parametrize("variable", ["EXTRACTION_DATABASE_URL", "EXTRACTION_DAGSTER_POSTGRES_URL"])
def test_a_url_that_does_not_work_is_one_sentence_without_its_password(
    module: str, postgres_server: Server, monkeypatch: pytest.MonkeyPatch, variable: str, url: str, message: str
) -> None:
    monkeypatch.setenv(variable, url.format(address=f"127.0.0.1:{postgres_server.port}"))
    result = _invoke(module, "show", "tiny")
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.splitlines()) == 1, result.output
    assert "WrongSecret" not in result.output


def test_a_password_in_a_runs_configuration_is_refused(
    postgres_url: str, recorded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then Dagster has stored it; a run that went on would make a habit of it."""
    project = Project(recorded.settings, recorded.home, instance=recorded.instance, results=ResultsResource())
    key = dg.AssetKey(["tiny", "relu", "feature_examples"])
    with pytest.raises(dg.Failure, match=r"holds a password.*url: \{env: NAME\}"):
        project.execute([key], config={"resources": {"results": {"config": {"url": postgres_url}}}})
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", postgres_url)
    named = {"resources": {"results": {"config": {"url": {"env": "EXTRACTION_DATABASE_URL"}}}}}
    assert project.execute([key], config=named).success


def test_without_the_driver_the_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", "postgresql://tester@127.0.0.1/x")
    expected = "PostgreSQL needs the Python package psycopg2: pip install 'extraction-assets[postgres]'"
    assert _invoke(module, "show", "tiny").output == f"Error: {expected}\n"


def test_an_unset_variable_of_a_postgres_home_is_named(
    module: str, on_postgres: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _invoke(module, "setup")
    monkeypatch.delenv("EXTRACTION_DAGSTER_POSTGRES_URL")
    output = _invoke(module, "list").output
    assert output.startswith("Error: Dagster's storage is PostgreSQL: set EXTRACTION_DAGSTER_POSTGRES_URL to ")
    assert len(output.splitlines()) == 1
