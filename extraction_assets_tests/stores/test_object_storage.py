"""An extraction with its chunks and its corpus in object storage: S3, by a server on 127.0.0.1."""

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from extraction_assets import open_results
from extraction_assets.stores import remote_folder
from extraction_assets_tests import command
from extraction_assets_tests.object_storage import SECRET, S3Server
from extraction_assets_tests.rows import all_rows, differences
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

PLACE = "results/whole"


class Ran(NamedTuple):
    """A home after ``run tiny`` with the store at a URL."""

    home: Path
    output: str


@pytest.fixture(scope="module")
def ran_once(s3_running: S3Server, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home = tmp_path_factory.mktemp("remote") / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_running.environment.items():
            patch.setenv(name, value)
        patch.setenv("EXTRACTION_HOME", str(home))
        patch.setenv("EXTRACTION_STORE", f"s3://{PLACE}")
        return Ran(home, command.succeed(command.declare(patch, make_settings(tiny_folder)), "run", "tiny"))


class Remote(NamedTuple):
    """The extraction in a bucket's folder and a home of this test's own."""

    s3: S3Server
    place: str
    module: str
    home: Path

    def objects(self) -> dict[str, str]:
        return objects(self.s3, self.place)

    def one(self, pattern: str) -> str:
        """The key of the first file that has this in its name."""
        return next(f"{self.place}/{name}" for name in sorted(self.objects()) if pattern in name)


def objects(s3: S3Server, place: str) -> dict[str, str]:
    """Files below a place, with the MD5 of their bytes: the listing has it, as the tag of what one request put."""
    listed = s3.client().find(place, detail=True)
    return {path.removeprefix(f"{place}/"): one["ETag"].strip('"') for path, one in listed.items()}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def remote(
    ran_once: Ran, tiny_folder: Path, s3: S3Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    place = f"results/{home.parent.name}"
    s3.copy(PLACE, place)
    shutil.copytree(ran_once.home, home, ignore=shutil.ignore_patterns(".stores"))
    monkeypatch.setenv("EXTRACTION_STORE", f"s3://{place}")
    return Remote(s3, place, command.declare(monkeypatch, make_settings(tiny_folder)), home)


def test_files_in_storage_and_rows_are_those_of_a_folder(ran_once: Ran, s3: S3Server, completed_once: Path) -> None:
    names = {path.relative_to(completed_once).as_posix(): path for path in completed_once.rglob("*") if path.is_file()}
    local = {name: md5(path.read_bytes()) for name, path in names.items() if name.startswith(("tiny/", "corpora/"))}
    found = objects(s3, PLACE)
    assert found.keys() == local.keys()
    same = [name for name in local if "feature_report" not in name]  # which says how long it took
    assert {name: found[name] for name in same} == {name: local[name] for name in same}
    rows = all_rows(f"sqlite:///{ran_once.home / 'results.sqlite'}")
    assert differences(all_rows(f"sqlite:///{completed_once / 'results.sqlite'}"), rows) == ""


def test_nothing_is_left_in_scratch_but_the_corpus(ran_once: Ran) -> None:
    (scratch,) = (ran_once.home / ".stores").iterdir()
    left = [path for path in scratch.rglob("*") if path.is_file()]
    assert {path.relative_to(scratch).parts[0] for path in left} == {"corpora"}


def test_no_event_database_or_log_holds_credentials_or_the_server(ran_once: Ran, s3: S3Server) -> None:
    secrets = [value.encode() for name, value in s3.environment.items() if name != "AWS_DEFAULT_REGION"]
    assert SECRET.encode() in secrets
    for path in (path for path in ran_once.home.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content], path
    assert SECRET not in ran_once.output


def test_events_name_files_by_their_urls(ran_once: Ran) -> None:
    events = b"".join(path.read_bytes() for path in (ran_once.home / "dagster").rglob("*.db"))
    assert f"s3://{PLACE}/tiny/relu/top_k_table/000000000000-".encode() in events
    assert str(ran_once.home / ".stores").encode() not in events
    assert f"files      s3://{PLACE}" in ran_once.output
    assert f"report     s3://{PLACE}/tiny/relu/feature_report/" in ran_once.output


def test_all_is_current_and_nothing_is_computed_again(remote: Remote) -> None:
    before = remote.objects()
    status = command.succeed(remote.module, "status", "tiny")
    assert f"s3://{remote.place}/corpora/" in status
    assert "relu/top_k_table                  3      0        0" in status
    assert "0 chunks, 0 merges" in command.succeed(remote.module, "run", "tiny", "--missing")
    assert remote.objects() == before


def test_flipped_bytes_are_noticed_and_the_files_made_again(remote: Remote) -> None:
    """Of a table, of another chunk's features and of the corpus, in one run: it asks the server hundreds of times."""
    patterns = ("relu/top_k_table/000000000008", "sae_features/000000000016", "token_ids.npy")
    time.sleep(1.1)  # S3 says in whole seconds which features were changed after their table
    client, before = remote.s3.client(), {}
    for key in map(remote.one, patterns):
        whole = before[key] = client.cat_file(key)
        client.pipe_file(key, whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    flipped = {key: client.cat_file(key) for key in before}
    said = command.invoke(remote.module, "run", "tiny", "--missing")
    assert said.exit_code == 0, said.output
    for key, whole in before.items():
        assert f"s3://{key} is damaged: its bytes do not match" in said.output + said.stderr
        again = client.cat_file(key)  # the record of features says what they were made from
        assert again == whole or ("sae_features" in key and again != flipped[key])


def test_a_copy_of_the_corpus_that_has_changed_is_copied_again(remote: Remote) -> None:
    command.succeed(remote.module, "status", "tiny")
    (copy,) = remote.home.glob(".stores/*/corpora/*/token_ids.npy")
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    assert "damaged" not in command.succeed(remote.module, "status", "tiny")


def test_results_and_activations_open_from_the_store_of_the_environment(remote: Remote) -> None:
    with open_results() as results:
        assert results.store.place == f"s3://{remote.place}"
        index = int(results["tiny/relu"].features()["token_count"].idxmax())
        assert results["tiny/relu"].activations(index).nnz > 0


def test_superseded_files_are_cleaned_and_nothing_else(
    remote: Remote, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = remote.objects()
    remote.s3.client().pipe_file(f"{remote.place}/tiny/relu/top_k_table/mine.txt", b"of somebody else")
    module = command.declare(monkeypatch, make_settings(tiny_folder, top_k_examples=3))
    assert "3 chunks, 2 merges" in command.succeed(module, "run", "tiny", "--missing")
    assert len(remote.objects()) > len(before) + 1
    command.succeed(module, "clean", "--yes")
    after = remote.objects()
    assert after.pop("tiny/relu/top_k_table/mine.txt") == md5(b"of somebody else")
    assert len(after) == len(before)
    assert "superseded" not in command.succeed(module, "clean", "--dry-run")
    assert "0 chunks, 0 merges" in command.succeed(module, "run", "tiny", "--missing")


def test_an_extraction_is_deleted_with_its_corpus(remote: Remote) -> None:
    remote.s3.client().pipe_file(f"{remote.place}/tiny/notes.txt", b"of somebody else")
    said = command.succeed(remote.module, "delete", "tiny", "--yes")
    assert f"note: s3://{remote.place}/tiny/notes.txt is not of this package and stays" in said
    assert remote.objects().keys() == {"tiny/notes.txt"}


def test_uploads_of_this_package_that_never_ended_are_cleaned_once_they_are_old(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [remote.one("relu/top_k_table/000000000008-").partition(".")[0] + ".parquet", remote.one("corpora/")]
    others = [f"{remote.place}/tiny/relu/top_k_table/mine.parquet", f"{remote.place}/tiny/mine", "results/mine"]
    client = remote.s3.client()
    for bucket, _, key in (one.partition("/") for one in (*ours, *others)):
        client.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    with monkeypatch.context() as patch:
        patch.setattr(remote_folder, "_seconds", lambda _: time.time())  # moto says 2010 of each
        said = command.succeed(remote.module, "clean", "--yes")
        assert "1 temporary in tiny/relu/top_k_table left: younger than an hour" in said
    assert _uploads(remote) == {*ours, *others}
    command.succeed(remote.module, "clean", "--yes")
    assert _uploads(remote) == set(others)


def _uploads(remote: Remote) -> set[str]:
    found = {f"results/{upload['Key']}" for upload in remote.s3.client().list_multipart_uploads("results")}
    return {key for key in found if key.startswith(remote.place) or key == "results/mine"}
