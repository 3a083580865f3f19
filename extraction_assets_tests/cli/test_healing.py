"""`run NAME --missing` makes again what is damaged and says so; `status` and `check` name it."""

import os
import shutil
from pathlib import Path

import pytest

from extraction_assets.execution.damage import find_damaged, put_aside
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.corpus_files import MANIFEST
from extraction_assets_tests.command import declare, invoke, succeed
from extraction_assets_tests.project import Project
from extraction_assets_tests.stores.build import HOSTILE, as_of_an_earlier_version
from extraction_assets_tests.tiny import make_settings


def _flip(path: Path) -> None:
    data = path.read_bytes()
    middle = len(data) * 2 // 3
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


_IN_A_FILES_PLACE = {**HOSTILE, "a link to nothing": lambda path: path.symlink_to(path.parent / "nowhere")}


_PATTERNS = [
    "model_activations/000000000008-*",
    "relu/sae_features/000000000008-*",
    "relu/top_k_table/000000000008-*.parquet",
    "relu/top_k_table/000000000008-*.statistics.safetensors",
    "relu/top_k_table/000000000008-*.draws.pq",
    "relu/top_k_table/000000000008-*.sampled.safetensors",
]
_KINDS = ["a folder", "a named pipe", "links in a circle", "a device", "a link to nothing"]
_GONE = [(pattern, "a link to nothing") for pattern in _PATTERNS[3:]]
"""As if the file beside a table were not there: the table counts as missing, not as damaged."""
_FOUND = [(pattern, kind) for pattern in _PATTERNS for kind in _KINDS if (pattern, kind) not in _GONE]


def _replace(project: Project, pattern: str, kind: str) -> Path:
    """Puts something else in the place of a chunk file; the file's path."""
    (victim,) = (project.home / "tiny").glob(pattern)
    victim.unlink()
    _IN_A_FILES_PLACE[kind](victim)
    return victim


@pytest.fixture
def project(completed: Project) -> Project:
    return completed


