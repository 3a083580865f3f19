"""Labels in the database: one transaction, beside merges, and out of their reach."""

import datetime as dt
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from extraction_assets.database.backends import sqlite
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.label_lines import BadLinesError, LabelLines, NumberedFault, NumberedLabel
from extraction_assets.database.labels import (
    Imported,
    LabelError,
    import_explanations,
    import_labels,
    label_transaction,
    save_label,
)
from extraction_assets.database.queries.labels import (
    LONGEST_LABEL,
    LONGEST_NOTE,
    Label,
    find_label,
    label_counts,
    labels_of,
    labels_select,
    list_labels,
    mark_counts_select,
)
from extraction_assets.database.writing.remove import delete_results
from extraction_assets_tests.database.plans import assert_uses_index
from extraction_assets_tests.database.synthetic import make_results

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
NAME = "made-up"  # as the synthetic results are called


@pytest.fixture
def engine(results_url: str) -> Iterator[sa.Engine]:
    """A database with results of 10 features."""
    engine = open_database(results_url)
    with write_transaction(engine) as connection:
        make_results("first", 1.0, num_features=10, top_k=3).load(connection)
    yield engine
    engine.dispose()


def save(engine: sa.Engine, neuron_index: int = 7, label: str = "pop() calls", **changes: str | None) -> Label | None:
    with label_transaction(engine) as connection:
        return save_label(connection, NAME, "sae", neuron_index, label=label, now=NOW, **changes)  # type: ignore[arg-type]


def stored(engine: sa.Engine) -> list[Label]:
    with engine.connect() as connection:
        return list_labels(connection, NAME)


def read(engine: sa.Engine, *labels: Label) -> Imported:
    with label_transaction(engine) as connection:
        lines = [NumberedLabel(line, one) for line, one in enumerate(labels, 1)]
        return import_labels(connection, NAME, LabelLines(lines, []))


def explain(engine: sa.Engine, *labels: Label, replace: bool = False) -> Imported:
    with label_transaction(engine) as connection:
        lines = [NumberedLabel(line, one, "f") for line, one in enumerate(labels, 1)]
        return import_explanations(connection, NAME, LabelLines(lines, []), replace=replace)


def label(neuron_index: int, text: str = "x", mark: str | None = None, *, minutes: int = 0, sae: str = "sae") -> Label:
    return Label(NAME, sae, neuron_index, text, mark, "", NOW + dt.timedelta(minutes=minutes))


def test_a_label_is_read_as_it_was_written(engine: sa.Engine) -> None:
    written = save(engine, note="two\nlines, ünïcödé 😀", mark="dead end")
    with engine.connect() as connection:
        assert find_label(connection, NAME, "sae", 7) == written
    assert written == Label(NAME, "sae", 7, "pop() calls", "dead end", "two\nlines, ünïcödé 😀", NOW)


def test_a_second_label_takes_the_place_of_the_first(engine: sa.Engine) -> None:
    save(engine, label="first", note="gone")
    save(engine, label="second")
    assert [(one.label, one.note) for one in stored(engine)] == [("second", "")]


def test_nothing_at_all_removes_a_label(engine: sa.Engine) -> None:
    save(engine)
    assert save(engine, label="") is None
    assert stored(engine) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mark": "nice"}, "mark is 'nice', not one of interesting, polysemantic, dead end"),
        ({"label": "x" * (LONGEST_LABEL + 1)}, "the label has 201 characters, and at most 200 are stored"),
        ({"note": "x" * (LONGEST_NOTE + 1)}, "the note has 10,001 characters, and at most 10,000 are stored"),
        ({"label": "a\0b"}, "the label holds a character that no text in the database holds"),
        ({"note": "\ud800"}, "the note holds a character that no text in the database holds"),
        ({"label": "a\nb"}, "the label has more than one line: write the rest as its note"),
    ],
)
def test_a_label_that_cannot_be_stored_is_one_sentence(engine: sa.Engine, changes: dict[str, str], why: str) -> None:
    with pytest.raises(LabelError, match=why):
        save(engine, **changes)
    assert stored(engine) == []


