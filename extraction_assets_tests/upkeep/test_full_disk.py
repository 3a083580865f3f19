"""A full disk: what reads works, `clean` makes room, and one sentence names the disk."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database
from extraction_assets.database.errors import DatabaseError, FullDiskError
from extraction_assets.database.migrations.revisions import known_revisions
from extraction_assets.database.queries.extractions import merges
from extraction_assets.database.read_only import read_database
from extraction_assets.host import disk as disk_module
from extraction_assets_tests.command import declare, invoke, succeed
from extraction_assets_tests.database.test_migrations import at_revision
from extraction_assets_tests.full_disk import fill, small_disk
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

CORPUS = "INSERT INTO corpora (fingerprint, sample_count, start_sample, source, tokenizer, packing) VALUES "
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute(sys.argv[2] + "('written', 1, 0, 's', 't', 'p')")
connection.commit()
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture
def merged(disk: Path, merged_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home on the small disk in which the tiny extraction is merged."""
    shutil.copytree(merged_once, disk / "home")
    monkeypatch.setenv("EXTRACTION_HOME", str(disk / "home"))
    return disk / "home"


@pytest.fixture
def module(merged: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny extraction with a smaller K, so that its tables are superseded; Dagster's home is made."""
    declared = declare(monkeypatch, make_settings(tiny_folder, top_k_examples=3))
    succeed(declared, "list")
    return declared


def _corpora(url: str) -> list[str]:
    with read_database(url) as engine, engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT fingerprint FROM corpora ORDER BY id")))


# ------------------------------------------------------------------------------------------------------------ commands


def test_clean_removes_files_and_says_what_it_could_not_ask(disk: Path, merged: Path, module: str) -> None:
    fill(disk)
    result = invoke(module, "clean", "--yes")
    assert result.exit_code == 0, result.output
    assert "freed 135.6 kB" in result.stdout
    assert f"Dagster's history does not open: the disk of {merged}/dagster is full" in result.stderr


def test_status_goes_on_without_dagsters_history(disk: Path, module: str) -> None:
    fill(disk)
    result = invoke(module, "status", "tiny")
    assert result.exit_code == 0
    assert "relu/top_k_table                  0      3        0" in result.stdout
    assert "relu/feature_examples        merged" in result.stdout
    assert "which chunks are recorded is not known: Dagster's history does not open" in result.stderr


def test_show_reads_features(disk: Path, module: str) -> None:
    before = succeed(module, "show", "tiny", "--sae", "relu")
    fill(disk)
    assert succeed(module, "show", "tiny", "--sae", "relu") == before


def test_the_doctor_calls_the_disk_full_and_the_database_good(disk: Path, merged: Path, module: str) -> None:
    fill(disk)
    lines = invoke(module, "doctor").output.splitlines()
    assert f"ok       database     sqlite:///{merged}/results.sqlite, schema {known_revisions()[0]}" in lines
    for check in ("pools", "daemon", "runs"):
        (line,) = (line for line in lines if line.split()[1:2] == [check])
        assert line.endswith(f"the disk of {merged}/dagster is full (0 bytes free)")
    assert not any("sqlite3" in line or "SQL:" in line for line in lines)


def test_run_names_the_disk_and_shows_no_sql(disk: Path, merged: Path, module: str) -> None:
    fill(disk)
    result = invoke(module, "run", "tiny", "--missing")
    assert result.exit_code == 1
    assert f"{merged}/dagster cannot be written: the disk of {merged}/dagster is full" in result.stderr
    assert "SQL" not in result.output


def test_delete_makes_room_with_files_and_then_removes_rows(disk: Path, merged: Path, module: str) -> None:
    fill(disk)
    assert "removed tiny" in succeed(module, "delete", "tiny", "--yes")
    with read_database(f"sqlite:///{merged}/results.sqlite") as engine, engine.connect() as connection:
        assert merges(connection) == {}
    assert not (merged / "tiny").exists()


# ------------------------------------------------------------------------------------------------------------ database


def test_a_merge_on_a_full_disk_names_the_disk(disk: Path) -> None:
    url = f"sqlite:///{disk}/results.sqlite"
    open_database(url).dispose()
    fill(disk)
    with pytest.raises(FullDiskError, match=f"the disk of {disk} is full \\(0 bytes free\\)"):
        open_database(url)


def test_what_a_killed_writer_left_in_the_wal_is_read(disk: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    open_database(f"sqlite:///{file}").dispose()
    command = [sys.executable, "-c", WRITER, str(file), CORPUS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    for name in ("results.sqlite", "results.sqlite-wal"):
        shutil.copyfile(tmp_path / name, disk / name)
    fill(disk)
    assert (disk / "results.sqlite-wal").stat().st_size > 0
    assert _corpora(f"sqlite:///{disk}/results.sqlite") == ["written"]


def test_where_no_other_disk_has_room_for_a_copy_it_says_so(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extraction_assets.database.backends.sqlite import read_only_disk

    file = disk / "results.sqlite"
    open_database(f"sqlite:///{file}").dispose()
    (disk / "results.sqlite-wal").write_bytes(b"x" * 100)
    fill(disk)
    monkeypatch.setattr(read_only_disk, "free_bytes", lambda _folder: 1000)
    with pytest.raises(DatabaseError, match=r"no other disk has .* for a copy: make room, or set TMPDIR"):
        _corpora(f"sqlite:///{file}")


# ------------------------------------------------------------------------- without the right to mount: RLIMIT_FSIZE

LIMITED = """
import json, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file takes a byte
from click.testing import CliRunner
from extraction_assets.cli import main
for words in sys.argv[2:]:
    done = CliRunner().invoke(main, ["--module", sys.argv[1], *words.split()])
    print(json.dumps([done.exit_code, done.output]), flush=True)
"""
DEFINITIONS = """
import dagster as dg
from extraction_assets import default_resources
from extraction_assets.component import build_definitions
from extraction_assets.settings import ExtractionSettings
settings = ExtractionSettings.model_validate_json({json!r})
defs = dg.Definitions.merge(build_definitions(settings), dg.Definitions(resources=default_resources()))
"""


@pytest.fixture
def limited_module(project: Project, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    settings = make_settings(tiny_folder, top_k_examples=3)
    (tmp_path / "limited.py").write_text(DEFINITIONS.format(json=settings.model_dump_json()))
    succeed(declare(monkeypatch, settings), "list")
    return "limited"


def _limited(module: str, folder: Path, *commands: str) -> list[tuple[int, str]]:
    """The exit code and the output of each command."""
    words = [sys.executable, "-B", "-c", LIMITED, module, *commands]
    done = subprocess.run(words, cwd=folder, env={**os.environ}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_commands_work_where_no_file_takes_a_byte(limited_module: str, tmp_path: Path, home: Path) -> None:
    status, shown, cleaned = _limited(limited_module, tmp_path, "status tiny", "show tiny --sae relu", "clean --yes")
    for (code, output), part in (
        (status, "relu/feature_examples        merged"),
        (shown, "feature"),
        (cleaned, "freed 135.6 kB"),
    ):
        assert (code, part in output) == (0, True), output
    assert sqlite3.connect(f"file:{home}/results.sqlite?immutable=1", uri=True).execute("SELECT 1").fetchone() == (1,)


def test_check_says_that_a_run_could_not_write(disk: Path, module: str) -> None:
    fill(disk)
    result = invoke(module, "check", "tiny", "--device", "cpu")
    assert result.exit_code == 1
    assert f"a run cannot write to {disk / 'home'}: the disk of {disk / 'home'} is full" in result.output


def test_a_read_only_disk_is_called_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert disk_module.unwritable(tmp_path / "home") is None
    monkeypatch.setattr(disk_module, "is_read_only", lambda _: True)
    assert disk_module.unwritable(tmp_path / "home") == f"the disk of {tmp_path} is mounted read-only"


# ------------------------------------------------------------------------- one file that may not be written


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """A file that nobody may write to, not even root, for whom the mode of a file does not count."""
    if os.geteuid() != 0:
        file.chmod(0o444)
    elif subprocess.run(["chattr", "+i", file], capture_output=True, check=False).returncode:
        pytest.skip("this file system locks no file for root (chattr +i)")
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", file], check=True)


@pytest.mark.parametrize("command", [("run", "tiny", "--missing"), ("delete", "tiny", "--yes")])
def test_an_old_database_that_is_not_writable_is_named(
    project: Project, home: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    module = declare(monkeypatch, project.settings)
    file = home / "results.sqlite"
    file.unlink()
    at_revision(f"sqlite:///{file}", "0002").dispose()
    with _locked(file):
        result = invoke(module, *command)
    assert result.exit_code == 1, result.output
    assert f"{file} is not writable, and the database must be migrated to schema" in result.output
    assert "a quota or a limit" not in result.output
