"""Whether the results database holds what the current chunks merge to."""

import datetime as dt
from typing import NamedTuple

import sqlalchemy as sa

from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.database.tables import corpora, extractions, features
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.stores.chunk_names import DRAWS_FILE
from extraction_assets.stores.sealed import DamagedFileError


class StoredMerge(NamedTuple):
    """The rows of an SAE in the database."""

    finished_at: dt.datetime
    """In UTC."""
    stale: str | None
    """Why it has to be merged again; None if it is current."""


def stored_merge(connection: sa.Connection, plan: ExtractionPlan, sae: str) -> StoredMerge | None:
    """The merge of an SAE in the database, compared with the current chunks and corpus; None if nothing is merged."""
    query = (
        sa.select(extractions.c.finished_at, extractions.c.fingerprint, corpora.c.sample_count, corpora.c.fingerprint)
        .join(corpora, corpora.c.id == extractions.c.corpus_id)
        .where(extractions.c.name == plan.settings.name, extractions.c.sae == sae)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    finished_at, merged, samples, content = row
    if merged != plan.merge_fingerprint(sae):
        return StoredMerge(finished_at, "made from other settings")
    # Names and places of documents have no part in a chunk's fingerprint, but they are in the database too. Another
    # extraction may have added samples to the same corpus: then its content is not known here.
    if samples <= len(plan.corpus) and plan.corpus.content_fingerprint(slice(0, samples)) != content:
        return StoredMerge(finished_at, "its documents have other names or places now")
    if _is_without_draws(connection, plan, sae):
        return StoredMerge(finished_at, "its chunks were computed again, with more statistics")
    return StoredMerge(finished_at, None)


def _is_without_draws(connection: sa.Connection, plan: ExtractionPlan, sae: str) -> bool:
    """Whether a merge of tables from an earlier version, which have no draws, stands beside tables that have: what is
    made again has the same fingerprint."""
    if plan.settings.statistics == "basic":
        return False
    query = (
        sa.select(features.c.interval_samples.is_(None))
        .join(extractions, extractions.c.id == features.c.extraction_id)
        .where(extractions.c.name == plan.settings.name, extractions.c.sae == sae, features.c.neuron_index == 0)
    )
    if not connection.scalar(query):
        return False
    try:
        paths = (plan.chunk_path(TOP_K_TABLE, chunk, sae) for chunk in plan.settings.chunks)
        return all(DRAWS_FILE in plan.store.record(path) for path in paths)
    except (DamagedFileError, FileNotFoundError):
        return False  # the state of the chunk says so
