"""A folder in S3: pages of listings, and uploads in parts."""

import os
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.stores import remote_folder
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.storage_urls import StorageUrl
from extraction_assets_tests.object_storage import S3Server


def a_folder(s3: S3Server, name: str) -> tuple[RemoteFolder, Any]:
    client = s3.client()
    return RemoteFolder(StorageUrl("s3", f"results/{name}"), (client, f"results/{name}")), client


def test_files_are_listed_in_pages(s3: S3Server) -> None:
    folder, client = a_folder(s3, "pages")
    for number in range(5):
        client.pipe_file(f"results/pages/inside/{number}", b"x" * number)
    client.req_kw = {"MaxKeys": 2}
    assert folder.sizes() == {f"inside/{number}": number for number in range(5)}
    assert set(folder.entries("inside")) == set(folder.sizes())


def test_uploads_that_were_begun_are_listed_in_pages(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, client = a_folder(s3, "begun-pages")
    for number in range(5):
        client.call_s3("create_multipart_upload", Bucket="results", Key=f"begun-pages/{number}")
    call, pages = client.call_s3, list[str]()

    def two_a_page(method: str, KeyMarker: str = "", UploadIdMarker: str = "", **options: Any) -> Any:
        """As S3 answers with more uploads than a page holds: moto gives all at once."""
        pages.append(KeyMarker)
        left = [one for one in call(method, **options)["Uploads"] if one["Key"] > KeyMarker]
        last = left[:2][-1]
        return {
            "Uploads": left[:2],
            "IsTruncated": len(left) > 2,
            "NextKeyMarker": last["Key"],
            "NextUploadIdMarker": last["UploadId"],
        }

    with monkeypatch.context() as patch:
        patch.setattr(client, "call_s3", two_a_page)
        assert [upload.name for upload in folder.uploads()] == [str(number) for number in range(5)]
    assert pages == ["", "begun-pages/1", "begun-pages/3"]
    folder.abort_uploads()
    assert folder.uploads() == []


def test_a_large_file_comes_in_parts_and_is_whole(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = a_folder(s3, "parts")
    monkeypatch.setattr(remote_folder, "PART_BYTES", 5 << 20)  # the least that S3 takes
    content = os.urandom((12 << 20) + 1)
    (tmp_path / "large").write_bytes(content)
    folder.put(tmp_path / "large", "large")
    assert folder.read("large") == content
    assert folder.read("large", len(content) - 3, len(content)) == content[-3:]
    assert folder.uploads() == []
