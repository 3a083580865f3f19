"""The intervals of other kinds of a feature: tenths of its maximum, quantiles, where the settings ask for them."""

from collections import Counter
from typing import Any

import sqlalchemy as sa

from extraction_assets.browser.shown.context import context
from extraction_assets.browser.shown.feature_parts import FurtherRange, ShownExample
from extraction_assets.database.queries.relations import ranges_query
from extraction_assets.database.queries.samples import where_query

_WINDOW = 10
"""Tokens that are stored on each side of the strongest one."""


def further_ranges(
    connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int, scale: float, drawn: int | None = None
) -> tuple[FurtherRange, ...]:
    """The further intervals of a feature, the strongest first, with at most ``drawn`` examples each; ``scale`` is the
    feature's maximum. Empty where none are computed for the current result."""
    stored = connection.scalar(ranges_query(extraction.id, neuron_index)) or []
    totals = Counter[str]()
    for kind, _, _, count, _ in stored:
        totals[kind] += count
    chosen = [(*one[:4], one[4][:drawn]) for one in reversed(stored)]
    places = _places(connection, extraction.corpus_id, {row[0] for *_, rows in chosen for row in rows})
    found = [
        FurtherRange(
            kind,
            low,
            high,
            count,
            count / totals[kind] if totals[kind] else None,
            tuple(_example(row, places, scale) for row in rows),
        )
        for kind, low, high, count, rows in chosen
    ]
    return tuple(sorted(found, key=lambda one: one.kind))


def _places(connection: sa.Connection, corpus_id: int, wanted: set[int]) -> dict[int, tuple[str, int]]:
    """(document_id, first_token) of those samples that are stored: a draw of another kind may be of one that is not."""
    if not wanted:
        return {}
    rows = connection.execute(where_query(corpus_id, wanted))
    return {index: (document_id, first) for index, document_id, first in rows}


def _example(row: list[Any], places: dict[int, tuple[str, int]], scale: float) -> ShownExample:
    """Only the tokens around the strongest one are kept, so that no other width can be shown."""
    sample_index, maximum, token, positions, activations, first, tokens = row
    before = [""] * first  # positions are those of the sample
    near = [(at, value) for at, value in zip(positions, activations, strict=True) if first <= at < first + len(tokens)]
    at, values = [at for at, _ in near], [value for _, value in near]
    shown = context([*before, *tokens], at, values, width=_WINDOW, scale=scale)
    document_id, first_token = places.get(sample_index, ("", 0))
    return ShownExample(sample_index, maximum, token, document_id, first_token, shown, stored=sample_index in places)