@pytest.fixture
def module(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    return declare(monkeypatch, project.settings)


def _whole(project: Project) -> dict[str, bytes]:
    """Every file but those that were set aside."""
    return {name: content for name, content in project.files().items() if "/." not in name}


def _heal(project: Project, module: str, before: dict[str, bytes]) -> str:
    output = succeed(module, "run", "tiny", "--missing")
    after = _whole(project)
    assert after.keys() == before.keys()
    # Features that are made from stored activations say so, and a report says when its merge was.
    changed = {name for name in after if after[name] != before[name]}
    assert not [name for name in changed if "sae_features" not in name and "report" not in name]
    assert find_damaged(project.plan, whole=True) == []
    return output


@pytest.mark.parametrize("pattern", _PATTERNS)
def test_a_damaged_chunk_file_is_computed_again(project: Project, module: str, pattern: str) -> None:
    before = _whole(project)
    (victim,) = (project.home / "tiny").glob(pattern)
    _flip(victim)
    output = _heal(project, module, before)
    assert f"{victim} is damaged: " in output
    assert "it was set aside" in output
    assert "1 chunk, 0 merges" in output


@pytest.mark.parametrize("pattern", _PATTERNS)
def test_whatever_lies_in_the_place_of_a_chunk_file_is_named_and_set_aside(
    project: Project, module: str, tmp_path: Path, pattern: str
) -> None:
    folder, whole = project.home / "tiny", tmp_path / "whole"
    folder.rename(whole)
    for kind in [kind for found, kind in _FOUND if found == pattern]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        victim = _replace(project, pattern, kind)
        status = succeed(module, "status", "tiny")
        assert victim.name in status, kind
        assert "`run tiny --missing` computes its chunk again" in status, kind
        (found,) = find_damaged(project.plan, whole=True)
        assert found.key == "000000000008", kind
        assert f"{victim} is damaged: " in put_aside(found.error, project.plan), kind
        (victim.parent / "other").unlink(missing_ok=True)
        assert find_damaged(project.plan, whole=True) == [], kind
    assert " is damaged: " not in succeed(module, "status", "tiny")


@pytest.mark.parametrize(("pattern", "kind"), [*zip([*_PATTERNS[:3], _PATTERNS[0]], _KINDS, strict=False), *_GONE])
def test_whatever_lies_in_the_place_of_a_chunk_file_is_replaced(
    project: Project, module: str, pattern: str, kind: str
) -> None:
    before = _whole(project)
    victim = _replace(project, pattern, kind)
    succeed(module, "run", "tiny", "--missing")
    (victim.parent / "other").unlink(missing_ok=True)
    assert _whole(project).keys() == before.keys()
    assert find_damaged(project.plan, whole=True) == []
    assert " is damaged: " not in succeed(module, "status", "tiny")


def test_what_an_interrupted_run_has_set_aside_is_written_by_the_next(project: Project, module: str) -> None:
    before = _whole(project)
    (victim,) = (project.home / "tiny").glob("model_activations/000000000008-*")
    victim.write_bytes(b"")
    (found,) = find_damaged(project.plan, whole=True)
    put_aside(found.error, project.plan)  # and then the run fails
    assert "1 chunk, 0 merges" in succeed(module, "run", "tiny", "--missing")
    assert _whole(project).keys() == before.keys()
    assert "0 chunks, 0 merges" in succeed(module, "run", "tiny", "--missing")


@pytest.mark.parametrize("name", ["corpus.json", MANIFEST, "token_ids.npy", "document_ids.json"])
def test_a_damaged_corpus_is_tokenized_again_and_no_chunk_computed(project: Project, module: str, name: str) -> None:
    before = _whole(project)
    (victim,) = (path for path in project.home.rglob(name))
    _flip(victim)
    output = _heal(project, module, before)
    assert f"the corpus is tokenized again: {victim} is damaged: " in output
    assert "0 chunks, 0 merges" in output


@pytest.mark.parametrize(
    "kind", ["a list", "nested deeply", "not UTF-8", "a folder", "a named pipe", "links in a circle"]
)
def test_whatever_lies_in_the_place_of_a_pointer_is_named_and_replaced(
    project: Project, module: str, kind: str
) -> None:
    before = _whole(project)
    victim = project.home / "tiny" / "corpus.json"
    victim.unlink()
    HOSTILE[kind](victim)
    output = invoke(module, "status", "tiny").output
    assert f"{victim} is damaged: " in output
    assert "Traceback" not in output
    succeed(module, "run", "tiny", "--missing")
    (project.home / "tiny" / "other").unlink(missing_ok=True)
    assert {name: one for name, one in _whole(project).items() if "corpus.json" in name} == {
        name: one for name, one in before.items() if "corpus.json" in name
    }


def _report(project: Project) -> Path:
    """The report of a result whose features' relations are there, as a command leaves it."""
    (path,) = project.home.glob("tiny/relu/feature_report/*.html")
    return path


def test_a_damaged_report_is_written_again_without_a_merge(project: Project, module: str) -> None:
    victim = _report(project)
    before = victim.read_bytes()
    _flip(victim)
    output = succeed(module, "run", "tiny", "--missing")
    assert f"{victim} is damaged: " in output
    assert "0 chunks, 0 merges" in output
    assert victim.read_bytes() == before
    assert " is damaged: " not in succeed(module, "run", "tiny", "--missing")


def test_a_report_of_an_earlier_version_gets_its_checksum(project: Project, module: str) -> None:
    victim = _report(project)
    before = victim.read_bytes()
    victim.write_bytes(before.partition(b"\n")[2])
    succeed(module, "run", "tiny", "--missing")
    assert victim.read_bytes() == before


def test_relations_of_samples_are_counted_of_the_whole_corpus_once_its_features_are_stored(
    recorded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, module = recorded, declare(monkeypatch, recorded.settings)  # without relations so far
    features, away = project.home / "tiny/relu/sae_features", project.home / "away"
    features.rename(away)
    succeed(module, "run", "tiny", "--missing")
    scopes = "SELECT scope FROM relations r JOIN extractions e ON e.id = r.extraction_id WHERE sae = 'relu'"
    assert project.rows(scopes) == [("sample",)]
    away.rename(features)
    output = succeed(module, "run", "tiny", "--missing")
    assert "the relations of relu are counted again: the SAE features of the whole corpus are stored now" in output
    assert project.rows(scopes) == [("corpus",)]
    assert "relations of" not in succeed(module, "run", "tiny", "--missing")


def test_a_report_that_was_written_before_its_relations_is_written_again(project: Project, module: str) -> None:
    victim = _report(project)
    with_relations = victim.read_bytes()
    victim.write_bytes(b"without their flags")
    os.utime(victim, (0, 0))
    assert f"{victim} was written before the relations of relu" in succeed(module, "run", "tiny", "--missing")
    assert victim.read_bytes() == with_relations
    assert "was written before" not in succeed(module, "run", "tiny", "--missing")


@pytest.mark.parametrize(("samples", "missing"), [(23, "all 3 chunks are missing"), (8, "the only chunk is missing")])
def test_status_of_what_was_never_run_counts_its_chunks(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, home: Path, samples: int, missing: str
) -> None:
    module = declare(monkeypatch, make_settings(tiny_folder, evaluation_samples=samples))
    assert missing in succeed(module, "status", "tiny")


def test_status_names_a_file_that_is_cut(project: Project, module: str) -> None:
    (victim,) = (project.home / "tiny").glob("relu/sae_features/000000000008-*")
    _cut(victim)
    assert f"{victim} is damaged: " in succeed(module, "status", "tiny")


def test_check_names_a_damaged_corpus_and_goes_on(project: Project, module: str) -> None:
    victim = project.home / "tiny" / "corpus.json"
    _flip(victim)
    output = " ".join(invoke(module, "check", "tiny").output.split())
    assert f"{victim} is damaged: " in output
    assert "of one batch of the source" in output


def test_a_corpus_of_an_earlier_version_is_kept_and_gets_its_checksums(project: Project, module: str) -> None:
    before = _whole(project)
    as_of_an_earlier_version(ChunkStore(project.home))
    assert _whole(project) != before
    assert "corpus: 23 samples" in succeed(module, "status", "tiny")
    assert "0 chunks, 0 merges" in succeed(module, "run", "tiny", "--missing")
    assert _whole(project) == before


def test_a_damaged_pointer_keeps_no_extraction_from_being_deleted(project: Project, module: str) -> None:
    _flip(project.home / "tiny" / "corpus.json")
    output = succeed(module, "delete", "tiny", "--yes")
    assert "note: all corpora stay: " in output
    assert not (project.home / "tiny").exists()
    assert list((project.home / "corpora").iterdir())


def test_a_run_without_missing_replaces_what_is_damaged(project: Project, module: str) -> None:
    before = _whole(project)
    for path in [*project.home.glob("tiny/**/*-*"), *project.home.glob("corpora/*/*")]:
        _flip(path)
    succeed(module, "run", "tiny")
    after = _whole(project)
    assert [name for name in before if after[name] != before[name] and "report" not in name] == []
