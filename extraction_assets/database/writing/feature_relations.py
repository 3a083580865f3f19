"""Load of the relations of an SAE's features, inside the caller's one transaction."""

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.backends.arrow_lists import json_lists
from extraction_assets.database.tables import (
    extractions,
    feature_flags,
    feature_neighbours,
    feature_ranges,
    feature_tokens,
    relations,
)
from extraction_assets.database.writing.example_lists import constant, displayed, json_rows
from extraction_assets.database.writing.samples import Display
from extraction_assets.engine.relations.flags import Flag
from extraction_assets.engine.relations.found import Relations
from extraction_assets.engine.relations.neighbours import FeatureNeighbours
from extraction_assets.engine.relations.top_tokens import FeatureTokens, Place

_ROWS_AT_ONCE = 1_000_000  # of tokens or pairs: some 100 MB
_OF_RELATIONS = (relations, feature_tokens, feature_neighbours, feature_flags, feature_ranges)


class RelationsRow(NamedTuple):
    """What the ``relations`` table says of an SAE beside its counts."""

    fingerprint: str
    merge_fingerprint: str
    """Of the merged examples that they belong to."""
    scope: str
    """``corpus`` or ``sample``."""
    sample_one_in: int
    """1 for the whole corpus."""


def replace_relations(
    connection: sa.Connection,
    name: str,
    sae: str,
    row: RelationsRow,
    found: Relations,
    display_tokens: Display,
    ranges: Iterable[pa.Table] = (),
) -> None:
    """Replace the relations of one merged (extraction, SAE). Call it inside ``write_transaction``.

    ``ranges`` are rows of ``feature_ranges`` in parts, (``neuron_index``, ``ranges`` as JSON).
    """
    extraction_id = connection.execute(_id(name, sae)).scalar_one()
    backend = backend_of(connection)
    tokens = (_token_rows(extraction_id, place, one, display_tokens) for place, one in found.tokens.items())
    backend.replace_rows(connection, feature_tokens, extraction_id, (part for parts in tokens for part in parts))
    pairs = _neighbour_rows(extraction_id, found.neighbours, found.totals.firings)
    backend.replace_rows(connection, feature_neighbours, extraction_id, pairs)
    flags = [_flag_rows(extraction_id, found.flags, display_tokens)]
    backend.replace_rows(connection, feature_flags, extraction_id, flags)
    parts = (part.append_column("extraction_id", constant(extraction_id, len(part))) for part in ranges)
    backend.replace_rows(connection, feature_ranges, extraction_id, parts)
    connection.execute(sa.delete(relations).where(relations.c.extraction_id == extraction_id))
    counts = {"sample_count": found.totals.samples, "token_count": found.totals.tokens}
    values = {"extraction_id": extraction_id, **row._asdict(), **counts, "finished_at": dt.datetime.now(dt.UTC)}
    connection.execute(sa.insert(relations).values(values))
    backend.analyze(connection, _OF_RELATIONS)


def delete_relations(connection: sa.Connection, name: str, sae: str) -> None:
    """Remove the relations of an SAE, whose merged examples stay. Call it inside ``write_transaction``."""
    for extraction_id in connection.scalars(_id(name, sae)).all():
        for table in _OF_RELATIONS:
            backend_of(connection).delete(connection, table, table.c.extraction_id == extraction_id)


def _id(name: str, sae: str) -> sa.Select[Any]:
    return sa.select(extractions.c.id).where(extractions.c.name == name, extractions.c.sae == sae)


def _token_rows(extraction_id: int, place: Place, tokens: FeatureTokens, display: Display) -> Iterator[pa.Table]:
    for start in range(0, len(tokens.rank), _ROWS_AT_ONCE):
        part = FeatureTokens(*(column[start : start + _ROWS_AT_ONCE] for column in tokens))
        count = len(part.rank)
        yield pa.table(
            {
                "extraction_id": constant(extraction_id, count),
                "neuron_index": pa.array(part.neuron_index),
                "place": pa.array([place], pa.string()).take(constant(0, count)),
                "rank": pa.array(part.rank),
                "token_id": pa.array(part.token_id),
                "token": displayed([part.token_id], display).dictionary_decode(),
                "count": pa.array(part.counts),
                "mean_activation": pa.array(part.mean_activation),
                "share": pa.array(part.share),
            }
        )


def _neighbour_rows(extraction_id: int, pairs: FeatureNeighbours, firings: np.ndarray) -> Iterator[pa.Table]:
    """One row for every feature; an empty list where none fires with it."""
    starts = np.searchsorted(pairs.neuron_index, np.arange(len(firings) + 1))
    step = max(1, _ROWS_AT_ONCE * len(firings) // max(1, len(pairs.rank)))
    for first in range(0, len(firings), step):
        stop = min(first + step, len(firings))
        rows = slice(int(starts[first]), int(starts[stop]))
        texts = json_rows(*(_numbers(column[rows]) for column in (pairs.other, pairs.counts, pairs.jaccard, pairs.pmi)))
        lists = json_lists(
            pa.ListArray.from_arrays(pa.array(starts[first : stop + 1] - starts[first], pa.int32()), texts)
        )
        yield pa.table(
            {
                "extraction_id": constant(extraction_id, stop - first),
                "neuron_index": pa.array(np.arange(first, stop)),
                "neighbours": lists,
                "tokens": pa.array(firings[first:stop]),
            }
        )


def _numbers(values: np.ndarray) -> pa.Array:
    """Numbers as JSON; of a float the fewest digits that are no other float32."""
    return pa.array(values.astype(np.float32) if values.dtype == np.float64 else values).cast(pa.string())


def _flag_rows(extraction_id: int, flags: list[Flag], display: Display) -> pa.Table:
    return pa.table(
        {
            "extraction_id": constant(extraction_id, len(flags)),
            "flag": pa.array([flag.name for flag in flags], pa.string()),
            "neuron_index": pa.array([flag.neuron_index for flag in flags], pa.int64()),
            "detail": pa.array([json.dumps(_with_token(flag.detail, display)) for flag in flags], pa.string()),
        }
    )


def _with_token(detail: dict[str, Any], display: Display) -> dict[str, Any]:
    """With the token as people see it, where a detail names one."""
    return detail | ({"token": display([detail["token_id"]])[0]} if "token_id" in detail else {})
