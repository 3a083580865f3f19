"""`extraction-assets clean` on real stores: it removes what nothing uses, and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from extraction_assets.settings import ExtractionSettings
from extraction_assets.upkeep import clean
from extraction_assets_tests.command import declare, invoke, succeed
from extraction_assets_tests.project import Project
from extraction_assets_tests.stores.build import HOSTILE
from extraction_assets_tests.tiny import make_settings
from extraction_assets_tests.upkeep.conftest import Age

pytestmark = pytest.mark.slow


def _tables(project: Project) -> set[str]:
    return {name for name in project.files() if "/top_k_table/" in name}


def _chunks(settings: ExtractionSettings, beside: Project) -> Project:
    """Another extraction in the same home, of which nothing is merged."""
    other = Project(settings, beside.home)
    other.corpus()
    other.chunks()
    return other


def test_nothing_is_removed_where_all_is_current(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = project.files()
    assert "nothing to remove" in succeed(declare(monkeypatch, project.settings), "clean", "--yes")
    assert project.files() == before


def test_superseded_chunks_are_listed_then_removed_and_the_current_ones_stay(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = _tables(project)
    newer = Project(make_settings(tiny_folder, top_k_examples=3), project.home).merged()
    everything = newer.files()
    module = declare(monkeypatch, newer.settings)
    listed = succeed(module, "clean", "--dry-run")
    assert newer.files() == everything
    assert "superseded" in listed
    assert _line(listed, "tiny/relu/top_k_table")[1] == "12"  # tables of three chunks with three files beside each
    size = sum(len(everything[name]) for name in old)
    output = succeed(module, "clean", "--yes")
    assert f"freed {size / 1000:.1f} kB" in output
    assert newer.files() == {name: data for name, data in everything.items() if name not in old}
    assert newer.plan.missing_chunks() == []
    assert "nothing to remove" in succeed(module, "clean", "--yes")


def _line(output: str, asset: str) -> list[str]:
    (line,) = (line for line in output.splitlines() if line.strip().startswith(asset))
    return line.split()


def test_chunks_of_another_chunk_size_are_superseded(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Project(make_settings(tiny_folder, chunk_size=12), project.home)
    other.chunks()
    succeed(declare(monkeypatch, other.settings), "clean", "--yes")
    assert {name.split("/")[-1].split("-")[0] for name in _tables(other)} == {"000000000000", "000000000012"}
    assert other.plan.missing_chunks() == []


def test_what_would_be_lost_by_going_back_is_said(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = declare(monkeypatch, make_settings(tiny_folder, top_k_examples=3))
    assert "3 of 3 chunks of tiny are not computed with the current settings yet" in succeed(
        module, "clean", "--dry-run"
    )


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_without_a_yes_nothing_is_removed(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    before = project.files()
    module = declare(monkeypatch, make_settings(tiny_folder, top_k_examples=3))
    assert "Remove them?" in invoke(module, "clean", typed=answer).output
    assert project.files() == before


def test_extractions_of_other_modules_are_named_and_left_with_their_corpora(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, age: Age
) -> None:
    other = _chunks(make_settings(tiny_folder, name="other", top_k_examples=2), project)
    Project(make_settings(tiny_folder, name="other", top_k_examples=4), project.home).chunks()
    shorter = make_settings(tiny_folder, corpus={"source": str(tiny_folder / "texts"), "max_length": 8})
    _chunks(shorter, project)
    age(project.home)
    before = other.files("other/**/*") | other.files("corpora/**/*")
    output = succeed(declare(monkeypatch, shorter), "clean", "--yes")
    assert "note: other (" in output
    assert "not declared in this module" in output
    assert other.files("other/**/*") | other.files("corpora/**/*") == before
    assert "freed" in output  # the tables of the longer samples


def test_a_corpus_that_no_pointer_names_goes_once_it_is_old(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, age: Age
) -> None:
    (first,) = (project.home / "corpora").iterdir()
    shorter = make_settings(tiny_folder, corpus={"source": str(tiny_folder / "texts"), "max_length": 8})
    _chunks(shorter, project)
    module = declare(monkeypatch, shorter)
    assert "note: corpora that no extraction uses are left (1): younger than an hour" in succeed(
        module, "clean", "--yes"
    )
    assert first.is_dir()
    age(project.home / "corpora")
    assert first.is_dir()
    assert "1 folder" in succeed(module, "clean", "--yes")
    assert not first.exists()
    assert Project(shorter, project.home).plan.missing_chunks() == []


def test_a_corpus_stays_where_a_pointer_cannot_be_read(
    project: Project, monkeypatch: pytest.MonkeyPatch, age: Age
) -> None:
    damaged = project.home / "other" / "corpus.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    (project.home / "tiny" / "corpus.json").unlink()
    age(project.home)
    before = project.files()
    assert "all corpora are left" in succeed(declare(monkeypatch, project.settings), "clean", "--yes")
    assert project.files() == before


def test_files_of_a_removed_sae_go_and_its_rows_are_named(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes = project.settings.model_dump()["saes"]
    fewer = make_settings(tiny_folder, saes={"relu": saes["relu"]})
    kept = {name: data for name, data in project.files().items() if "/topk/" not in name}
    output = succeed(declare(monkeypatch, fewer), "clean", "--yes")
    assert "of SAEs that are no longer declared" in output
    assert "delete tiny --sae topk removes them" in output
    # activations at both hooks are of other settings than activations at one
    assert project.files() == {name: data for name, data in kept.items() if "model_activations" not in name}
    assert not (project.home / "tiny" / "topk").exists()
    assert project.rows("SELECT count(*) FROM extractions") == [(2,)]


def test_chunk_files_stay_where_the_corpus_is_not_current(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = make_settings(tiny_folder, evaluation_samples=30)
    before = project.files()
    output = succeed(declare(monkeypatch, longer), "clean", "--yes")
    assert "chunk files of tiny are left, it is not known which are current" in output
    assert project.files() == before


_WRITER = """
import sys
from pathlib import Path
from extraction_assets.stores.sealed import durable_path
with durable_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"x" * 1000)
    print(temporary, flush=True)
    sys.stdin.read()
