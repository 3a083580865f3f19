"""Corpora whose files lie at a URL: the documents and fingerprints of the same files in a folder."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import ValidationError

from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.planning.corpus_source import open_source
from extraction_assets.planning.source_identity import source_identity
from extraction_assets.settings import CorpusSettings
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets_tests.object_storage import SECRET, S3Server
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

TEXTS = {"a.txt": "one", "deep/b.txt": "two", "deep/c.md": "three", ".hidden": "no"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of every kind."""
    for name, text in TEXTS.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "rows").mkdir()
    for number in (1, 2):
        (tmp_path / "rows" / f"{number}.jsonl").write_text(f'{{"text": "line {number}"}}\n')
        pq.write_table(pa.table({"text": [f"row {number}"]}), tmp_path / "rows" / f"{number}.parquet")
    return tmp_path


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """Where the same files lie in fsspec's memory."""
    MemoryFileSystem().put(str(folder), f"/{folder.name}", recursive=True)
    yield f"memory://{folder.name}"
    MemoryFileSystem().rm(f"/{folder.name}", recursive=True)


def read(source: str, **options: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The documents of a source, and its identity."""
    found = open_source(CorpusSettings(source=source, **options))
    return list(found.documents()), source_identity(found)


@pytest.mark.parametrize(
    "name",
    ["texts", "texts/*.txt", "texts/**/*.txt", "texts/deep/c.md", "rows/1.jsonl", "rows/*.jsonl", "rows/[12].parquet"],
)
def test_documents_and_fingerprints_at_a_url_are_those_of_a_folder(folder: Path, url: str, name: str) -> None:
    assert read(f"{url}/{name}") == read(f"{folder}/{name}")
    assert read(f"file://{folder}/{name}") == read(f"{folder}/{name}")


def test_what_has_not_changed_is_not_copied_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, fetched, fetch = read(f"{url}/rows/*.jsonl"), list[str](), RemoteFolder.fetch

    def noting(place: RemoteFolder, name: str, path: Path) -> bool:
        fetched.append(name)
        return fetch(place, name, path)

    monkeypatch.setattr(RemoteFolder, "fetch", noting)
    assert read(f"{url}/rows/*.jsonl") == first
    assert fetched == []
    MemoryFileSystem().pipe_file(f"/{url.partition('://')[2]}/rows/2.jsonl", b'{"text": "line 3"}\n')
    assert [text for _, text in read(f"{url}/rows/*.jsonl")[0]] == ["line 1", "line 3"]
    assert fetched == ["2.jsonl"]


def test_a_file_that_is_gone_is_read_no_more(url: str) -> None:
    read(f"{url}/texts")
    MemoryFileSystem().rm_file(f"/{url.partition('://')[2]}/texts/a.txt")
    assert [name for name, _ in read(f"{url}/texts")[0]] == ["deep/b.txt", "deep/c.md"]


@pytest.mark.parametrize("name", ["nothing", "texts/*.jsonl"])
def test_a_url_without_files_is_named(url: str, name: str) -> None:
    with pytest.raises(CorpusError, match=f"'{url}/.*' matches no file"):
        read(f"{url}/{name}")


@pytest.mark.parametrize("source", [f"sftp://me:{SECRET}@host/x", f"az://box/x.txt?sig={SECRET}"])
def test_a_source_with_credentials_is_refused(source: str) -> None:
    with pytest.raises(ValidationError, match="give credentials by the environment"):
        CorpusSettings(source=source)


@pytest.mark.slow
def test_the_corpus_of_files_in_s3_is_that_of_a_folder(
    tiny_folder: Path, merged_once: Path, home: Path, s3: S3Server
) -> None:
    s3.client().put(f"{tiny_folder / 'texts'}/", "results/corpus/texts/", recursive=True)
    settings = make_settings(tiny_folder)
    corpus = settings.corpus.model_copy(update={"source": "s3://results/corpus/texts"})
    at_url = Project(settings.model_copy(update={"corpus": corpus}), home)
    at_url.corpus()
    local = Project(settings, merged_once).plan
    assert at_url.plan.corpus.manifest == local.corpus.manifest
    for chunk, sae in itertools.product(settings.chunks, settings.saes):
        assert at_url.plan.table_fingerprint(chunk, sae) == local.table_fingerprint(chunk, sae)
