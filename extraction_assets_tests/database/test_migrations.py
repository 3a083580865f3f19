"""Schema changes: in place, whole or not at all, one process at a time, never by older code."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import event

from extraction_assets.database import connect as connect_module
from extraction_assets.database.connect import NewerDatabaseError, connect, open_database, write_transaction
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.migrations import revisions
from extraction_assets.database.migrations.revisions import MIGRATIONS, known_revisions, revision_of
from extraction_assets.database.migrations.upgrade import upgrade
from extraction_assets.database.tables import corpora, extractions
from extraction_assets.database.views import feature_activations
from extraction_assets_tests.daemon_lab import wait_for
from extraction_assets_tests.database.earlier import in_the_table
from extraction_assets_tests.database.synthetic import make_results, store_examples
from extraction_assets_tests.postgres import Server
from extraction_assets_tests.processes import start_code

LATER = """
import pyarrow as pa
import sqlalchemy as sa
from alembic import op

revision = "later"
down_revision = "{head}"


def upgrade():
    op.add_column("corpora", sa.Column("language", sa.Text))
    op.execute("UPDATE corpora SET language = 'English'")


def downgrade():
    op.drop_column("corpora", "language")
"""


@contextlib.contextmanager
def later_version(folder: Path) -> Iterator[None]:
    """The package as a later version might be: one more migration."""
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "later.py").write_text(LATER.format(head=known_revisions()[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revisions, "MIGRATIONS", folder)
        yield


def at_revision(url: str, revision: str) -> sa.Engine:
    """A database as an earlier version left it."""
    engine = connect(url)
    with write_transaction(engine) as connection:
        upgrade(connection, revision)
    return engine


def test_the_names_of_the_files_say_the_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert known_revisions() == [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()]


def test_the_first_version_is_upgraded_in_place_with_its_rows(empty_url: str) -> None:
    engine = at_revision(empty_url, "0001")
    with write_transaction(engine) as connection:
        store_examples(connection, in_the_table, 1, 1.0)
    engine.dispose()
    engine = open_database(empty_url)
    with engine.connect() as connection:
        assert revision_of(connection) == known_revisions()[0] != "0001"
        assert connection.scalar(sa.select(extractions.c.fingerprint)) == "kept"
        assert connection.scalar(sa.select(sa.func.count()).select_from(feature_activations)) == 400
    engine.dispose()


def test_a_later_version_keeps_the_rows_and_this_one_then_refuses_them(empty_url: str, tmp_path: Path) -> None:
    engine = open_database(empty_url)
    with write_transaction(engine) as connection:
        make_results("kept", 1.0, num_features=1).load(connection)
    engine.dispose()
    with later_version(tmp_path / "migrations"):
        engine = open_database(empty_url)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT language FROM corpora")) == "English"
        assert connection.scalar(sa.select(sa.func.count()).select_from(feature_activations)) == 100
    engine.dispose()
    with pytest.raises(NewerDatabaseError, match="has schema later, which this version") as raised:
        open_database(empty_url)
    assert "tester:***@" in str(raised.value) or empty_url.startswith("sqlite")


def test_an_upgrade_that_fails_half_way_leaves_nothing_and_can_be_done_again(empty_url: str) -> None:
    engine = connect(empty_url)

    @event.listens_for(engine, "before_cursor_execute")
    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "CREATE TABLE feature_labels" in statement:
            raise RuntimeError("the machine stops here")

    with pytest.raises(RuntimeError):
        connect_module._upgrade(engine)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
    engine = open_database(empty_url)
    assert "samples" in sa.inspect(engine).get_table_names()
    engine.dispose()


@pytest.mark.slow
def test_processes_that_open_an_empty_database_at_once_all_find_it_ready(empty_url: str, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from extraction_assets.database.connect import open_database\n"
        "print('ready', flush=True)\n"
        "while not Path(sys.argv[2]).exists(): time.sleep(0.001)\n"
        "for _ in range(3): open_database(sys.argv[1]).dispose()"
    )
    start, folders = tmp_path / "start", [tmp_path / f"process-{number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
    opening = [start_code(code, empty_url, str(start), streams=folder) for folder in folders]
    output = [folder / "stdout" for folder in folders]
    wait_for("all imports", lambda: all(file.exists() and file.read_text() for file in output), pause=0.01)
    start.touch()
    for process, folder in zip(opening, folders, strict=True):
        process.join(120)
        assert process.exitcode == 0, (folder / "stderr").read_text()
    engine = open_database(empty_url)
    with engine.connect() as connection:
        assert connection.execute(sa.select(corpora)).all() == []
    engine.dispose()


def test_a_role_that_may_not_make_tables_gets_one_sentence(postgres_server: Server, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"CREATE ROLE {name}_reader LOGIN PASSWORD 'reader-secret'")
    url = f"postgresql://{name}_reader:reader-secret@127.0.0.1:{postgres_server.port}/{name}"
    with pytest.raises(DatabaseError, match="permission denied for schema public") as raised:
        open_database(url)
    assert "reader-secret" not in str(raised.value)


def test_a_migration_is_said_in_one_line(empty_url: str, caplog: pytest.LogCaptureFixture) -> None:
    at_revision(empty_url, "0006").dispose()
    for _ in range(2):
        open_database(empty_url).dispose()
    head = known_revisions()[0]
    [said] = caplog.messages
    assert re.fullmatch(rf"the results database \S+ is migrated once, from schema 0006 to {head}", said)


def test_a_new_database_is_no_migration(empty_url: str, caplog: pytest.LogCaptureFixture) -> None:
    open_database(empty_url).dispose()
    assert caplog.messages == []
