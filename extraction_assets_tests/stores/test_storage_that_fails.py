"""Runs whose store in object storage is away for a moment or for good, and those that are killed while they upload."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from extraction_assets.execution.keys import sae_key
from extraction_assets.resources import ChunkStoreResource
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets_tests import command
from extraction_assets_tests.cut_line import CutLine
from extraction_assets_tests.object_storage import S3Server
from extraction_assets_tests.processes import Hurried
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

SECOND = "000000000008"
TABLE = f"relu/top_k_table/{SECOND}-"


@pytest.fixture
def line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[CutLine]:
    with CutLine(s3.endpoint).open() as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield line


def a_project(tiny_folder: Path, home: Path, place: str, patience: float) -> Project:
    store = ChunkStoreResource(root=f"s3://results/{place}", patience_seconds=patience)
    return Project(make_settings(tiny_folder), home, chunk_store=store)


def cut_at(monkeypatch: pytest.MonkeyPatch, line: CutLine, part: str, seconds: float | None = None) -> None:
    """Cuts the line when the first file is stored that has ``part`` in its name."""
    put, cut = RemoteFolder.put, [False]

    def cutting(folder: RemoteFolder, path: Path, name: str) -> None:
        if part in name and not cut[0]:
            cut[0] = True
            line.cut(seconds)
        put(folder, path, name)

    monkeypatch.setattr(RemoteFolder, "put", cutting)


def tables_of(s3: S3Server, place: str) -> list[str]:
    found = s3.client().find(f"results/{place}/tiny/relu/top_k_table")
    return sorted(path.rpartition("/")[2].partition("-")[0] for path in found if path.endswith(".parquet"))


def test_a_store_that_is_away_for_a_moment_is_waited_for(
    line: CutLine,
    s3: S3Server,
    tiny_folder: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    project = a_project(tiny_folder, home, "moment", patience=60)
    project.corpus()
    cut_at(monkeypatch, line, TABLE, seconds=1.5)
    assert project.chunks().success
    assert "s3://results/moment cannot be written: " in caplog.text
    assert "asked again in 0.5 s" in caplog.text
    assert tables_of(s3, "moment") == project.settings.chunk_keys


def test_a_store_that_stays_away_ends_the_run_with_one_error_and_what_is_durable_stays(
    line: CutLine, s3: S3Server, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = a_project(tiny_folder, home, "away", patience=1)
    project.corpus()
    with monkeypatch.context() as patch:
        cut_at(patch, line, TABLE)
        said = r"^s3://results/away cannot be written: .*asked again for \d s\)\. What is durable stays"
        with pytest.raises(dg.Failure, match=said):
            project.chunks()
    line.mend()
    key = sae_key(project.settings, "relu", "top_k_table")
    assert project.instance.get_materialized_partitions(key) == {"000000000000"}
    assert tables_of(s3, "away") == ["000000000000"]
    assert list(home.rglob("*.parquet")) == []
    assert project.chunks(1, 2).success
    assert tables_of(s3, "away") == project.settings.chunk_keys


def _run_and_die(folder: Path, variables: dict[str, str]) -> None:
    """In a process of its own: a run that uploads a table in parts, and is killed in the middle of that."""
    import s3fs

    os.environ.update(variables)
    call, put = s3fs.S3FileSystem._call_s3, s3fs.S3FileSystem._put_file

    async def in_parts(client: Any, path: str, target: str, **options: Any) -> None:
        await put(client, path, target, **{**options, **({"chunksize": 1 << 10} if TABLE in target else {})})

    async def dying(client: Any, method: str, *args: Any, **options: Any) -> Any:
        if method == "upload_part" and TABLE in options["Key"] and options["PartNumber"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return await call(client, method, *args, **options)

    s3fs.S3FileSystem._call_s3, s3fs.S3FileSystem._put_file = dying, in_parts
    command.invoke(command.declare(pytest.MonkeyPatch(), make_settings(folder)), "run", "tiny")


def test_what_a_run_was_uploading_when_it_was_killed_is_absent_and_cleaned(
    s3: S3Server, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACTION_STORE", "s3://results/killed-run")
    process = Hurried().Process(target=_run_and_die, args=(tiny_folder, dict(os.environ)))
    process.start()
    process.join(120)
    process.kill()
    assert process.exitcode == -signal.SIGKILL
    assert tables_of(s3, "killed-run") == ["000000000000"]
    assert len(_uploads(s3, "killed-run")) == 1
    module = command.declare(monkeypatch, make_settings(tiny_folder))
    assert "2 chunks, 2 merges" in command.succeed(module, "run", "tiny", "--missing")
    assert tables_of(s3, "killed-run") == make_settings(tiny_folder).chunk_keys
    command.succeed(module, "clean", "--yes")
    assert _uploads(s3, "killed-run") == []
    assert list(home.glob(".stores/*/.scratch/*")) == []


def _uploads(s3: S3Server, place: str) -> list[str]:
    keys = [upload["Key"] for upload in s3.client().list_multipart_uploads("results")]
    return [key for key in keys if key.startswith(f"{place}/")]
