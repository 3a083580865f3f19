"""Columns from many texts at once: what ``json.loads`` and NumPy give of each."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.exports.formats.shared.json_lists import DamagedListError, example_lists, string_lists

TOKENS = st.one_of(st.sampled_from(["", '"', "\\", '\\"', "[1,2]", "\\u0022", " \n", "\0", "😀"]), st.text(max_size=5))
FLOATS = st.floats(0, 2.0**100, width=32, exclude_min=True)


@st.composite
def examples(draw: st.DrawFn, leading: int) -> list[Any]:
    """One example; its numbers have the digits of the database."""
    firings = draw(st.lists(st.tuples(st.integers(0, 9999), FLOATS), min_size=1, max_size=4))
    values = [float(str(np.float32(value))) for _, value in firings]
    numbers = [draw(st.integers(-1, 2**60)) for _ in range(leading)]
    return [*numbers, values[0], draw(TOKENS), [position for position, _ in firings], values]


def written(value: Any, number: int) -> str:
    """JSON as SQLite's lists are written, as PostgreSQL writes it, and with every sign beyond ASCII escaped."""
    separators = ((",", ":"), (", ", ": "), (",", ":"))
    return json.dumps(value, ensure_ascii=number % 3 == 2, separators=separators[number % 3])


@given(st.lists(st.lists(examples(1), max_size=3), max_size=4))
def test_examples_are_those_of_each_text(lists: list[list[list[Any]]]) -> None:
    found = example_lists([written(one, number) for number, one in enumerate(lists)], leading=1)
    listed = [one for ones in lists for one in ones]
    assert found.counts.tolist() == [len(ones) for ones in lists]
    assert found.leading.tolist() == [one[:1] for one in listed]
    assert found.max_activation.tolist() == [float(np.float32(one[1])) for one in listed]
    assert found.max_token.to_pylist() == [one[2] for one in listed]


@given(st.lists(examples(2), max_size=5))
def test_firings_are_those_of_each_example(listed: list[list[Any]]) -> None:
    found = example_lists([written(listed, 0)], leading=2)
    assert found.leading.tolist() == [one[:2] for one in listed]
    for number, one in enumerate(listed):
        firings = slice(*found.firing_offsets[number : number + 2])
        assert found.positions[firings].tolist() == one[4]
        assert found.activations[firings].tolist() == [float(np.float32(value)) for value in one[5]]


@pytest.mark.parametrize("digits", ["1e-45", "1.1754942e-38", "0.1", "16777217", "3.4028235e+38", "7.0385307E-26"])
def test_digits_become_the_nearest_float32(digits: str) -> None:
    found = example_lists([f'[[0,{digits},"",[0],[{digits}]]]'], leading=1)
    assert found.activations.tolist() == found.max_activation.tolist() == [float(np.float32(digits))]


@pytest.mark.parametrize(
    "text",
    [
        '[[7,8.0,"a",[2,9],[8.0]]]',
        '[[7,8.0,"a",[2,9,3],[8.0]]]',
        '[[7,8.0,"a",[2],[8.0,1.0]]]',
        '[[7,8.0,"a",[],[]]]',
        "[[7,8.0,null,[2],[8.0]]]",
        '[[7,"a",[2],[8.0]]]',
        '[[7,8.0,"a",[2.5],[8.0]]]',
        '[[7,8.0,"a',
        '[[7,8.0,"a",[2],[8.0.0]]]',
    ],
)
def test_damaged_examples_are_refused(text: str) -> None:
    with pytest.raises(DamagedListError):
        example_lists(['[[1,1.0,"x",[0],[1.0]]]', text], leading=1)


@given(st.lists(st.lists(TOKENS, max_size=4), max_size=5))
def test_strings_are_those_of_each_text(lists: list[list[str]]) -> None:
    found = string_lists([written(one, number) for number, one in enumerate(lists)])
    assert found.to_pylist() == lists
    assert found.type == pa.list_(pa.string())


@pytest.mark.parametrize("text", ['["a",null]', '["a"', "null", '["a",1]', '["a"]}\n{"list":["b"]', '["a"]]'])
def test_damaged_strings_are_refused(text: str) -> None:
    with pytest.raises(DamagedListError):
        string_lists(['["x"]', text])
