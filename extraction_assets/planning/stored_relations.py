"""Whether the results database holds relations of the current merge, and of all that they can be counted of now."""

import datetime as dt
from collections import Counter
from typing import Any, Literal, NamedTuple, Protocol

import sqlalchemy as sa

from extraction_assets.catalog import FEATURE_RELATIONS, SAE_FEATURES, TOP_K_TABLE
from extraction_assets.database.tables import extractions, relations
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_names import SAMPLED_FILE
from extraction_assets.stores.sealed import DamagedFileError

Scope = Literal["corpus", "sample"]
"""All samples, or one in ``sample_one_in``."""


class NothingToCount(NamedTuple):
    """Relations cannot be counted; why, and what would change that."""

    reason: str


def scope_to_count(plan: ExtractionPlan, sae: str) -> Scope | NothingToCount:
    """The whole corpus where all its SAE features are stored; else the sampled samples of all chunks.

    Stored features do not say which positions are outliers (``exclude_outlier_norms``): sampled ones leave them out.
    """
    if _whole_corpus_is_stored(plan, sae):
        return "corpus"
    chunks, settings = plan.settings.chunks, plan.settings
    problems = Counter(filter(None, (_without_sample(plan, chunk, sae) for chunk in chunks)))
    if not problems:
        return "sample"
    kinds = "; ".join(f"{count} of {len(chunks)} chunks {problem}" for problem, count in problems.items())
    return NothingToCount(
        f"{kinds}. `run {settings.name}` computes them again, with `statistics: full`; or keep {SAE_FEATURES}"
    )


def _whole_corpus_is_stored(plan: ExtractionPlan, sae: str) -> bool:
    if plan.settings.corpus.exclude_outlier_norms is not None:
        return False
    return set(plan.chunk_states(SAE_FEATURES, sae).values()) == {"done"}


def _without_sample(plan: ExtractionPlan, chunk: Chunk, sae: str) -> str | None:
    """Why a chunk has no sampled features."""
    if plan.chunk_state(TOP_K_TABLE, chunk, sae) != "done":
        return "have no current table any more"
    if SAMPLED_FILE in plan.store.record(plan.chunk_path(TOP_K_TABLE, chunk, sae)):
        return None
    basic = plan.settings.statistics == "basic"
    return "were computed with `statistics: basic`" if basic else "were computed by an earlier version"


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
    stale: str | None
    """Why they have to be counted again; None if they are those of the current chunks, counted as this version counts
    and of all that can be counted."""


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
    return StoredRelations(row.finished_at, row.scope, row.sample_one_in, _stale(row, plan, sae))


def missing_relations(connection: sa.Connection, plan: ExtractionPlan, sae: str) -> str | None:
    """Why the relations of an SAE have to be counted, although Dagster's history has them; None if they have not.

    Where nothing can be counted, nothing is missing.
    """
    found = stored_relations(connection, plan, sae)
    if found is not None:
        return found.stale
    try:
        countable = not isinstance(scope_to_count(plan, sae), NothingToCount)
    except (DamagedFileError, FileNotFoundError):
        return None  # the state of the chunk says so
    return "they are not in the results database" if countable else None


def _stale(row: sa.Row[Any], plan: ExtractionPlan, sae: str) -> str | None:
    current = row.merge_fingerprint == row.merged == plan.merge_fingerprint(sae)
    if not current or row.fingerprint != plan.fingerprint_of(FEATURE_RELATIONS, None, sae):
        return "of an earlier result"
    if row.scope == "sample" and _whole_corpus_is_stored(plan, sae):
        return "the SAE features of the whole corpus are stored now"
    return None


def scope_text(counted: Counted) -> str:
    """For people."""
    return "over the whole corpus" if counted.scope == "corpus" else f"over one sample in {counted.sample_one_in}"
