"""What a project declares of the extraction that is exported: its checkpoints and its stored files.

What is merged is exported without; only what stands in no database needs them: decoder rows, and all SAE features.
"""

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.sealed import DamagedFileError

if TYPE_CHECKING:
    from extraction_assets.exports.decoder_rows import DecoderRows
    from extraction_assets.planning.plan import ExtractionPlan
    from extraction_assets.planning.stored_result import StoredFeatures


class Declared(NamedTuple):
    """The settings of an extraction, and where its files are."""

    settings: ExtractionSettings
    store: ChunkStore

    def current_plan(self, extraction: sa.Row) -> "ExtractionPlan | str":
        """What the settings make now, if it is what is merged; else one sentence on why it is not known to be."""
        from extraction_assets.planning.plan import ExtractionPlan

        try:
            plan = ExtractionPlan(self.settings, self.store)
            merged = plan.merge_fingerprint(extraction.sae)
        except (ValueError, LookupError, OSError) as error:  # no corpus, no checkpoint, no hub
            return str(error)
        if merged != extraction.fingerprint:
            merged_of = f"{extraction.name}/{extraction.sae}"
            return f"{merged_of} was merged from other settings or checkpoints than the current ones"
        return plan


def stored_features(declared: Declared | None, extraction: sa.Row) -> "StoredFeatures | None":
    """The SAE features that the result was made from, if all of them are stored, and which positions counted is
    known."""
    from extraction_assets.planning.stored_result import MergedResult, NotStoredError, find_stored_features

    if declared is None:
        return None
    result = MergedResult(extraction.name, extraction.sae, extraction.settings, extraction.fingerprint)
    try:
        found = find_stored_features(declared.store, result)
    except (NotStoredError, DamagedFileError):
        return None
    return found if found.settings.corpus.exclude_outlier_norms is None else None


class Decoder(NamedTuple):
    """The decoder rows of the SAE that the merged result is of."""

    rows: "DecoderRows | None"
    missing: str
    """Why there are none."""


def read_decoder(declared: Declared | None, extraction: sa.Row) -> Decoder:
    """The decoder of an SAE, if its checkpoint is still the one that was extracted with: rows of another one would be
    taken for this one's."""
    if declared is None:
        return Decoder(None, f"the project does not declare {extraction.name}/{extraction.sae}")
    plan = declared.current_plan(extraction)
    if isinstance(plan, str):
        return Decoder(None, plan)
    from extraction_assets.exports.decoder_rows import read_decoder_rows

    rows = read_decoder_rows(plan.extraction.saes[extraction.sae])
    return Decoder(rows, "" if rows is not None else "the SAE encodes only: it has no decoder")
