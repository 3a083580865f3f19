"""Two features side by side."""

from typing import Any

import sqlalchemy as sa

from extraction_assets.database.tables import extractions
from extraction_assets.database.views import feature_activations


def places_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """(sample_index, positions) of the strongest examples of a feature, all that are stored."""
    stored = feature_activations.c
    query = (
        sa.select(stored.sample_index, stored.positions)
        .where(stored.extraction_id == extraction_id, stored.neuron_index == neuron_index)
        .order_by(stored.rank)
    )
    return query.execution_options(about=f"where the examples of feature {neuron_index} stand")


def same_index_query(neuron_index: int) -> sa.Select[Any]:
    """(name, sae, model, hook) of every result that has a feature of this number."""
    found = extractions.c
    query = (
        sa.select(found.name, found.sae, found.model, found.hook)
        .where(found.latent_dim > neuron_index)
        .order_by(found.name, found.sae)
    )
    return query.execution_options(about="results with a feature of this number")
