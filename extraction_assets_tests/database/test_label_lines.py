"""Labels as JSON lines: what is written is read again as it was, and what cannot be read is named by its line."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.database.label_lines import label_line, read_label_lines
from extraction_assets.database.queries.labels import MARKS, Label
from extraction_assets.engine.corpora.visible_text import visible

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
LABEL = Label("e", "s", 7, "pop() calls", "interesting", "two\nlines", NOW)


def line_of(**changes: object) -> bytes:
    """A line with some values changed; None leaves one out."""
    values = {**LABEL._asdict(), "updated_at": NOW.isoformat(), **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None}).encode()


def read_one(**changes: object) -> Label:
    return read_label_lines([line_of(**changes)], "e", NOW).labels[0].label


def refused(*lines: bytes) -> list[str]:
    return [fault.sentence for fault in read_label_lines(lines, "e", NOW).faults]


labels = st.builds(
    Label,
    st.just("e"),
    st.from_regex("[A-Za-z0-9_]{1,5}", fullmatch=True),
    st.integers(0, 2**63 - 1),
    st.text(min_size=1),
    st.sampled_from([None, *MARKS]),
    st.text(),
    st.datetimes(timezones=st.just(dt.UTC)),
)


@given(labels)
def test_what_is_written_is_read_as_it_was(label: Label) -> None:
    assert [one.label for one in read_label_lines([label_line(label).encode()], "e").labels] == [label]


@given(labels)
def test_a_line_is_one_line_that_is_safe_in_a_terminal(label: Label) -> None:
    line = label_line(label)
    assert line.isprintable()
    assert visible(line) == line


def test_characters_that_hide_though_they_are_printable_are_escaped_as_json_has_it() -> None:
    hidden = LABEL._replace(label="a\U000e0100\U000e0101\u3164")
    line = label_line(hidden)
    assert visible(line) == line
    assert json.loads(line)["label"] == hidden.label


def test_every_line_has_its_number_and_empty_ones_are_passed_over() -> None:
    line = label_line(LABEL).encode()
    other = label_line(LABEL._replace(neuron_index=8)).encode()
    assert [one.line for one in read_label_lines([b"", line, b" \r", other, b""], "e").labels] == [2, 4]


def test_a_file_of_windows_is_read() -> None:
    assert read_label_lines([b"\xef\xbb\xbf" + label_line(LABEL).encode() + b"\r"], "e").labels[0].label == LABEL


def test_the_name_may_be_left_out() -> None:
    assert read_one(name=None) == LABEL


def test_a_line_without_a_time_is_as_new_as_its_import() -> None:
    assert read_one(updated_at=None).updated_at == NOW


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    assert read_one(updated_at="2026-01-02T04:04:05.678901+01:00") == LABEL


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "other"}, "line 1: it is of extraction 'other', not of 'e'; leave out name to import it here"),
        ({"sae": None}, "line 1: sae is not there: name the SAE"),
        ({"sae": "../x"}, "line 1: SAE name '../x' may hold letters, digits and underscores only"),
        ({"neuron_index": None}, "line 1: neuron_index is not a whole number from 0 on"),
        ({"neuron_index": -1}, "line 1: neuron_index is not a whole number from 0 on"),
        ({"neuron_index": True}, "line 1: neuron_index is not a whole number from 0 on"),
        ({"neuron_index": 1.0}, "line 1: neuron_index is not a whole number from 0 on"),
        ({"neuron_index": 2**63}, "line 1: neuron_index is not a whole number from 0 on"),
        ({"label": 3}, "line 1: label is not a text"),
        ({"label": "", "mark": "", "note": ""}, "line 1: it has no label, no mark and no note"),
        ({"updated_at": "yesterday"}, "line 1: updated_at is 'yesterday', not a time with its zone such as"),
        ({"updated_at": "2026-01-02T03:04:05"}, "line 1: updated_at is '2026-01-02T03:04:05', not a time with its"),
        (
            {"lable": "x"},
            "line 1: unknown key 'lable'; known are name, sae, neuron_index, label, mark, note, updated_at",
        ),
    ],
)
def test_a_line_that_says_something_else_is_one_sentence(changes: dict[str, object], sentence: str) -> None:
    (found,) = refused(line_of(**changes))
    assert found.startswith(sentence)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"{", "line 1: it is not JSON (Expecting property name enclosed in double quotes at character 2)"),
        (b"[]", "line 1: it is not a JSON object"),
        (b"\xff", "line 1: byte 1 is not UTF-8"),
        (b"[" * 100_000, "line 1: it is nested too deeply"),
        (b'{"sae": "s", "sae": "t"}', "line 1: it has a key twice"),
        (b'{"neuron_index": ' + b"9" * 5000 + b"}", "line 1: "),
    ],
)
def test_a_line_that_is_no_json_object_is_one_sentence(line: bytes, sentence: str) -> None:
    (found,) = refused(line)
    assert found.startswith(sentence)


def test_every_bad_line_is_named() -> None:
    line = label_line(LABEL).encode()
    found = refused(b"{", line, b"[]", line)
    assert [sentence.partition(":")[0] for sentence in found] == ["line 1", "line 3", "line 4"]
    assert found[2] == "line 4: feature 7 of s is on line 2 already"
