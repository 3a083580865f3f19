"""What `status` and the start of `run` say after the samples or the chunks were changed."""

from pathlib import Path
from typing import Any

import pytest

from extraction_assets.planning.changes import changes_on_disk
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.command import declare, invoke, succeed
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

HELD = "chunks on disk hold 8 samples"


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({}, []),
        ({"top_k_examples": 3}, []),
        (
            {"evaluation_samples": 40},
            [
                "evaluation_samples was 23 and is now 40: 2 chunks are new, and chunk 000000000016, which held 7 "
                "samples and now holds 8, is computed again"
            ],
        ),
        (
            {"evaluation_samples": 24},
            [
                "evaluation_samples was 23 and is now 24: chunk 000000000016, which held 7 samples and now holds 8, is "
                "computed again"
            ],
        ),
        ({"evaluation_samples": 16}, ["evaluation_samples was 23 and is now 16: no chunk is computed again"]),
        ({"chunk_size": 4}, [f"chunk_size is now 4 and {HELD}: all 6 chunks are computed again"]),
        (
            {"chunk_size": 12},
            [f"chunk_size is now 12 and {HELD}: all 2 chunks are computed again"],
        ),
        (
            {"chunk_size": 30},
            [f"chunk_size is now 30 and {HELD}: the only chunk is computed again"],
        ),
        (
            {"chunk_size": 10, "evaluation_samples": 30},
            [
                "evaluation_samples was 23 and is now 30",
                f"chunk_size is now 10 and {HELD}: all 3 chunks are computed again",
            ],
        ),
        ({"start_sample": 2}, ["which of the chunks on disk are still current is known once the corpus is there"]),
    ],
    ids=str,
)
def test_settings_against_three_chunks_on_disk(
    project: Project, tiny_folder: Path, changes: dict[str, Any], sentences: list[str]
) -> None:
    assert changes_on_disk(make_settings(tiny_folder, **changes), ChunkStore(project.home)) == sentences


def test_what_is_said_is_what_is_missing_once_the_corpus_is_there(project: Project, tiny_folder: Path) -> None:
    longer = Project(make_settings(tiny_folder, evaluation_samples=40), project.home)
    longer.corpus()
    assert longer.plan.missing_chunks() == ["000000000016", "000000000024", "000000000032"]
    smaller = Project(make_settings(tiny_folder, chunk_size=4), project.home)
    smaller.corpus()
    assert len(smaller.plan.missing_chunks()) == 6


@pytest.mark.slow
def test_few_samples_in_one_short_chunk_may_grow(tiny_folder: Path, home: Path) -> None:
    project = Project(make_settings(tiny_folder, evaluation_samples=5), home)
    project.corpus()
    project.chunks()
    (sentence,) = changes_on_disk(make_settings(tiny_folder), ChunkStore(home))
    assert sentence == (
        "evaluation_samples was 5 and is now 23: 2 chunks are new, and chunk 000000000000, which held 5 samples and "
        "now holds 8, is computed again"
    )
    assert changes_on_disk(make_settings(tiny_folder, evaluation_samples=3), ChunkStore(home)) == [
        "evaluation_samples was 5 and is now 3: chunk 000000000000, which held 5 samples and now holds 3, is computed "
        "again"
    ]


def test_a_change_of_chunk_size_that_was_begun_is_one_sentence(project: Project, tiny_folder: Path) -> None:
    smaller = Project(make_settings(tiny_folder, chunk_size=4), project.home)
    smaller.chunks(0, 1)
    (sentence,) = changes_on_disk(smaller.settings, ChunkStore(project.home))
    assert sentence == "2 chunks, which held other numbers of samples, are computed again"


def test_one_table_says_the_size_of_a_chunk_and_the_next_where_the_first_cannot(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 SAEs of 10,000 chunks have 120,000 tables."""
    store, read = ChunkStore(project.home), list[str]()
    look = store.record

    def noted(path: Path) -> dict[str, Any]:
        read.append(f"{path.parent.parent.name} {path.name[:12]}")
        return look(path)

    monkeypatch.setattr(store, "record", noted)
    keys = project.settings.chunk_keys
    assert changes_on_disk(project.settings, store) == []
    assert read == [f"relu {key}" for key in keys]
    read.clear()
    project.plan.chunk_path("top_k_table", project.settings.chunk(keys[1]), "relu").write_bytes(b"cut")
    assert changes_on_disk(make_settings(tiny_folder, evaluation_samples=24), store) != []
    assert read == [f"relu {keys[0]}", *(f"{sae} {key}" for key in keys[1:] for sae in ("relu", "topk"))]


@pytest.mark.slow
def test_a_chunk_that_was_never_computed_is_no_change(tokenized: Project, home: Path) -> None:
    assert changes_on_disk(tokenized.settings, ChunkStore(home)) == []
    tokenized.chunks(0, 1)
    assert changes_on_disk(tokenized.settings, ChunkStore(home)) == []


def test_status_says_it_instead_of_calling_all_chunks_missing(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = succeed(declare(monkeypatch, make_settings(tiny_folder, evaluation_samples=40)), "status", "tiny")
    assert (
        "materialize tiny/corpus again, or `extraction-assets --module tiny_definitions run tiny --missing`" in output
    )
    assert "evaluation_samples was 23 and is now 40: 2 chunks are new" in output
    assert "all 5 chunks are missing" not in output
    assert output.count("UTC, from an earlier corpus") == 2


def test_run_says_it_before_the_corpus_runs(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = declare(monkeypatch, make_settings(tiny_folder, evaluation_samples=40))
    result = invoke(module, "run", "tiny", "--missing")
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[0].startswith("evaluation_samples was 23 and is now 40: 2 chunks are new, and chunk 000000000016")
    assert lines[1] == "corpus of tiny"
    assert result.exit_code == 0
    declare(monkeypatch, make_settings(tiny_folder, evaluation_samples=40, chunk_size=20))
    errors = invoke(module, "run", "tiny").stderr
    assert "chunk_size is now 20 and chunks on disk hold 8 samples: all 2 chunks are computed again" in errors
    assert "--missing computes only those that are not current" in errors
