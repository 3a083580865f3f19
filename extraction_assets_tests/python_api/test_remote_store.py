"""Activations from a store in object storage: the same as from its folder, verified, and gone from here on close."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from extraction_assets import open_results
from extraction_assets.planning.stored_result import NotStoredError
from extraction_assets.python_api.extraction import ExtractionResults
from extraction_assets.python_api.results import Results
from extraction_assets.stores.opening import read_at_url
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets.stores.storage_urls import StorageError, parse_storage_url
from extraction_assets_tests.object_storage import S3Server
from extraction_assets_tests.project import Project

URL = "s3://results/store"


@pytest.fixture(scope="module")
def copied(s3_running: S3Server, merged_once: Path) -> str:
    """The store of the tiny extraction in a bucket; tests do not change it."""
    s3_running.client().put(f"{merged_once}/", "results/store/", recursive=True)
    return URL


@pytest.fixture
def remote(project: Project, copied: str, s3: S3Server) -> Iterator[Results]:
    with open_results(project.url, store=copied) as results:
        yield results


def test_activations_of_a_store_at_a_url_are_those_of_its_folder(remote: Results, relu: ExtractionResults) -> None:
    index = int(relu.features()["token_count"].idxmax())
    found, expected = remote["tiny/relu"].activations(index), relu.activations(index)
    assert expected.nnz > 0
    assert (found != expected).nnz == 0
    found, expected = remote["tiny/relu"].activations(chunk=1), relu.activations(chunk=1)
    assert (found != expected).nnz == 0


def test_copies_are_removed_on_close(remote: Results) -> None:
    remote["tiny/relu"].activations(0)
    root = remote.store.root
    assert list(root.rglob("*.safetensors"))
    remote.close()
    assert not root.exists()


def test_few_chunk_files_are_kept(project: Project, copied: str, s3: S3Server) -> None:
    store = read_at_url(parse_storage_url(copied), kept_bytes=1)
    files = store.chunk_files("tiny", "sae_features", "relu")
    assert len(files) > 1
    for file in files:
        with store.reading(file.path) as path:
            assert path.is_file()
    assert [path.name for path in store.root.rglob("*.safetensors")] == [files[-1].path.name]
    store.close()


def test_a_damaged_file_is_named_by_its_url(project: Project, copied: str, s3: S3Server) -> None:
    client = s3.client()
    s3.copy("results/store", "results/damaged")
    (name, *_) = [path for path in client.find("results/damaged/tiny/relu/sae_features") if path.endswith("tensors")]
    content = bytearray(client.cat_file(name))
    content[-1] ^= 1
    client.pipe_file(name, bytes(content))
    said = f"s3://{name} is damaged: its bytes do not match its checksum"
    with (
        open_results(project.url, store="s3://results/damaged") as results,
        pytest.raises(DamagedFileError, match=said),
    ):
        results["tiny/relu"].activations(0)


def test_a_store_without_the_files_is_named_by_its_url(project: Project, s3: S3Server) -> None:
    with (
        open_results(project.url, store="s3://results/empty") as results,
        pytest.raises(NotStoredError, match="are not stored in s3://results/empty: its corpus is not in the store"),
    ):
        results["tiny/relu"].activations(0)


def test_a_bucket_that_is_not_there_is_named(project: Project, s3: S3Server) -> None:
    said = "s3://no-such-bucket does not exist"
    with open_results(project.url, store="s3://no-such-bucket/x") as results, pytest.raises(StorageError, match=said):
        results["tiny/relu"].activations(0)
