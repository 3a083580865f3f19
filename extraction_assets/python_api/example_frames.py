"""Examples of a feature as a frame, which a notebook shows as texts in context."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from extraction_assets.browser.fragments import OfFeature, examples_fragment
from extraction_assets.browser.shown.feature_parts import shown_example
from extraction_assets.database.queries.examples import Draw, Example, draws_of, examples_of, find_feature
from extraction_assets.database.queries.one_feature import special_ids
from extraction_assets.engine.statistics.rows_and_sentences import NO_DRAWS, were_drawn
from extraction_assets.python_api.errors import NotComputedError
from extraction_assets.python_api.frames import ShownFrame

_WIDTH, _SHOWN = 20, 20
"""Tokens on each side of the strongest one, and examples, that a notebook shows."""


def examples_frame(
    connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int, limit: int | None
) -> ShownFrame:
    """The strongest examples of a feature by ``rank``."""
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}: give the number of examples, or nothing for all")
    row = find_feature(connection, extraction.id, neuron_index)
    most = max(extraction.top_k_examples, 1) if limit is None else limit
    found = examples_of(connection, extraction.id, neuron_index, most)
    return _frame(connection, extraction, row, found, ["rank"], f"{len(found)} strongest examples")


def draws_frame(connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int) -> ShownFrame:
    """The draws of a feature by ``interval`` and ``rank``. Raises NotComputedError."""
    row = find_feature(connection, extraction.id, neuron_index)
    if not were_drawn(row):
        raise NotComputedError(f"draws of {extraction.name}/{extraction.sae} are {NO_DRAWS}")
    found = draws_of(connection, extraction.id, neuron_index)
    return _frame(connection, extraction, row, found, ["interval", "rank"], f"{len(found)} draws")


def _frame(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    row: sa.Row[Any],
    found: Sequence[Example] | Sequence[Draw],
    index: list[str],
    title: str,
) -> ShownFrame:
    """``row`` is the feature's row of ``features``."""
    special, scale = special_ids(connection, extraction.corpus_id), row.max_activation or 0.0
    of = OfFeature(extraction.name, extraction.sae, row.neuron_index)

    def html() -> str:
        shown = [shown_example(one, width=_WIDTH, scale=scale, special_ids=special) for one in found[:_SHOWN]]
        return examples_fragment(shown, of, title=title, more=len(found) - len(shown))

    columns = [*index, "sample_index", "max_activation", "max_token", "document_id", "first_token", "tokens", "values"]
    columns += ["positions", "activations", "token_ids", "messages"]
    rows = [
        {**one._asdict(), "values": token_values(one), "messages": [said._asdict() for said in one.messages]}
        for one in found
    ]
    return ShownFrame(pd.DataFrame(rows, columns=columns).set_index(index), html=html)


def token_values(example: Example | Draw) -> np.ndarray[Any, Any]:
    """float32, one for each token of the sample: the activation on it, 0 where the feature does not fire."""
    values = np.zeros(len(example.tokens), dtype=np.float32)
    values[example.positions] = example.activations
    return values
