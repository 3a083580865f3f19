"""What the address of a feature list asks for: filter, order and place, read from its parameters."""

import math
from typing import NamedTuple, get_args

from extraction_assets.browser.parameters import BadRequestError, Parameters
from extraction_assets.database.queries.feature_filter import FLAGS, LABELLED, FeatureFilter, Range
from extraction_assets.database.queries.feature_list import WITH_UNKNOWN, Key, Sort
from extraction_assets.database.queries.labels import MARKS
from extraction_assets.database.queries.search import FOUND_BY, FoundBy

DEFAULT_SORT: Sort = "maximum"
SORTS: tuple[Sort, ...] = get_args(Sort)
RANGES = ("density", "maximum", "mean", "std")

ROWS = 50
MOST_ROWS = 500


class ListQuery(NamedTuple):
    """The parameters of a feature list."""

    wanted: FeatureFilter
    sort: Sort
    descending: bool
    after: Key | None
    before: Key | None
    limit: int
    typed: str | None
    """What is searched for, as it was typed."""
    found_by: FoundBy | None
    """Where it is searched for; None where the list finds out."""


def list_query(parameters: Parameters) -> ListQuery:
    """The checked parameters of a feature list. Raises BadRequestError."""
    typed = parameters.text("q")
    by = _found_by(parameters)
    sort = parameters.choice("sort", SORTS, "found" if typed else DEFAULT_SORT)
    if sort == "found" and typed is None:
        raise BadRequestError("sort=found sorts by what a search finds: it needs q=")
    order = parameters.choice("order", ("asc", "desc"), "asc" if sort in ("number", "label") else "desc")
    after, before = (_key(parameters, name, sort) for name in ("after", "before"))
    if after and before:
        raise BadRequestError("after= and before= exclude each other")
    if any(key and key.value is None for key in (after, before)) and sort not in ("number", *WITH_UNKNOWN):
        name = "after" if after else "before"
        raise BadRequestError(
            f"{name}={parameters.text(name)} is not where a page sorted by {sort} ends: take the address of a link"
        )
    limit = parameters.integer("rows", 1, MOST_ROWS) or ROWS
    return ListQuery(_wanted(parameters), sort, order == "desc", after, before, limit, typed, by)


def _found_by(parameters: Parameters) -> FoundBy | None:
    return parameters.choice("by", FOUND_BY, "token") if parameters.text("by") else None


def _wanted(parameters: Parameters) -> FeatureFilter:
    ranges = {name: Range(parameters.number(f"min_{name}"), parameters.number(f"max_{name}")) for name in RANGES}
    flags = parameters.texts("flag")
    for flag in flags:
        if flag not in FLAGS:
            raise BadRequestError(f"flag={flag} is not one of {', '.join(FLAGS)}")
    label = parameters.choice("label", (LABELLED, *MARKS), LABELLED) if parameters.text("label") else None
    return FeatureFilter(**ranges, flags=tuple(dict.fromkeys(flags)), label=label)


def _key(parameters: Parameters, name: str, sort: Sort) -> Key | None:
    """``0.5:12``: the value of the row that a page ends with and its number; ``:12`` for one without a value. In the
    order of labels the value is a text."""
    text = parameters.text(name)
    if text is None:
        return None
    value, colon, number = text.rpartition(":")
    try:
        if not colon:
            raise ValueError(text)
        if sort == "label":
            return Key(value or None, _number(number))
        found = float(value) if value else None
        if found is not None and math.isnan(found):
            raise ValueError(text)
        return Key(found, _number(number))
    except ValueError as error:
        raise BadRequestError(f"{name}={text} is not where a page ends: take the address of a link") from error


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(text)
    return int(text)


def key_text(key: Key) -> str:
    """A key as an address has it; every digit of the value counts."""
    value = "" if key.value is None else key.value if isinstance(key.value, str) else repr(float(key.value))
    return f"{value}:{key.neuron_index}"
