"""Which database a URL names, and that nothing but its backend knows what is special about it."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

import extraction_assets
from extraction_assets.database.backends import BACKENDS, backend_of, backend_of_url, column_type, parse_url
from extraction_assets.database.backends.sqlite import SqliteBackend
from extraction_assets.database.connect import connect
from extraction_assets.database.errors import DatabaseError

PACKAGE = Path(extraction_assets.__file__).parent


class _Third(SqliteBackend):
    """A database that somebody adds."""

    name, url_names, title, example_url = "third", ("third", "3rd"), "Third", "third:///path"
    column_types = {"doubles": sa.Text()}


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> _Third:
    backend = _Third()
    monkeypatch.setattr("extraction_assets.database.backends.BACKENDS", (*BACKENDS, backend))
    return backend


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sqlite:///x", "sqlite"),
        ("sqlite+pysqlite:///x", "sqlite"),
        ("postgresql://u@h/n", "postgresql"),
        ("postgres://u@h/n", "postgresql"),
        ("postgresql+psycopg2://u@h/n", "postgresql"),
    ],
)
def test_a_url_names_its_database(text: str, name: str) -> None:
    assert backend_of_url(parse_url(text, "URL")).name == name


def test_an_engine_has_the_backend_of_its_url(results_url: str) -> None:
    engine = connect(results_url)
    assert backend_of(engine) is backend_of_url(engine.url)
    engine.dispose()


def test_one_more_database_is_chosen_and_named_in_messages(third: _Third) -> None:
    assert backend_of_url(parse_url("3rd:///x", "URL")) is third
    with pytest.raises(DatabaseError, match="must name a SQLite, PostgreSQL, Parquet or Third database"):
        parse_url("mysql://h/n", "URL")
    with pytest.raises(DatabaseError, match="or third:///path; special"):
        parse_url("banana", "URL")


def test_a_column_has_the_type_of_its_backend_and_else_the_portable_one(third: _Third) -> None:
    doubles = column_type("doubles")
    assert isinstance(doubles._variant_mapping["third"], sa.Text)
    assert isinstance(doubles._variant_mapping["postgresql"], sa.ARRAY)
    assert isinstance(doubles, sa.JSON)


def test_only_backends_ask_which_database_it_is() -> None:
    """Migrations do too: what they did for a database is history."""
    asks = re.compile(r"dialect\.name|get_backend_name\(\) [!=]=|[\"']sqlite[\"'],|import psycopg2")
    folder = PACKAGE / "database"
    files = [path for path in folder.rglob("*.py") if not {"backends", "migrations"} & set(path.parts)]
    assert len(files) > 8
    assert [path.name for path in files if asks.search(path.read_text())] == []
