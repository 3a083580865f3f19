"""What the doctor says of a chunk store in object storage."""

import pytest

from extraction_assets.doctor.project import check_stores, default_results, default_store
from extraction_assets_tests.object_storage import S3Server


def test_storage_that_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_STORE", "memory://doctor")
    (found,) = check_stores(default_store, default_results)
    assert (found.severity, found.message) == ("ok", "corpora and chunk files are in memory://doctor, which answers")


def test_a_bucket_that_is_not_there_is_an_error(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_STORE", "s3://no-such-bucket/x")
    (found,) = check_stores(default_store, default_results)
    assert found.severity == "error"
    assert "s3://no-such-bucket does not exist" in found.message


def test_a_store_that_cannot_be_opened_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_STORE", "relative/folder")
    (found,) = check_stores(default_store, default_results)
    assert "another folder in every working directory" in found.message
