"""The folder of an export: what it was made from, what is there already, and what is refused."""

import gc
import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from extraction_assets.exports import source as exported_source
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.folders import LocalFolder, export_folder_at
from extraction_assets.exports.formats import chosen_options, export_format, jsonl
from extraction_assets.exports.output import MANIFEST, Output
from extraction_assets.exports.write_export import export
from extraction_assets_tests.exports.test_samples import queries_of
from extraction_assets_tests.exports.written import Counted, source_of, write


class Killed(BaseException):
    """What ends an export in its midst."""


@pytest.fixture(autouse=True)
def _two_features_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "FEATURES_IN_FILE", 2)


def killed_at(monkeypatch: pytest.MonkeyPatch, feature: int) -> None:
    """Ends the next export while it writes a feature."""
    line = jsonl.feature_line

    def dying(source, one):  # type: ignore[no-untyped-def]
        if one.neuron_index == feature:
            raise Killed
        return line(source, one)

    monkeypatch.setattr(jsonl, "feature_line", dying)


def test_a_killed_export_goes_on_with_the_files_that_are_missing(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(source_of(small), "jsonl", tmp_path / "whole").folder
    folder = tmp_path / "killed"
    with monkeypatch.context() as dying, pytest.raises(Killed):
        killed_at(dying, 3)
        write(source_of(small), "jsonl", folder)
    assert sorted(path.name for path in folder.glob("batch*")) == ["batch-0.jsonl.gz"]
    first, counted = (folder / "batch-0.jsonl.gz").stat().st_mtime_ns, Counted()
    assert export(source_of(small), "jsonl", LocalFolder(folder), counted).written == 2
    assert (folder / "batch-0.jsonl.gz").stat().st_mtime_ns == first
    assert (counted.done, counted.skipped) == (4, 2)
    names = [path.name for path in sorted(whole.iterdir()) if path.name != MANIFEST]
    assert [(folder / name).read_bytes() for name in names] == [(whole / name).read_bytes() for name in names]


def test_what_a_killed_process_left_half_written_is_removed(small: sa.Connection, tmp_path: Path) -> None:
    folder = write(source_of(small), "jsonl", tmp_path / "out").folder
    half = folder / f".batch-7.jsonl.gz.{'0' * 32}.tmp"
    half.write_bytes(b"half")
    assert write(source_of(small), "jsonl", folder).written == 0
    assert not half.exists()


def test_the_manifest_says_when_an_export_is_whole(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dying, pytest.raises(Killed):
        killed_at(dying, 3)
        write(source_of(small), "jsonl", tmp_path / "out")
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["finished_at"] is None
    write(source_of(small), "jsonl", tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["finished_at"] is not None
    assert manifest["made_from"]["examples"] == "result1"


@pytest.mark.parametrize(
    ("sae", "features", "named"), [("two", None, 'sae: "one", not "two"'), ("one", [1], 'features: "all", not "1 ')]
)
def test_the_folder_of_another_export_is_refused(
    small: sa.Connection, tmp_path: Path, sae: str, features: list[int] | None, named: str
) -> None:
    write(source_of(small), "jsonl", tmp_path / "out")
    with pytest.raises(ExportError, match=named):
        write(source_of(small, sae=sae, features=features), "jsonl", tmp_path / "out")


def test_a_folder_with_something_else_is_refused_and_left_as_it_is(small: sa.Connection, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="is not empty, and holds no export"):
        write(source_of(small), "jsonl", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".txt"] == ["letter.txt"]


def test_a_file_in_place_of_the_folder_is_refused(small: sa.Connection, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ExportError, match="is a file: give a folder"):
        write(source_of(small), "jsonl", tmp_path / "out")


def test_a_damaged_manifest_is_refused(small: sa.Connection, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ExportError, match="is not the manifest of an export"):
        write(source_of(small), "jsonl", tmp_path)


def test_two_exports_into_one_folder_at_once_are_refused(small: sa.Connection, tmp_path: Path) -> None:
    with LocalFolder(tmp_path / "out").only_writer(), pytest.raises(ExportError, match="another export is writing"):
        write(source_of(small), "jsonl", tmp_path / "out")


def test_a_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    out = Output(LocalFolder(tmp_path), Counted())
    with pytest.raises(Killed), out.file("inside/one.txt") as path:
        path.write_text("half")
        raise Killed
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_chosen_features_are_written_once_each_in_their_order(small: sa.Connection, tmp_path: Path) -> None:
    counted = Counted()
    done = export(source_of(small, features=[5, 0, 5]), "jsonl", LocalFolder(tmp_path / "out"), counted)
    assert (done.features, counted.done) == (2, 2)
    assert sorted(path.name for path in (tmp_path / "out").glob("batch*")) == ["batch-0.jsonl.gz"]


def test_features_that_may_fire_on_many_tokens_are_read_a_few_at_a_time(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, queries = write(source_of(small), "jsonl", tmp_path / "whole").folder, list[str]()
    monkeypatch.setattr(exported_source, "_FIRINGS_AT_ONCE", 1)
    queries_of(small, queries)
    folder = write(source_of(small), "jsonl", tmp_path / "out").folder
    assert sum("feature_example_lists" in query for query in queries) == 6
    for path in whole.glob("batch*"):
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_a_feature_that_there_is_not_is_refused(small: sa.Connection) -> None:
    with pytest.raises(ExportError, match="no feature 6: features are numbered from 0 to 5"):
        source_of(small, features=[6])


def test_unknown_formats_and_options_are_refused() -> None:
    with pytest.raises(ExportError, match="no export format 'xml': there are jsonl"):
        export_format("xml")
    with pytest.raises(ExportError, match="the export jsonl has no option 'colour'"):
        chosen_options("jsonl", {"colour": "red"})


def test_a_url_of_a_file_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    folder = export_folder_at(f"file://{tmp_path}/out/")
    assert isinstance(folder, LocalFolder)
    assert folder.path == tmp_path / "out"


def test_an_export_that_was_refused_leaves_its_folder_to_the_next_one(small: sa.Connection, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="may be binary or files"):
        write(source_of(small), "circuit-tracer", tmp_path / "out", form="banana")
    assert write(source_of(small), "jsonl", tmp_path / "out").written == 4


def test_a_folder_that_is_refused_stays_as_it_is(small: sa.Connection, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ExportError, match="is not empty"):
        write(source_of(small), "jsonl", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(ExportError, match="a user who is not known"):
        export_folder_at("~no-such-user/out")


def test_the_garbage_collector_is_as_it_was_after_an_export(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = gc.get_threshold()
    with pytest.raises(Killed):
        killed_at(monkeypatch, 3)
        write(source_of(small), "jsonl", tmp_path / "out")
    assert gc.get_threshold() == before
