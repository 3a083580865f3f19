"""Bulk load of what features write, inside the caller's one transaction."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from torch import Tensor

from extraction_assets.database.backends import backend_of
from extraction_assets.database.backends.arrow_lists import json_lists, json_numbers
from extraction_assets.database.tables import directions, feature_logits
from extraction_assets.database.writing.example_lists import constant, json_rows, json_texts
from extraction_assets.engine.directions.logit_lens import LogitLens
from extraction_assets.engine.directions.nearest import NearestRows

_AT_ONCE = 8192
"""Features whose rows are made at once: some 20 MB of text."""

Display = Callable[[list[int]], list[str]]
"""From token ids to one readable text an id."""


class DirectionsRow(NamedTuple):
    """A row of ``directions``, without its id."""

    name: str
    sae: str
    fingerprint: str
    norm: str
    """How the final norm enters the logit lens; "" where that is not defined."""
    undefined: str | None
    """Why the logit lens is not defined."""
    finished_at: dt.datetime


class Loaded(NamedTuple):
    """What is loaded of an SAE's features; all of it on the CPU."""

    lens: LogitLens | None
    nearest: Sequence[NearestRows]
    """Of the SAE itself, then of the others together, each strongest first; nothing of one without a decoder."""
    saes: Sequence[str]
    """Names of the SAEs by their numbers in ``nearest``."""
    latent_dim: int


def replace_directions(connection: sa.Connection, row: DirectionsRow, loaded: Loaded, display_tokens: Display) -> int:
    """Replaces what is stored of an SAE's directions; returns its id. Call it inside ``write_transaction``.

    Every feature has a row, with NULL where nothing is defined of it: logits of a decoder row of zeros, or of any row
    where ``undefined`` says why, and neighbours where the SAE has no decoder.
    """
    _delete(connection, row.name, row.sae)
    inserted = connection.execute(sa.insert(directions).values(**row._asdict())).inserted_primary_key
    assert inserted is not None
    directions_id = int(inserted[0])
    backend = backend_of(connection)
    for parts in _tables(directions_id, loaded, display_tokens):
        backend.insert(connection, feature_logits, parts)
    backend.analyze(connection, (directions, feature_logits))
    return directions_id


def delete_stale_directions(connection: sa.Connection, name: str, sae: str, current: str) -> None:
    """Deletes directions that were computed from other checkpoints than those of the fingerprint ``current``: pages
    would show them beside the merge of another SAE under the same name. Call it inside ``write_transaction``."""
    _delete(connection, name, sae, directions.c.fingerprint != current)


def _delete(connection: sa.Connection, name: str, sae: str, *which: sa.ColumnElement[bool]) -> None:
    named = (directions.c.name == name, directions.c.sae == sae, *which)
    ids = connection.scalars(sa.select(directions.c.id).where(*named)).all()
    backend_of(connection).delete(connection, feature_logits, feature_logits.c.directions_id.in_(ids))
    connection.execute(sa.delete(directions).where(directions.c.id.in_(ids)))


def _tables(directions_id: int, loaded: Loaded, display_tokens: Display) -> Iterator[Iterator[pa.Table]]:
    """The rows of ``feature_logits``: first those of features with logits, then those without."""
    everyone = np.arange(loaded.latent_dim)
    has_logits = np.zeros(len(everyone), dtype=bool) if loaded.lens is None else loaded.lens.is_defined.numpy()
    for chosen, lens in ((everyone[has_logits], loaded.lens), (everyone[~has_logits], None)):
        parts = [chosen[first : first + _AT_ONCE] for first in range(0, len(chosen), _AT_ONCE)]
        if parts:
            yield (_rows(directions_id, part, lens, loaded, display_tokens) for part in parts)


def _rows(
    directions_id: int, features: np.ndarray, lens: LogitLens | None, loaded: Loaded, display_tokens: Display
) -> pa.Table:
    """The rows of some features [n], with logits if there is a ``lens``."""
    columns = {
        "directions_id": constant(directions_id, len(features)),
        "neuron_index": pa.array(features),
    }
    if loaded.nearest:
        columns["neighbours"] = _neighbours(features, loaded)
    if lens is not None:
        columns["top"] = _tokens(lens.top_tokens[features], lens.top_logits[features], display_tokens)
        columns["bottom"] = _tokens(lens.bottom_tokens[features], lens.bottom_logits[features], display_tokens)
        for name in ("mean", "std", "minimum", "maximum"):
            columns[name] = pa.array(getattr(lens, name)[features].double().numpy())
        columns["histogram"] = json_numbers(
            _equal_lists(pa.array(lens.histogram[features].reshape(-1).numpy()), features)
        )
    return pa.table(columns)


def _tokens(token_ids: Tensor, logits: Tensor, display_tokens: Display) -> pa.Array:
    """JSON [[token_id, token, logit], …] of int64 and float32 [n, k]."""
    ids = token_ids.reshape(-1).numpy()
    different, place = np.unique(ids, return_inverse=True)
    tokens = json_texts(pa.array(display_tokens(different.tolist()), pa.string())).take(pa.array(place.reshape(-1)))
    return json_lists(_equal_lists(json_rows(_numbers(ids), tokens, _numbers(logits.reshape(-1).numpy())), logits))


def _neighbours(features: np.ndarray, loaded: Loaded) -> pa.Array:
    """JSON [[sae, neuron_index, cosine], …]"""
    names = json_texts(pa.array(loaded.saes, pa.string()))
    of_each = [[one[features].numpy() for one in nearest] for nearest in loaded.nearest]
    sae, feature, cosine = (np.concatenate(columns, axis=1) for columns in zip(*of_each, strict=True))  # [n, m]
    is_there = np.isfinite(cosine)
    offsets = np.concatenate([[0], np.cumsum(is_there.sum(axis=1))])
    columns = names.take(pa.array(sae[is_there])), _numbers(feature[is_there]), _numbers(cosine[is_there])
    return json_lists(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), json_rows(*columns)))


def _numbers(values: np.ndarray) -> pa.Array:
    """Numbers as text; of a float32 the fewest digits that are no other float32."""
    return pa.array(values).cast(pa.string())


def _equal_lists(values: pa.Array, rows: np.ndarray | Tensor) -> pa.Array:
    """As many lists of equal length as there are ``rows``."""
    offsets = np.linspace(0, len(values), len(rows) + 1, dtype=np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)
