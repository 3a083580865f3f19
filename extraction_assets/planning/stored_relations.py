"""Whether the results database holds relations of the current merge, and of what they were counted."""

import datetime as dt
from typing import NamedTuple, Protocol

import sqlalchemy as sa

from extraction_assets.catalog import FEATURE_RELATIONS
from extraction_assets.database.tables import extractions, relations
from extraction_assets.planning.plan import ExtractionPlan


class Counted(Protocol):
    """What relations were counted of."""

    @property
    def scope(self) -> str: ...

    @property
    def sample_one_in(self) -> int: ...


class StoredRelations(NamedTuple):
    """The relations of an SAE in the database."""

    finished_at: dt.datetime
    """In UTC."""
    scope: str
    sample_one_in: int
    is_current: bool
    """Whether they are those of the current chunks, and counted as this version counts."""


def stored_relations(connection: sa.Connection, plan: ExtractionPlan, sae: str) -> StoredRelations | None:
    """The relations of an SAE; None if there are none."""
    query = (
        sa.select(relations, extractions.c.fingerprint.label("merged"))
        .join(extractions, extractions.c.id == relations.c.extraction_id)
        .where(extractions.c.name == plan.settings.name, extractions.c.sae == sae)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    current = row.merge_fingerprint == row.merged == plan.merge_fingerprint(sae)
    current = current and row.fingerprint == plan.fingerprint_of(FEATURE_RELATIONS, None, sae)
    return StoredRelations(row.finished_at, row.scope, row.sample_one_in, current)


def scope_text(counted: Counted) -> str:
    """For people."""
    return "over the whole corpus" if counted.scope == "corpus" else f"over one sample in {counted.sample_one_in}"
