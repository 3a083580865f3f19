"""Homes do not depend on the working directory: of a shell, a Dagster process or a code server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from extraction_assets.host import locations as home_module
from extraction_assets.host import project_home
from extraction_assets.host.locations import browser_url, dagster_home, database_url, extraction_home
from extraction_assets.resources import ChunkStoreResource
from extraction_assets_tests.processes import run_module

RECORDER = """
import os
from pathlib import Path

import dagster as dg
from extraction_assets import default_resources
from extraction_assets.host.locations import database_url, extraction_home


def record(what):
    line = f"{what} {Path.cwd().name} {extraction_home()} {database_url()}\\n"
    with Path(os.environ["RECORD"]).open("a") as file:
        file.write(line)


record("loaded")


@dg.asset
def where(chunk_store: dg.ResourceParam[object]):
    record("materialized")
    assert chunk_store.open().root == extraction_home()


defs = dg.Definitions(assets=[where], resources=default_resources())
"""


CHECKOUT = Path(home_module.__file__).parents[2]


def _environment(**changes: str) -> dict[str, str]:
    names = ("EXTRACTION_HOME", "EXTRACTION_DATABASE_URL", "DAGSTER_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, **changes}


@pytest.mark.slow
@pytest.mark.parametrize("configured", [None, "set"])
def test_a_run_and_a_code_server_started_elsewhere_agree_on_where_things_are(
    tmp_path: Path, configured: str | None
) -> None:
    (tmp_path / "recorder.py").write_text(RECORDER)
    homes = {"EXTRACTION_HOME": str(tmp_path / "somewhere")} if configured else {}
    environment = _environment(RECORD=str(tmp_path / "record"), PYTHONPATH=f"{tmp_path}{os.pathsep}{CHECKOUT}", **homes)
    for folder, command in (
        ("first", ["definitions", "validate", "-m", "recorder"]),  # in a code server of its own
        ("second", ["asset", "materialize", "--select", "where", "-m", "recorder"]),
    ):
        (tmp_path / folder).mkdir()
        done = run_module("dagster", command, folder=tmp_path / folder, environment=environment)
        assert done.returncode == 0, done.stderr
    lines = [line.split() for line in (tmp_path / "record").read_text().splitlines()]
    assert {(what, folder) for what, folder, *_ in lines} >= {("loaded", "first"), ("materialized", "second")}
    expected = homes.get("EXTRACTION_HOME") or str(CHECKOUT / ".extraction")
    assert {tuple(rest) for _, _, *rest in lines} == {(expected, f"sqlite:///{expected}/results.sqlite")}
    assert not (tmp_path / "first" / ".extraction").exists()


@pytest.mark.parametrize(
    ("variable", "value", "ask"),
    [
        ("EXTRACTION_HOME", "relative/home", extraction_home),
        ("EXTRACTION_HOME", "./home", dagster_home),
        ("DAGSTER_HOME", "dagster", dagster_home),
        ("EXTRACTION_DATABASE_URL", "sqlite:///results.sqlite", database_url),
        ("EXTRACTION_DATABASE_URL", "sqlite+pysqlite:///a/results.sqlite", database_url),
    ],
)
def test_a_place_that_depends_on_the_working_directory_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, ask: "type[object]"
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"{variable} is '.*another .* in every working directory: give its full path"):
        ask()


def test_a_chunk_store_with_a_relative_root_is_refused() -> None:
    with pytest.raises(ValueError, match="the chunk store's root is 'files'"):
        ChunkStoreResource(root="files").open()


@pytest.mark.parametrize("url", ["sqlite:////data/results.sqlite", "postgresql+psycopg://host/results", "sqlite://"])
def test_other_databases_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", url)
    assert database_url() == url


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EXTRACTION_HOME", "~/extractions")
    assert extraction_home() == tmp_path / "extractions"


# ------------------------------------------------------------------------------------------------- a project of its own

ASK = """
import sys
from importlib import import_module
import_module(sys.argv[1]).defs()  # as a code server does; the working directory is another
from extraction_assets.host.locations import browser_url, dagster_home, database_url, extraction_home
print(extraction_home(), database_url(), dagster_home())
"""


def _project_environment(yard: Path, tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join([str(yard.parents[1]), str(CHECKOUT)])
    return _environment(PYTHONPATH=path, HOME=str(tmp_path / "user"))


def _asked(yard: Path, tmp_path: Path, *command: str, **changes: str) -> str:
    """Output of a Python process that has no EXTRACTION_HOME, started in another folder."""
    environment = {**_project_environment(yard, tmp_path), **changes}
    (tmp_path / "cwd").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path / "cwd", env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_project_that_uses_the_package_keeps_its_files_in_itself(yard: Path, tmp_path: Path) -> None:
    own = yard.parents[1] / ".extraction"
    assert _asked(yard, tmp_path, "-c", ASK, "yard.definitions").split() == [
        str(own), f"sqlite:///{own}/results.sqlite", str(own / "dagster")
    ]  # fmt: skip
    before = sorted(CHECKOUT.glob(".extraction/dagster/*"))
    environment = _project_environment(yard, tmp_path)
    words = ["--module", "yard.definitions", "list"]
    listed = run_module("extraction_assets.cli", words, folder=tmp_path / "cwd", environment=environment)
    assert "first" in listed.stdout, listed.stderr
    assert (own / "dagster" / "dagster.yaml").is_file()
    assert sorted(CHECKOUT.glob(".extraction/dagster/*")) == before
    assert not (tmp_path / "user" / ".extraction").exists()


def test_a_command_knows_the_project_before_it_loads_it(yard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXTRACTION_HOME")
    project_home.use_project_of_module("yard.definitions")
    assert extraction_home() == yard.parents[1] / ".extraction"
    project_home.use_project_of_module("extraction_assets.definitions")
    assert extraction_home() == CHECKOUT / ".extraction"


def test_a_set_up_of_an_earlier_version_keeps_its_place(
    yard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EXTRACTION_HOME")
    monkeypatch.setattr(project_home, "_checkout", lambda: None)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    shared = tmp_path / "user" / ".extraction"
    project_home.use_project_of_module("yard.definitions")
    (shared / "of_another_project").mkdir(parents=True)
    (shared / "of_another_project" / "corpus.json").write_text("{}")
    assert extraction_home() == yard.parents[1] / ".extraction"
    (shared / "first").mkdir(parents=True)
    (shared / "first" / "corpus.json").write_text("{}")
    assert extraction_home() == shared
    (yard.parents[1] / ".extraction").mkdir()
    assert extraction_home() == yard.parents[1] / ".extraction"


def test_a_module_without_a_project_keeps_the_place_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alone.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("EXTRACTION_HOME")
    project_home.use_project_of_module("alone")
    assert extraction_home() == CHECKOUT / ".extraction"


def test_links_lead_to_the_default_address_of_browse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXTRACTION_BROWSER_URL", raising=False)
    assert browser_url() == "http://127.0.0.1:3080"


def test_links_lead_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_BROWSER_URL", "https://features.example.org/of/us/")
    assert browser_url() == "https://features.example.org/of/us"


@pytest.mark.parametrize("wrong", ["javascript:alert(1)", "localhost:3080", "http://", "http://a b", "http://a?x=1"])
def test_an_address_of_no_web_page_is_one_sentence(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_BROWSER_URL", wrong)
    with pytest.raises(ValueError, match=r"EXTRACTION_BROWSER_URL is .*, not an address such as http://127"):
        browser_url()