def test_a_feature_that_there_is_not_has_no_label(engine: sa.Engine) -> None:
    with pytest.raises(LabelError, match=f"no feature 10 in {NAME}/sae: features are numbered from 0 to 9"):
        save(engine, 10)


def test_an_sae_without_results_has_no_label(engine: sa.Engine) -> None:
    with (
        pytest.raises(LabelError, match=f"there are no results of {NAME}/other"),
        label_transaction(engine) as connection,
    ):
        save_label(connection, NAME, "other", 1, label="x")


def test_a_new_merge_leaves_labels_as_they_are(engine: sa.Engine) -> None:
    written = save(engine)
    with write_transaction(engine) as connection:
        make_results("second", 2.0, num_features=12, top_k=2).load(connection)
    assert stored(engine) == [written]


def test_deleting_results_leaves_labels_as_they_are(engine: sa.Engine) -> None:
    written = save(engine)
    with write_transaction(engine) as connection:
        delete_results(connection, NAME)
    assert stored(engine) == [written]


def test_a_label_beside_a_running_merge_is_stored(engine: sa.Engine) -> None:
    """On SQLite and in a Parquet folder it waits for the merge, on PostgreSQL it does not."""
    merging, done = threading.Event(), threading.Event()

    def merge() -> None:
        with write_transaction(engine) as connection:
            make_results("second", 2.0, num_features=10, top_k=3).load(connection)
            merging.set()
            done.wait(timeout=1.0)

    thread = threading.Thread(target=merge)
    thread.start()
    assert merging.wait(timeout=60)
    started = time.monotonic()
    written = save(engine)
    waited = time.monotonic() - started
    done.set()
    thread.join()
    assert stored(engine) == [written]
    assert (waited > 0.5) == (engine.dialect.name != "postgresql")


def test_a_merge_that_outlasts_the_time_out_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    engine = open_database(f"sqlite:///{tmp_path / 'results.sqlite'}")
    with (
        write_transaction(engine),
        pytest.raises(DatabaseError, match="another program has been writing to it"),
        label_transaction(engine),
    ):
        pytest.fail("it did not wait")
    engine.dispose()


