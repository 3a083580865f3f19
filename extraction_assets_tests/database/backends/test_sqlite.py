"""SQLite's write-ahead log: left behind by the commit of a load, put into the file when the connection is closed."""

import shutil
import sqlite3
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.tables import strongest_token_lists

_ROWS = 3_000
"""Some 6 MB, more than SQLite lets a log grow to by itself."""


def _load(engine: sa.Engine, token: str) -> None:
    rows = pa.table(
        {
            "extraction_id": pa.array([1] * _ROWS),
            "token": pa.array([f"{token}{number}" for number in range(_ROWS)]),
            "word": pa.array([f"{token}{number}" for number in range(_ROWS)]),
            "features": pa.array(["[[1,2,3.5]]" * 150] * _ROWS),
        }
    )
    with write_transaction(engine) as connection:
        backend_of(engine).replace_rows(connection, strongest_token_lists, 1, [rows])


def _in_file(file: Path) -> int:
    """Rows of the file itself, whatever its log says."""
    with sqlite3.connect(f"file:{file}?immutable=1", uri=True) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {strongest_token_lists.name}").fetchone()
    connection.close()
    return int(count)


@pytest.mark.parametrize("is_read", [False, True], ids=["alone", "beside a reader"])
def test_a_loads_log_is_put_into_the_file_after_its_commit(tmp_path: Path, is_read: bool) -> None:
    file = tmp_path / "results.sqlite"
    url = f"sqlite:///{file}"
    reader = sqlite3.connect(file)
    open_database(url).dispose()
    if is_read:
        reader.execute("SELECT * FROM extractions").fetchall()
    else:
        reader.close()
    engine = open_database(url)
    _load(engine, "a")
    assert _in_file(file) == 0
    engine.dispose()
    assert _in_file(file) == _ROWS
    reader.close()


def test_a_log_beside_a_reader_is_used_again(tmp_path: Path) -> None:
    """It would grow with every merge for as long as the browser is open."""
    file = tmp_path / "results.sqlite"
    url, log = f"sqlite:///{file}", file.with_name("results.sqlite-wal")
    open_database(url).dispose()
    reader, sizes = sqlite3.connect(file), []
    for token in "abcde":
        reader.execute("SELECT * FROM extractions").fetchall()
        engine = open_database(url)
        _load(engine, token)
        engine.dispose()
        sizes.append(log.stat().st_size)
    reader.close()
    assert sizes[-1] < 1.5 * sizes[1]


def test_a_log_is_used_again_by_the_next_load_of_a_connection(tmp_path: Path) -> None:
    engine, sizes = open_database(f"sqlite:///{tmp_path / 'results.sqlite'}"), []
    for token in "abcde":
        _load(engine, token)
        sizes.append((tmp_path / "results.sqlite-wal").stat().st_size)
    engine.dispose()
    assert sizes[-1] < 1.5 * sizes[1]


def test_a_log_that_was_left_by_a_crash_has_the_rows(tmp_path: Path) -> None:
    """Between the commit of a load and the end of its connection: file and log as a killed process leaves them."""
    engine, crashed = open_database(f"sqlite:///{tmp_path / 'results.sqlite'}"), tmp_path / "crashed"
    _load(engine, "a")
    crashed.mkdir()
    for name in ("results.sqlite", "results.sqlite-wal"):
        shutil.copyfile(tmp_path / name, crashed / name)
    engine.dispose()
    after = open_database(f"sqlite:///{crashed / 'results.sqlite'}")
    with after.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(strongest_token_lists)) == _ROWS
    after.dispose()
    assert _in_file(crashed / "results.sqlite") == _ROWS
