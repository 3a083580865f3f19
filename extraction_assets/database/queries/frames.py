"""Results as pandas frames."""

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.tables import extractions, feature_example_lists, features
from extraction_assets.engine.statistics.registry import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

_LISTED = (
    "id",
    "name",
    "sae",
    "hook",
    "latent_dim",
    "sample_count",
    "token_count",
    "top_k_examples",
    "finished_at",
)


def list_extractions(connection: sa.Connection) -> "pd.DataFrame":
    """One row for each merged (extraction, SAE)."""
    columns = [extractions.c[name] for name in _LISTED]
    return frame(connection, sa.select(*columns).order_by(extractions.c.name, extractions.c.sae))


def feature_table(connection: sa.Connection, extraction_id: int, *, lists: bool = False) -> "pd.DataFrame":
    """Statistics of every feature, by ``neuron_index``; those that are lists (the histogram) only with ``lists``.

    One that was added later is NULL while a chunk is of an earlier version: ``unknown_sizes`` says so.
    """
    columns = [features.c[column.name] for column in COLUMNS if lists or column.type != "integers"]
    query = sa.select(features.c.neuron_index, *columns).where(features.c.extraction_id == extraction_id)
    return frame(connection, query.order_by(features.c.neuron_index)).set_index("neuron_index")


def example_counts(connection: sa.Connection, extraction_id: int) -> "pd.Series[int]":
    """Number of stored examples by ``neuron_index``; features without any are left out."""
    stored = feature_example_lists.c
    count = backend_of(connection).list_length(stored.examples).label("examples")
    query = sa.select(stored.neuron_index, count).where(stored.extraction_id == extraction_id)
    return frame(connection, query.order_by(stored.neuron_index)).set_index("neuron_index")["examples"]


def frame(connection: sa.Connection, query: sa.Select[Any]) -> "pd.DataFrame":
    """The rows of a query."""
    import pandas as pd  # a command that shows one feature does not need all

    result = connection.execute(query)
    return pd.DataFrame(result.all(), columns=list(result.keys()))
