"""Exports into object storage: the same files as in a folder, whole or absent, and what is refused."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.folders import export_folder_at
from extraction_assets.exports.formats import jsonl
from extraction_assets.exports.output import MANIFEST
from extraction_assets.exports.source import ExportSource
from extraction_assets.exports.write_export import export
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.storage_urls import StorageError, StorageUrl, parse_storage_url, plain_reason
from extraction_assets_tests.browser import small_results
from extraction_assets_tests.exports.written import Counted, source_of, write
from extraction_assets_tests.object_storage import SECRET, S3Server
from extraction_assets_tests.processes import run_code

_KILLS_ITSELF = """
import os, signal, sys
from extraction_assets.database.connect import opened_database
from extraction_assets.exports.folders import export_folder_at
from extraction_assets.exports.formats import jsonl
from extraction_assets.exports.write_export import export
from extraction_assets_tests.exports.written import Counted, source_of

url, folder = sys.argv[1:]
jsonl.FEATURES_IN_FILE, line = 2, jsonl.feature_line
def dying(source, feature):
    if feature.neuron_index == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return line(source, feature)
jsonl.feature_line = dying
with opened_database(url) as engine, engine.connect() as connection:
    export(source_of(connection), "jsonl", export_folder_at(folder), Counted())
"""


@pytest.fixture(scope="module")
def small_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """In SQLite alone: what storage does follows from no database."""
    url = f"sqlite:///{tmp_path_factory.mktemp('small')}/results.sqlite"
    small_results.store_results(url)
    return url


def export_to(url: str, source: ExportSource, name: str = "jsonl", **options: str) -> int:
    """Files that an export has written to a URL."""
    return export(source, name, export_folder_at(url), Counted(), options).written


def files_in(folder: Path) -> dict[str, bytes]:
    """All files of a folder but manifests, which name the time."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def objects_of(s3: S3Server, prefix: str) -> dict[str, bytes]:
    """As ``files_in``, of an S3 server."""
    client = s3.client()
    files = (path for path in client.find(prefix) if not path.endswith(f"/{MANIFEST}"))
    return {path.removeprefix(f"{prefix}/"): client.cat_file(path) for path in files}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["jsonl", "parquet", "neuronpedia", "neuronpedia-upload", "circuit-tracer", "sae-dashboard"]
)
def test_files_in_storage_are_those_of_a_folder(small: sa.Connection, tmp_path: Path, s3: S3Server, name: str) -> None:
    options = {"layer": "7"} if name not in ("jsonl", "parquet") else {}
    folder = write(source_of(small), name, tmp_path / "out", **options).folder
    export_to(f"s3://results/deep/{name}", source_of(small), name, **options)
    assert objects_of(s3, f"results/deep/{name}") == files_in(folder)
    assert export_to(f"s3://results/deep/{name}", source_of(small), name, **options) == 0


@pytest.mark.slow
def test_an_export_into_storage_whose_process_was_killed_goes_on(
    small: sa.Connection, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = small.engine.url.render_as_string(hide_password=False)
    done = run_code(_KILLS_ITSELF, url, "s3://results/killed")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path for path in objects_of(s3, "results/killed") if "batch" in path} == {"batch-0.jsonl.gz"}
    monkeypatch.setattr(jsonl, "FEATURES_IN_FILE", 2)
    assert export_to("s3://results/killed", source_of(small)) == 2
    assert {f"batch-{number}.jsonl.gz" for number in range(3)} < objects_of(s3, "results/killed").keys()


def test_uploads_that_were_never_completed_are_aborted(small: sa.Connection, s3: S3Server) -> None:
    export_to("s3://results/begun", source_of(small))
    client = s3.client()
    begun = {"begun/half", "another/half"}
    for key in begun:
        client.call_s3("create_multipart_upload", Bucket="results", Key=key)
    export_to("s3://results/begun", source_of(small))
    assert begun & {upload["Key"] for upload in client.list_multipart_uploads("results")} == {"another/half"}


def test_uploads_of_others_into_a_whole_bucket_stay(s3: S3Server) -> None:
    client = s3.client()
    client.call_s3("create_multipart_upload", Bucket="results", Key="of/another/program")
    RemoteFolder(StorageUrl("s3", "results"), (client, "results")).abort_uploads()
    assert "of/another/program" in [upload["Key"] for upload in client.list_multipart_uploads("results")]


def test_the_folder_of_another_export_in_storage_is_refused(small: sa.Connection, s3: S3Server) -> None:
    export_to("s3://results/other", source_of(small))
    with pytest.raises(ExportError, match=r's3://results/other holds another export .*sae: "one", not "two"'):
        export_to("s3://results/other", source_of(small, sae="two"))
    s3.client().pipe_file("results/mine/letter.txt", b"dear")
    with pytest.raises(ExportError, match="s3://results/mine is not empty, and holds no export"):
        export_to("s3://results/mine", source_of(small))