def test_labels_at_once_for_one_feature_leave_one_of_them(engine: sa.Engine) -> None:
    threads = [threading.Thread(target=save, args=(engine, 7, f"number {number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (left,) = stored(engine)
    assert left.label.startswith("number ")


def test_an_import_adds_what_is_new(engine: sa.Engine) -> None:
    assert read(engine, label(1), label(2)) == Imported(2, 0, 0, 0, {})
    assert [one.neuron_index for one in stored(engine)] == [1, 2]


def test_the_newer_of_two_labels_stays(engine: sa.Engine) -> None:
    read(engine, label(1, "old"), label(2, "new", minutes=9))
    assert read(engine, label(1, "newer", minutes=1), label(2, "older", minutes=8)) == Imported(0, 1, 1, 0, {})
    assert [one.label for one in stored(engine)] == ["newer", "new"]


def test_of_two_labels_of_one_moment_that_of_the_file_stays(engine: sa.Engine) -> None:
    read(engine, label(1, "here"))
    assert read(engine, label(1, "in the file")) == Imported(0, 1, 0, 0, {})
    assert [one.label for one in stored(engine)] == ["in the file"]


def test_an_import_of_what_is_there_changes_nothing(engine: sa.Engine) -> None:
    read(engine, label(1), label(2))
    assert read(engine, label(1), label(2)) == Imported(0, 0, 0, 2, {})


def test_a_bad_line_is_named_and_nothing_of_the_file_is_imported(engine: sa.Engine) -> None:
    with pytest.raises(BadLinesError) as caught:
        read(engine, label(1), label(10), label(2, mark="nice"), label(3))
    assert caught.value.sentences == [
        f"line 2: no feature 10 in {NAME}/sae: features are numbered from 0 to 9",
        "line 3: mark is 'nice', not one of interesting, polysemantic, dead end",
    ]
    assert stored(engine) == []


def test_lines_that_cannot_be_read_and_features_that_there_are_not_come_in_one_error(engine: sa.Engine) -> None:
    lines = LabelLines([NumberedLabel(1, label(10)), NumberedLabel(3, label(11))], [NumberedFault(2, "no label")])
    for import_lines in (import_labels, import_explanations):
        with write_transaction(engine) as connection, pytest.raises(BadLinesError) as caught:
            import_lines(connection, NAME, lines)
        assert [one.split(":")[0] for one in caught.value.sentences] == ["line 1", "line 2", "line 3"]


def test_labels_of_an_sae_that_is_not_merged_yet_are_kept_for_it(engine: sa.Engine) -> None:
    assert read(engine, label(10**9, sae="later")) == Imported(1, 0, 0, 0, {"later": 1})
    assert stored(engine) == [label(10**9, sae="later")]


def test_an_explanation_is_for_a_feature_without_a_label(engine: sa.Engine) -> None:
    save(engine, 1, "mine")
    assert explain(engine, label(1, "newer", minutes=9), label(2, "theirs")) == Imported(1, 0, 1, 0, {})
    assert [one.label for one in stored(engine)] == ["mine", "theirs"]


def test_an_explanation_leaves_mark_and_note(engine: sa.Engine) -> None:
    save(engine, 1, "", mark="dead end", note="mine")
    explain(engine, label(1, "theirs", minutes=-9)._replace(note="by a model"))
    (found,) = stored(engine)
    assert (found.label, found.mark, found.note) == ("theirs", "dead end", "mine\nby a model")


def test_an_explanation_replaces_a_label_where_that_is_asked_for(engine: sa.Engine) -> None:
    save(engine, 1, "mine", mark="dead end", note="mine")
    assert explain(engine, label(1, "older", minutes=-9), replace=True) == Imported(0, 1, 0, 0, {})
    (found,) = stored(engine)
    assert (found.label, found.mark, found.note) == ("older", "dead end", "")


def test_explanations_that_are_imported_again_change_nothing(engine: sa.Engine) -> None:
    explain(engine, label(1))
    assert explain(engine, label(1, minutes=1)) == Imported(0, 0, 0, 1, {})


def test_an_explanation_of_a_feature_that_there_is_not_is_named_with_its_file(engine: sa.Engine) -> None:
    with pytest.raises(BadLinesError, match="f, line 1: no feature 10"):
        explain(engine, label(10))


def test_labels_come_by_sae_and_feature(engine: sa.Engine) -> None:
    read(engine, label(3, sae="z"), label(9), label(1))
    assert [(one.sae, one.neuron_index) for one in stored(engine)] == [("sae", 1), ("sae", 9), ("z", 3)]


def test_labels_of_some_features_come_by_their_number(engine: sa.Engine) -> None:
    read(engine, label(1), label(2), label(3))
    with engine.connect() as connection:
        assert labels_of(connection, NAME, "sae", [3, 4, 1]) == {1: label(1), 3: label(3)}


def test_marks_are_counted(engine: sa.Engine) -> None:
    read(engine, label(1), label(2, mark="dead end"), label(3, mark="dead end"), label(4, sae="z", mark="interesting"))
    with engine.connect() as connection:
        counts = label_counts(connection, NAME, "sae")
    assert counts.labelled == 3
    assert counts.marks == {"interesting": 0, "polysemantic": 0, "dead end": 2}


@pytest.mark.parametrize(
    "select",
    [
        labels_select(NAME),
        labels_select(NAME, "sae", [1, 2]),
        mark_counts_select(NAME, "sae"),
    ],
)
def test_labels_are_found_by_their_key(engine: sa.Engine, select: sa.Select[tuple[object, ...]]) -> None:
    read(engine, label(1), label(2))
    with engine.connect() as connection:
        assert_uses_index(connection, select, "feature_labels")