"""


def test_a_temporary_goes_only_once_its_writer_is_dead_and_it_is_old(
    project: Project, monkeypatch: pytest.MonkeyPatch, age: Age
) -> None:
    module = declare(monkeypatch, project.settings)
    target = project.home / "tiny" / "relu" / "top_k_table" / "000000000000-0.parquet"
    command = [sys.executable, "-c", _WRITER, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        temporary = Path(writer.stdout.readline().strip())
        age(temporary)
        living = succeed(module, "clean", "--yes")
        assert "1 temporary in tiny/relu/top_k_table left: in a folder that a process is writing to" in living
        assert temporary.is_file()
        writer.send_signal(signal.SIGKILL)
    temporary.touch()
    assert "left: younger than an hour" in succeed(module, "clean", "--yes")
    assert temporary.is_file()
    age(temporary)
    assert "freed 1.0 kB" in succeed(module, "clean", "--yes")
    assert not temporary.exists()


@pytest.mark.parametrize(
    "path",
    [
        "tiny/model_activations/.tmpAb3dE9",  # safetensors' own
        "tiny/.corpus.json.0123456789abcdef0123456789abcdef.tmp",
        "tiny/gone/sae_features/.x.safetensors.0123456789abcdef0123456789abcdef.tmp",
        "corpora/.0123456789abcdef0123456789abcdef.tmp/token_ids.npy",
        "tiny/relu/top_k_table/{table}.0123456789ab.statistics.safetensors",  # its table came from another process
        "tiny/relu/top_k_table/{table}.0123456789ab.draws.pq",
        "tiny/relu/top_k_table/{table}.0123456789ab.sampled.safetensors",
    ],
)
def test_every_kind_of_leftover_goes_once_it_is_old(
    project: Project, monkeypatch: pytest.MonkeyPatch, age: Age, path: str
) -> None:
    before = project.files()
    table = project.plan.chunk_path("top_k_table", project.settings.chunk("000000000008"), "relu").stem
    left = project.home / path.format(table=table)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half")
    module = declare(monkeypatch, project.settings)
    succeed(module, "clean", "--yes")
    assert left.exists()
    age(left, left.parent)
    assert "freed 4 bytes" in succeed(module, "clean", "--yes")
    assert project.files() == before


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "links in a circle", "a link to a folder"])
@pytest.mark.parametrize("folder", ["corpora", "tiny/relu/top_k_table"])
def test_what_was_set_aside_goes_whatever_it_is(
    project: Project, monkeypatch: pytest.MonkeyPatch, kind: str, folder: str
) -> None:
    before = project.files()
    left = project.home / folder / ".x.0123456789abcdef0123456789abcdef.damaged"
    HOSTILE[kind](left)
    left.with_name("other").unlink(missing_ok=True)
    monkeypatch.setattr(clean, "is_old", lambda *_: True)
    assert "freed" in succeed(declare(monkeypatch, project.settings), "clean", "--yes")
    assert not os.path.lexists(left)
    assert project.files() == before


def test_files_that_are_not_ours_stay(project: Project, monkeypatch: pytest.MonkeyPatch, age: Age) -> None:
    for name in (
        "tiny/notes.txt",
        "tiny/relu/top_k_table/mine.parquet",
        "tiny/relu/top_k_table/.hidden",
        "corpora/x/y",
    ):
        (project.home / name).parent.mkdir(exist_ok=True)
        (project.home / name).write_text("mine")
    age(project.home)
    before = project.files()
    succeed(declare(monkeypatch, project.settings), "clean", "--yes")
    assert project.files() == before


def test_a_name_limits_the_cleaning_to_one_extraction(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _chunks(make_settings(tiny_folder, name="other"), project)
    changed = [make_settings(tiny_folder, name=name, top_k_examples=3) for name in ("tiny", "other")]
    module = declare(monkeypatch, *changed)
    succeed(module, "clean", "other", "--yes")
    assert len(_tables(project)) == 24  # those of tiny
    assert "no extraction 'gone' is declared (only other, tiny)" in invoke(module, "clean", "gone").output


# ------------------------------------------------------------------------------------------------------------- keep


def _keeping(tiny_folder: Path, **changes: Any) -> Any:
    return make_settings(tiny_folder, keep={"model_activations": False, "sae_features": False}, **changes)


def test_keep_has_no_part_in_any_fingerprint(project: Project, tiny_folder: Path) -> None:
    other = Project(_keeping(tiny_folder), project.home)
    for asset, sae in (("model_activations", None), ("sae_features", "relu"), ("top_k_table", "topk")):
        assert other.plan.chunk_path(asset, other.settings.chunk("000000000008"), sae) == project.plan.chunk_path(
            asset, project.settings.chunk("000000000008"), sae
        )
    assert other.plan.merge_fingerprint("relu") == project.plan.merge_fingerprint("relu")


def test_tables_cannot_be_given_up(tiny_folder: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"keep\.top_k_table cannot be false: without its table a chunk counts as"
    ):
        make_settings(tiny_folder, keep={"top_k_table": False})


def test_what_is_not_to_be_kept_goes_once_it_is_merged(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = declare(monkeypatch, _keeping(tiny_folder))
    assert "not to be kept, and merged" in succeed(module, "clean", "--yes")
    assert not any("/model_activations/" in name or "/sae_features/" in name for name in project.files())
    assert len(_tables(project)) == 24
    status = succeed(module, "status", "tiny")
    assert "not kept" in _line_text(status, "model_activations")
    assert "stale" not in _line_text(status, "relu/feature_examples")
    written = {path: path.stat().st_mtime_ns for path in (project.home / "tiny").rglob("*-*")}
    succeed(module, "run", "tiny", "--missing")  # records what this instance did not see, and computes nothing
    assert {path: path.stat().st_mtime_ns for path in (project.home / "tiny").rglob("*-*")} == written
    assert "0 chunks, 0 merges" in succeed(module, "run", "tiny", "--missing")


def _line_text(output: str, start: str) -> str:
    (line,) = (line for line in output.splitlines() if line.startswith(start))
    return line


def test_what_is_not_to_be_kept_stays_until_the_current_settings_are_merged(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = Project(_keeping(tiny_folder, top_k_examples=3), project.home)
    newer.chunks()
    newer.merge("relu")
    module = declare(monkeypatch, newer.settings)
    output = succeed(module, "clean", "--yes")
    assert "tiny/topk/sae_features is kept until the current chunks are merged" in output
    left = {name.rsplit("/", 1)[0] for name in newer.files() if name.startswith("tiny/")}
    # the features of relu went; activations stay as long as one SAE that reads them is not merged
    assert left == {
        "tiny",
        "tiny/model_activations",
        "tiny/relu/feature_report",
        "tiny/topk/feature_report",
        "tiny/relu/top_k_table",
        "tiny/topk/sae_features",
        "tiny/topk/top_k_table",
    }


def test_missing_writes_nothing_that_is_not_to_be_kept_and_gives_the_same_rows(
    project: Project, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = declare(monkeypatch, _keeping(tiny_folder))
    succeed(module, "clean", "--yes")
    smaller = _keeping(tiny_folder, top_k_examples=3)
    declare(monkeypatch, smaller)
    succeed(module, "run", "tiny", "--missing")
    assert not any("/model_activations/" in name or "/sae_features/" in name for name in project.files())
    query = (
        "SELECT sae, neuron_index, rank, sample_index, max_activation, positions FROM feature_activations "
        "JOIN extractions ON id = extraction_id ORDER BY 1, 2, 3"
    )
    whole = Project(make_settings(tiny_folder, top_k_examples=3), tmp_path / "whole").merged()
    assert project.rows(query) == whole.rows(query)