def test_a_bucket_that_is_not_there_is_named(small: sa.Connection, s3: S3Server) -> None:
    with pytest.raises(StorageError, match=r"s3://nowhere/out cannot be .*: s3://nowhere does not exist"):
        export_to("s3://nowhere/out", source_of(small))


def test_a_bucket_that_refuses_is_said_with_what_to_check(small: sa.Connection, s3: S3Server) -> None:
    s3.make_refusing_bucket("refusing")
    with pytest.raises(
        StorageError, match=r"s3://refusing/out cannot be .* access is refused .* check the credentials"
    ):
        export_to("s3://refusing/out", source_of(small))


def test_what_a_client_of_storage_says_is_shown_without_credentials(s3: S3Server) -> None:
    said = OSError(f"https://host/box?X-Amz-Signature=abc: {SECRET}\nis wrong")
    assert plain_reason(said) == "https://host/box?*** *** is wrong"


def test_no_manifest_in_storage_names_credentials_or_the_server(small: sa.Connection, s3: S3Server) -> None:
    export_to("s3://results/named", source_of(small))
    manifest = s3.client().cat_file(f"results/named/{MANIFEST}").decode()
    assert not any(value in manifest for value in s3.environment.values())


class Bucket(MemoryFileSystem):
    """Storage of another kind than S3, in memory: what the clients of Google and Azure have in common with it is
    fsspec's interface, and paths without a slash in front."""

    protocol = ("gs", "gcs", "az", "abfs")
    store: dict[str, Any] = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(str(path).partition("://")[2] or path)


@pytest.fixture(params=["gs", "az", "abfs"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket."""
    monkeypatch.setitem(_registry, request.param, Bucket)
    monkeypatch.setattr(Bucket, "store", {})
    return f"{request.param}://bucket"


@pytest.mark.parametrize("name", ["jsonl", "parquet", "circuit-tracer"])
def test_files_in_storage_of_other_kinds_are_those_of_a_folder(
    small: sa.Connection, tmp_path: Path, bucket: str, name: str
) -> None:
    options = {"layer": "7"} if name == "circuit-tracer" else {}
    folder = write(source_of(small), name, tmp_path / "out", **options).folder
    written = export_to(f"{bucket}/deep/{name}", source_of(small), name, **options)
    stored = RemoteFolder(parse_storage_url(f"{bucket}/deep/{name}"))
    assert {one: stored.read(one) for one in stored.sizes() if not one.endswith(MANIFEST)} == files_in(folder)
    stored.remove(next(one for one in stored.sizes() if one.endswith((".gz", ".parquet"))))
    assert (export_to(f"{bucket}/deep/{name}", source_of(small), name, **options), written > 1) == (1, True)


def test_the_folder_of_another_export_in_storage_of_other_kinds_is_refused(small: sa.Connection, bucket: str) -> None:
    export_to(f"{bucket}/out", source_of(small))
    with pytest.raises(ExportError, match=r'://bucket/out holds another export .*sae: "one", not "two"'):
        export_to(f"{bucket}/out", source_of(small, sae="two"))


@pytest.mark.parametrize(
    ("scheme", "package", "command"),
    [
        ("s3", "s3fs", r"pip install 'extraction-assets\[s3\]'"),
        ("gs", "gcsfs", "pip install gcsfs"),
        ("az", "adlfs", "pip install adlfs"),
        ("abfs", "adlfs", "pip install adlfs"),
    ],
)
def test_storage_whose_package_is_not_installed_is_said_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str, command: str
) -> None:
    monkeypatch.delitem(_registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=f"{scheme}:// needs .* {command}"):
        export_folder_at(f"{scheme}://bucket/out")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nope://bucket/x", "nope://bucket/x is of a kind that is not known"),
        ("s3://", "s3:// names nothing"),
        ("s3://bucket/../x", "has an empty part, or . or .."),
        ("https://host/x", "is no folder: give the URL of the storage itself"),
        ("simplecache::s3://bucket/x", "is a chain of URLs"),
    ],
)
def test_urls_that_are_no_folders_are_refused(url: str, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        export_folder_at(url)


@pytest.mark.parametrize("url", [f"sftp://me:{SECRET}@host/x", f"az://box/x?sig={SECRET}"])
def test_urls_with_credentials_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(ExportError, match="by the environment") as refused:
        export_folder_at(url)
    assert SECRET not in str(refused.value)
