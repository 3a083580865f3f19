"""Frames of one result, by the queries of the database."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.shown.feature_reads import missing_directions, missing_relations
from extraction_assets.database.queries import relations as relations_queries
from extraction_assets.database.queries.directions import Neighbour as Nearest
from extraction_assets.database.queries.directions import TokenLogit, logits_of, nearest_of
from extraction_assets.database.queries.examples import find_feature
from extraction_assets.database.queries.labels import Label, list_labels
from extraction_assets.python_api.errors import NotComputedError

if TYPE_CHECKING:
    import pandas as pd

_TOKEN_COLUMNS = ("rank", "token_id", "token", "count", "mean_activation", "share")


class Advice(NamedTuple):
    """Why a part is not there and what to do, where no asset of it can be materialized."""

    relations: str | None = None
    directions: str | None = None


def description(row: sa.Row[Any]) -> "pd.Series[Any]":
    """A row of ``extractions``."""
    import pandas as pd

    return pd.Series(dict(row._mapping)).drop(["id", "corpus_id"])


def neighbours(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    neuron_index: int,
    by: Literal["firing", "decoder"],
    advice: Advice,
) -> "pd.DataFrame":
    """The features nearest to one, by what they fire on or by their decoder rows."""
    _refuse_other(by, ("firing", "decoder"), "by")
    find_feature(connection, extraction.id, neuron_index)
    if by == "firing":
        _require_relations(connection, extraction, advice)
        found = relations_queries.neighbours_of(connection, extraction.id, neuron_index)
        return _frame(found.neighbours if found else (), relations_queries.Neighbour._fields)
    made = _require_directions(connection, extraction, advice)
    return _frame(nearest_of(connection, made.id, neuron_index), Nearest._fields)


def tokens(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    neuron_index: int,
    place: Literal["firing", "next"],
    advice: Advice,
) -> "pd.DataFrame":
    """Top tokens of a feature by rank."""
    _refuse_other(place, ("firing", "next"), "place")
    find_feature(connection, extraction.id, neuron_index)
    _require_relations(connection, extraction, advice)
    rows = relations_queries.tokens_of(connection, extraction.id, neuron_index, place)
    return _frame(rows, _TOKEN_COLUMNS).set_index("rank")


def logits(connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int, advice: Advice) -> "pd.DataFrame":
    """The logit lens of a feature: ``side`` is ``top`` or ``bottom``."""
    find_feature(connection, extraction.id, neuron_index)
    made = _require_directions(connection, extraction, advice)
    found = logits_of(connection, made.id, neuron_index)
    if found is None:
        why = made.undefined or "its decoder row is zero, which is no direction"
        raise NotComputedError(f"feature {neuron_index} of {_name(extraction)} has no logit lens: {why}")
    rows = [("top", *one) for one in found.top] + [("bottom", *one) for one in found.bottom]
    return _frame(rows, ("side", *TokenLogit._fields))


def flags(connection: sa.Connection, extraction: sa.Row[Any], neuron_index: int, advice: Advice) -> dict[str, Any]:
    """Flag -> its details."""
    find_feature(connection, extraction.id, neuron_index)
    _require_relations(connection, extraction, advice)
    return relations_queries.flags_of(connection, extraction.id, neuron_index)


def labels(connection: sa.Connection, name: str, sae: str) -> "pd.DataFrame":
    """What people have written, by ``neuron_index``."""
    return (
        _frame(list_labels(connection, name, sae), Label._fields)
        .set_index("neuron_index")
        .drop(columns=["name", "sae"])
    )


def _require_relations(connection: sa.Connection, extraction: sa.Row[Any], advice: Advice) -> None:
    row, missing = missing_relations(connection, extraction)
    if row is None:
        raise NotComputedError(f"tokens, neighbours and flags of {_name(extraction)} are {advice.relations or missing}")


def _require_directions(connection: sa.Connection, extraction: sa.Row[Any], advice: Advice) -> sa.Row[Any]:
    row, missing = missing_directions(connection, extraction)
    if row is None:
        raise NotComputedError(f"directions of {_name(extraction)} are {advice.directions or missing}")
    return row


def _refuse_other(given: str, known: Sequence[str], name: str) -> None:
    if given not in known:
        raise ValueError(f"{name} is {given!r}, not one of {', '.join(known)}")


def _name(extraction: sa.Row[Any]) -> str:
    return f"{extraction.name}/{extraction.sae}"


def _frame(rows: Sequence[Any], columns: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([tuple(row) for row in rows], columns=list(columns))
